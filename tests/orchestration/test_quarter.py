"""The quarter in small: what is planted in the files, what is asked for, the reviewer, what counts as seen, the table.

Three weeks of it are operated here, with two trainings; the whole of it by `make quarter`.
"""

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from assets.configuration.profiles import load_profile
from assets.delivery import Decision
from assets.registry.champion import champion_of
from assets.registry.gate import Finding
from assets.registry.store import connect
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from orchestration.definitions import build_definitions
from orchestration.quarter import operating
from orchestration.quarter.outcome import Week, chart, missing, page, table
from orchestration.quarter.reviewer import review
from orchestration.quarter.shop import FIRST_TICK, Plan, Shop
from tests.orchestration.workplace import make_workplace

PLAN = Plan(drift=4, bad_file=6, ruined=8, swapped=10)
Lines = Callable[[int], list[str]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"), PLAN, users=120, items=60, seed=5)


@pytest.fixture
def edition(shop: Shop) -> Lines:
    def published(week: int) -> list[str]:
        shop.publish(week)
        return shop.reviews.read_text().splitlines()

    return published


def read(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_the_weeks_are_mondays_and_an_edition_holds_nothing_of_later_days(edition: Lines) -> None:
    seconds = 1514764800  # 2018-01-01, by `date`
    for week in (1, 2, 12):
        assert (PLAN.day(week) - FIRST_TICK).days == 7 * (week - 1)
        assert PLAN.day(week).weekday() == 0
        newest = max(one["unixReviewTime"] for one in read(edition(week)))
        end = seconds + 86400 * (7 * (week - 1) + 1)
        assert end - 3 * 86400 < newest < end


def test_an_edition_begins_with_the_one_before(edition: Lines) -> None:
    first, second = Counter(edition(2)), Counter(edition(3))
    assert first < second


def test_products_are_launched_week_by_week(shop: Shop, edition: Lines) -> None:
    sold = [shop.launched & {one["asin"] for one in read(edition(week))} for week in (1, 2, 5, 9, 12)]
    assert 10 < len(shop.launched) <= 15  # a quarter of those of the 60 that were ever bought
    assert not sold[0]
    assert sold[0] < sold[1] < sold[2] < sold[3] <= sold[4]


def test_from_the_drift_on_only_what_was_least_popular_is_bought(shop: Shop, edition: Lines) -> None:
    before = edition(PLAN.drift - 1)
    bought = Counter(one["asin"] for one in read(before) if one["asin"] not in shop.launched)
    week = Counter(edition(PLAN.drift)) - Counter(before)
    now = {one["asin"] for one in read(list(week))} - shop.launched
    assert 5 < len(now) <= 15
    middle = sorted(bought.values())[len(bought) // 2]
    assert max(bought[asin] for asin in now) < middle


def test_in_the_bad_file_one_line_in_fifty_is_cut_short_and_the_next_is_whole_again(edition: Lines) -> None:
    lines = edition(PLAN.bad_file)
    broken = [place for place, line in enumerate(lines, start=1) if not line.endswith("}")]
    assert broken == list(range(50, len(lines) + 1, 50))
    assert all(line.endswith("}") for line in edition(PLAN.bad_file + 1))


def test_swapped_are_the_ids_of_the_products_and_nothing_else(edition: Lines) -> None:
    swapped, after = (read(edition(week)) for week in (PLAN.swapped, PLAN.swapped + 1))
    end = 1514764800 + 86400 * (7 * (PLAN.swapped - 1) + 1)
    known = [one for one in after if one["unixReviewTime"] < end]
    pairs = {(one["asin"], other["asin"]) for one, other in zip(known, swapped, strict=True)}
    right, wrong = ({pair[side] for pair in pairs} for side in (0, 1))
    assert right == wrong
    assert len(pairs) == len(right) > 40  # one to one
    assert all(one != other for one, other in pairs)
    assert [{**one, "asin": ""} for one in known] == [{**one, "asin": ""} for one in swapped]


def test_each_week_the_schedule_asks_for_a_run_of_the_shop_as_of_its_day(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(operating.domain_of(shop)))
    definitions = build_definitions([tmp_path / "shop.yaml"], [operating.PROFILE], "quarter")
    for week, day in ((1, "2018-01-01"), (12, "2018-03-19")):
        (asked,) = operating.ask(definitions, PLAN.day(week))
        assert asked.partition_key == "shop"
        assert asked.run_config == {"resources": {"domains": {"config": {"as_of": day}}}}


def test_who_ruins_the_student_changes_its_learning_rate_alone() -> None:
    plain, ruined = (load_profile(operating.PROFILE, "shop", given) for given in ({}, operating.RUINED))
    assert plain.delivery.recommender == "narrow_student"
    assert ruined.narrow_student.training.learning_rate == plain.narrow_student.training.learning_rate / 1000
    rates = {"narrow_student": {"training": {"learning_rate": plain.narrow_student.training.learning_rate}}}
    assert load_profile(operating.PROFILE, "shop", {**operating.RUINED, **rates}) == plain


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Decision]]:
    """A store of its own. Makes a version that passed or failed its gate, compared with the present champion."""
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home.prepare_home()
    name = "slmrec-shop-narrow_student"
    client = connect(home.mlflow_uri())
    client.create_registered_model(name)

    def made(*, passed: bool) -> Decision:
        champion = champion_of("shop")
        rival = f"{name}/{champion.version}" if champion else ""
        tags = {"slmrec.gate": "passed" if passed else "failed", "slmrec.gate.rival": rival, "slmrec.gate.reasons": ""}
        version = client.create_model_version(name, source="file:///nowhere", tags=tags).version
        found = [Finding(name="first", passed=True, words="fine"), Finding(name="second", passed=passed, words="poor")]
        model = RegisteredVersion(name=name, version=str(version))
        return Decision(model=model, accepted=passed, findings=found)

    yield made
    connect.cache_clear()


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow 3.17 (November 2026)
def test_the_reviewer_goes_by_the_rules(registry: Callable[..., Decision]) -> None:
    """One story: promoted twice, refused, rolled back before a student that passed, and promoted again."""
    users = np.random.default_rng(0).random(200)
    quality = dict.fromkeys("12345678", users)

    def week(*, passed: bool) -> tuple[str, str]:
        found = review("shop", registry(passed=passed), lambda version: quality[version.version], 0)
        champion = champion_of("shop")
        return found.verdict, champion.version if champion else ""

    assert week(passed=False) == ("refused", "")
    assert week(passed=True) == ("promoted", "2")
    assert week(passed=True) == ("promoted", "3")
    assert review("shop", registry(passed=False), lambda version: quality[version.version], 0).why == "poor"
    quality["3"] = users - 0.01 * (users > 0.99)  # its interval reaches 0
    assert week(passed=False) == ("refused", "3")
    quality["3"] = users / 2
    assert week(passed=True) == ("rolled back", "2")
    assert week(passed=True) == ("promoted", "7")


def quarter(folder: Path) -> list[Week]:
    """As it should go."""
    failure = folder / "failure.md"
    failure.write_text("why")
    champions = dict(enumerate(["1", "2", "3", "4", "5", "5", "7", "7", "9", "10", "9", "12"], start=1))
    weeks = []
    for number, champion in champions.items():
        served = champions.get(number - 1)
        about = {"number": number, "day": PLAN.day(number), "champion": champion, "served": served}
        if number == PLAN.bad_file:
            weeks.append(Week(**about, review="failed", why="too many broken lines", page=failure))
            continue
        refused = number == PLAN.ruined
        weeks.append(
            Week(
                **about,
                interactions=1000 + 100 * number,
                launched=number - 1,
                trained=str(number),
                drift=["item_popularity_psi"] if number == PLAN.drift else [],
                gate="failed" if refused else "passed",
                review="refused" if refused else "rolled back" if number == PLAN.swapped + 1 else "promoted",
                why="so",
                quality=0.25 if served else None,
                first_quality=0.1234,
            )
        )
    return weeks


def test_where_all_is_seen_nothing_is_missing(tmp_path: Path) -> None:
    assert missing(quarter(tmp_path), PLAN) == []


@pytest.mark.parametrize(
    ("week", "change", "words"),
    [
        (12, {"launched": 0}, "New products should come"),
        (4, {"drift": []}, "item_popularity_psi did not fail"),
        (3, {"drift": ["item_popularity_psi"]}, "failed before anything was planted"),
        (6, {"review": "promoted"}, "did not fail with a page"),
        (6, {"page": Path("nowhere.md")}, "did not fail with a page"),
        (6, {"champion": "6"}, "the champion changed from 5 to 6"),
        (7, {"trained": None}, "nothing was trained after"),
        (2, {"review": "failed"}, "Week 2 failed, and nothing was planted there"),
        (8, {"gate": "passed"}, "was ruined, and not refused"),
        (8, {"champion": "8"}, "was ruined, and not refused"),
        (10, {"review": "refused"}, "was to be promoted, and was refused"),
        (11, {"review": "promoted"}, "was not rolled back to version 9"),
        (11, {"champion": "7"}, "was not rolled back to version 9"),
        (5, {"review": "refused"}, "and nothing was wrong with it"),
        (12, {"quality": 0.1}, "no better than the model that was never retrained"),
    ],
)
def test_what_was_planted_and_not_seen_is_said(tmp_path: Path, week: int, change: dict[str, Any], words: str) -> None:
    weeks = quarter(tmp_path)
    weeks[week - 1] = weeks[week - 1].model_copy(update=change)
    assert any(words in sentence for sentence in missing(weeks, PLAN))


def test_the_table_has_a_row_a_week(tmp_path: Path) -> None:
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table(quarter(tmp_path)).splitlines()]
    assert len(rows) == 2 + 12
    assert len({len(row) for row in rows}) == 1
    shown = "4|2018-01-22|1,400|3|4|item_popularity_psi|passed|promoted|4|.2500|.1234"
    assert rows[2 + 3] == shown.split("|")
    assert rows[2 + 5] == ["6", "2018-02-05", *"–––––", "failed", "5", "–", "–"]


def test_the_page_says_what_was_planted_what_was_not_seen_and_the_rules(tmp_path: Path) -> None:
    weeks = quarter(tmp_path)
    told = page(weeks, PLAN, [])
    assert table(weeks) in told
    assert "Week 10: the raw file has another product's id in every line" in told
    assert "All of it was seen." in told
    assert "it is rolled back" in told
    assert "- Week 6: failed; too many broken lines" in told
    assert "- The sky fell." in page(weeks, PLAN, ["The sky fell."])


def test_the_chart_is_a_picture_and_the_same_twice(tmp_path: Path) -> None:
    weeks = quarter(tmp_path)
    drawn = chart(weeks, PLAN)
    assert drawn.startswith(b"\x89PNG")
    assert drawn == chart(weeks, PLAN)


OPERATE = """
import sys
from pathlib import Path
from orchestration.quarter import operating
from orchestration.quarter.shop import Plan
operating.USERS, operating.ITEMS = 200, 40
sys.exit(operating.operate(Path(sys.argv[1]), 0, Plan(weeks=3, drift=2, bad_file=2, swapped=2, ruined=3)))
"""
ELSEWHERE = {
    "DAGSTER_POSTGRES_URL": "postgresql://127.0.0.1:9/dagster",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://nowhere/models",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "SLMREC_SCHEDULE": "@yearly",
}
"""Settings of whoever calls it: nothing of the quarter goes there."""


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Three weeks of a small shop: a usual one, one whose file is broken, one whose student is ruined."""
    place = make_workplace(tmp_path_factory.mktemp("operated"))
    folder = place.folder / "quarter"
    folder.mkdir()
    return folder, place.python("-c", OPERATE, str(folder), **ELSEWHERE)


def test_weeks_are_operated(operated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = operated
    told = (folder / "quarter.md").read_text()
    lines = [line for line in told.splitlines() if line.startswith("| ")][2:]
    usual, broken, ruined = ([cell.strip() for cell in line.strip("| ").split("|")] for line in lines)
    assert (usual[1], usual[3:9]) == ("2018-01-01", ["0", "1", "–", "passed", "promoted", "1"])
    assert broken == ["2", "2018-01-08", *"–––––", "failed", "1", "–", "–"]
    assert (ruined[1], ruined[4], ruined[6:9]) == ("2018-01-15", "2", ["failed", "refused", "1"])
    assert int(ruined[3]) > 0  # products that were launched meanwhile
    assert usual[9] == "–"
    assert float(usual[10]) > 0
    assert ruined[9] == ruined[10] != usual[10]  # the first champion serves still, and the targets are newer
    assert "- Week 2: failed; interactions failed its check bad_share" in told
    assert (folder / "quarter.png").read_bytes().startswith(b"\x89PNG")
    assert lines[-1] in done.stdout


def test_what_is_operated_stays_in_the_quarters_home(operated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = operated
    place = folder / "home"
    (entry,) = [json.loads(line) for line in (place / "promotions/shop.jsonl").read_text().splitlines()]
    assert (entry["action"], entry["by"], entry["gate"]) == ("promoted", "the scripted reviewer", "passed")
    assert (place / "mlflow.db").is_file()
    assert list((place / "dagster").rglob("*.db"))
    (failure,) = (place / "failures").iterdir()
    assert "bad_share" in failure.read_text()
    assert not (folder.parent / "home").exists()
    assert yaml.safe_load((folder / "quarter.yaml").read_text())["seed"] == 0


def test_what_was_planted_and_not_seen_ends_the_quarter_with_1(
    operated: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """In one week two more things were planted, behind a broken file."""
    folder, done = operated
    assert done.returncode == 1, done.stderr[-5000:]
    unseen = [line.removeprefix("slmrec: ") for line in done.stderr.splitlines() if line.startswith("slmrec: ")]
    assert [words[:20] for words in unseen] == ["Week 2: other produc", "Week 2: the student ", "At the end the champ"]
    assert "\n".join(f"- {words}" for words in unseen) in (folder / "quarter.md").read_text()


def test_a_folder_with_a_quarter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with pytest.raises(ValueError, match=r"holds a quarter already: remove it, or give another folder \(OUT=…\)"):
        operating.operate(tmp_path, 0)
