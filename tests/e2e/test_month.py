"""A month of researcher, engineer and reviewer, as they see it: each test goes on from where the one before ended.

Where Dagster's or MLflow's own pages change, this is the file to mend.
"""

import re
import time

from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import Browser, Servers

MODEL = "slmrec-tiny-student"
CHAIN_SECONDS = 900.0
TICK = 480.0
"""A sensor looks every minute; the run that it asks for has to start and end too, on a machine that may be busy."""


def asset(servers: Servers, name: str) -> str:
    return f"{servers.dagster}/assets/{name}?partition=tiny"


def version(servers: Servers, number: int) -> str:
    return f"{servers.mlflow}/?v={number}#/models/{MODEL}/versions/{number}?workflowType=machine_learning"


def follow(browser: Browser, beginning: str, end: str) -> None:
    """Open the page's link to such an address; MLflow's pages differ behind the # only, which a reload makes felt."""
    target = browser.page.locator(f"a[href^='{beginning}'][href*='{end}']").first.get_attribute("href")
    assert target
    browser.open(target)
    browser.page.reload(wait_until="domcontentloaded")


def close_the_assistant(browser: Browser) -> None:
    """MLflow 3.17 opens one beside its pages."""
    browser.page.get_by_role("button", name="Close").filter(visible=True).last.click()


def switch_on(browser: Browser, servers: Servers, sensor: str) -> None:
    browser.open(f"{servers.dagster}/locations/slmrec/sensors/{sensor}")
    switch = browser.page.locator("input[type=checkbox]")
    expect(switch).not_to_be_checked()
    browser.page.locator("label", has=switch).click()
    expect(switch).to_be_checked()


def sees_after_a_tick(browser: Browser, address: str, text: str) -> None:
    """Open the page again and again until it says so: one of a partition isn't always refreshed by itself."""
    deadline = time.monotonic() + TICK
    while True:
        browser.open(address)
        try:
            return browser.sees(text, 15)
        except AssertionError:
            if time.monotonic() > deadline:
                raise


def ends_well(where: Page | Locator, seconds: float) -> None:
    """Wait until a run has ended in this part of Dagster's page of runs, which is refreshed by itself."""
    ended = where.get_by_text(re.compile("^(Success|Failure|Canceled)$")).filter(visible=True).first
    expect(ended).to_be_visible(timeout=seconds * 1000)
    assert ended.inner_text() == "Success"


def test_the_graph_shows_every_part_of_the_chain(browser: Browser, servers: Servers) -> None:
    browser.open(f"{servers.dagster}/asset-groups")
    for group in ("data", "backbone", "baselines", "llm", "results", "delivery", "studies"):
        browser.sees(group)
    browser.page.get_by_role("button", name="Materialize all").wait_for()
    browser.page.get_by_text("llm", exact=True).filter(visible=True).last.click()
    browser.sees("teacher_states")
    browser.page.reload(wait_until="domcontentloaded")  # fits the whole graph into the window again
    for name in ("item_embeddings", "teacher", "teacher_states", "student", "narrow_student"):
        expect(browser.page.get_by_text(name, exact=True).filter(visible=True).first).to_be_visible()
    browser.keep("lineage")


def test_the_engineer_materialises_the_chain_by_clicking(browser: Browser, servers: Servers) -> None:
    page = browser.page
    browser.open(f"{servers.dagster}/locations/slmrec/jobs/chain")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_text("Select a partition or create one").click()
    page.get_by_placeholder("Filter partitions").fill("tiny")
    page.get_by_text("tiny", exact=True).filter(visible=True).first.click()
    page.get_by_text("Launch runs to materialize").click()
    expect(page.get_by_placeholder("Filter partitions")).to_be_hidden()
    browser.keep("materialise")
    page.get_by_role("button", name="Launch 1 run").click()
    page.get_by_text("Launch runs to materialize").wait_for(state="hidden")
    browser.open(f"{servers.dagster}/runs")
    ends_well(page, CHAIN_SECONDS)
    browser.keep("runs")


def test_the_report_opens_from_the_page_of_its_asset(browser: Browser, servers: Servers) -> None:
    browser.open(asset(servers, "evaluation_report"))
    browser.sees("mlflow_run")
    browser.keep("asset")
    follow(browser, servers.mlflow, "/artifacts/report.html")
    close_the_assistant(browser)
    report = browser.page.frame_locator("iframe").last
    expect(report.get_by_text("Tiny synthetic domain").first).to_be_visible()
    expect(report.get_by_text("350 test users").first).to_be_visible()
    browser.keep("report")


def test_the_asset_leads_to_its_mlflow_run(browser: Browser, servers: Servers) -> None:
    browser.open(asset(servers, "student"))
    follow(browser, servers.mlflow, "/runs/")
    browser.sees("About this run")
    browser.sees("Finished")
    browser.sees(MODEL)
    browser.keep("mlflow_run")


def test_the_reviewer_reads_the_verdict_on_the_versions_page(browser: Browser, servers: Servers) -> None:
    browser.open(version(servers, 1))
    browser.sees("@ challenger")
    browser.sees("Gate: passed")
    browser.sees("there is no champion and no other challenger to compare with")
    browser.keep("challenger")


def test_the_reviewer_moves_the_alias_by_clicking(browser: Browser) -> None:
    browser.page.get_by_title("Edit aliases").click()
    dialog = browser.page.get_by_role("dialog").filter(has_text="Add/Edit alias")
    dialog.get_by_role("combobox").fill("champion")
    browser.page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Save aliases").click()
    browser.sees("@ champion")
    expect(dialog).to_be_hidden()


def test_the_log_has_a_new_line_once_the_sensor_is_on(browser: Browser, servers: Servers) -> None:
    switch_on(browser, servers, "champion_sensor")
    switch_on(browser, servers, "recommendations_sensor")
    sees_after_a_tick(browser, asset(servers, "champion"), "changed by hand by unknown")
    browser.sees(f"{MODEL}, version 1")


def test_the_sensor_has_launched_a_run_that_ends_well(browser: Browser, servers: Servers) -> None:
    page = browser.page
    browser.open(f"{servers.dagster}/runs")
    by_the_sensor = page.locator("a[href$='/sensors/recommendations_sensor']")
    row = page.locator("div").filter(has=by_the_sensor).filter(has=page.locator("a[href*='/jobs/recommend']")).last
    expect(row).to_be_visible(timeout=TICK * 1000)
    ends_well(row, TICK)
    browser.keep("sensor_run")


def test_the_recommendations_are_the_champions(browser: Browser, servers: Servers) -> None:
    sees_after_a_tick(browser, asset(servers, "recommendations"), f"{MODEL}/1")
    browser.keep("recommendations")


def test_the_researchers_next_student_is_compared_with_the_champion(browser: Browser, servers: Servers) -> None:
    done = servers.place.run("run", "--domain", "tiny", "--profile", str(servers.place.folder / "second.yaml"))
    assert done.returncode == 0, done.stderr[-3000:]
    browser.open(version(servers, 2))
    browser.sees("@ challenger")
    browser.sees(f"{MODEL}/1")


def test_a_promotion_is_followed(browser: Browser, servers: Servers) -> None:
    done = servers.place.run("promote", "--domain", "tiny", "--reason", "trained longer", "--by", "ada")
    assert done.returncode == 0, done.stderr
    sees_after_a_tick(browser, asset(servers, "champion"), "promoted by ada: trained longer")
    sees_after_a_tick(browser, asset(servers, "recommendations"), f"{MODEL}/2")


def test_a_rollback_is_followed(browser: Browser, servers: Servers) -> None:
    done = servers.place.run("rollback", "--domain", "tiny", "--reason", "complaints since Monday", "--by", "ada")
    assert done.returncode == 0, done.stderr
    sees_after_a_tick(browser, asset(servers, "champion"), "rolled back by ada: complaints since Monday")
    browser.sees(f"{MODEL}, version 1")
    browser.keep("champion")
    sees_after_a_tick(browser, asset(servers, "recommendations"), f"{MODEL}/1")
    log = servers.place.run("history", "--domain", "tiny").stdout
    assert re.findall(r"changed by hand|promoted|rolled back", log) == ["changed by hand", "promoted", "rolled back"]
