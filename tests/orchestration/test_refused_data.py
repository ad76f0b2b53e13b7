"""Other data come in: where they are refused the good tables stay, and where they are not the change is seen.

All runs are made one after another in one process of their own, for Great Expectations takes seconds to import.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assets.amazon.synthetic import write_synthetic
from tests.orchestration.workplace import DOMAINS, Workplace, make_workplace

RUNS = """
import hashlib, json, os, sys
from pathlib import Path
from dagster import AssetCheckKey, AssetKey, DagsterEventType
from assets.workspace import home
home.disable_telemetry()
made = home.prepare_home()
from orchestration.run import dagster_instance

from assets import data
from assets.amazon.validation.suites import unchecked
from orchestration.definitions import definitions

def refuse(stage, checks):
    return lambda *_: unchecked(stage, checks, ["planted"])

def digests():
    files = [path for folder in ("tables", "records") for path in (made / folder).rglob("*") if path.is_file()]
    found = {}
    for path in sorted(path for path in files if domain in (path.stem, path.parent.name)):
        asset = path.relative_to(made).parts[1]
        found[asset] = found.get(asset, "") + hashlib.sha256(path.read_bytes()).hexdigest()
    return found

def statuses(instance):
    keys = [AssetCheckKey(AssetKey("interactions"), "bad_share")]
    found = instance.event_log_storage.get_asset_check_partition_info(keys)
    return {one.partition_key: one.latest_execution_status.value for one in found}

chain = definitions.resolve_job_def("chain")
given = {name: getattr(data, name) for name in dir(data) if name.startswith("check_")}
with dagster_instance() as instance:
    for run in json.loads(sys.argv[1]):
        domain = run["domain"]
        about = {"title": "Tiny", "source": run["source"]}
        Path(os.environ["SLMREC_DOMAINS"]).write_text(json.dumps({"tiny": about, "other": about}))
        for name, check in given.items():
            setattr(data, name, check)
        for stage in run["refuse"]:
            checks = getattr(data, stage.upper().removesuffix("S") + "_CHECKS")
            setattr(data, f"check_{stage}", refuse(stage, checks))
        result = chain.execute_in_process(
            instance=instance,
            partition_key=domain,
            asset_selection=[AssetKey(name) for name in run["assets"]],
            raise_on_error=False,
        )
        checks = [event.asset_check_evaluation_data for event in result.all_events
                  if event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION]
        print(json.dumps({
            "success": result.success,
            "stored": [event.asset_key.to_user_string() for event in result.all_events
                       if event.event_type is DagsterEventType.ASSET_MATERIALIZATION],
            "failed": {check.check_name: check.metadata["observed"].value for check in checks if not check.passed},
            "partitions": sorted({check.partition for check in checks}),
            "said": [event.step_failure_data.error.message for event in result.all_events if event.is_step_failure],
            "newest_day": [check.metadata["observed"].value for check in checks if check.check_name == "newest_day"],
            "digests": digests(),
            "statuses": statuses(instance),
        }))
"""
RAW = ("raw_reviews", "raw_metadata")
STAGE = (*RAW, "interactions", "item_texts", "sequences", "splits", "dataset_statistics")
EVERY = 50


@dataclass(frozen=True)
class Run:
    """What became of a run; after it the digests of what was stored, and how check `bad_share` stands, by domain."""

    success: bool
    stored: list[str]
    failed: dict[str, str]
    partitions: list[str]
    said: list[str]
    newest_day: list[str]
    digests: dict[str, str]
    statuses: dict[str, str]


def unpacked(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def damaged(path: Path) -> Path:
    """A copy in which every fiftieth line is cut short."""
    lines = ["{cut" if place % EVERY == 0 else line for place, line in enumerate(unpacked(path), start=1)]
    copy = path.with_name(f"damaged_{path.name}")
    copy.write_bytes(gzip.compress("\n".join(lines).encode()))
    return copy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("refused"))


@pytest.fixture(scope="module")
def runs(place: Workplace) -> Mapping[str, Run]:
    few, many = place.folder / "few", place.folder / "many"
    for folder, users in ((few, 150), (many, 300)):
        write_synthetic(folder / "reviews.json.gz", folder / "metadata.json.gz", users=users, items=100, seed=3)
    with (place.folder / "domains.yaml").open("a") as file:
        file.write(DOMAINS.replace("tiny:", "other:"))

    def run(
        reviews: Path, metadata: Path, *assets: str, refuse: tuple[str, ...] = (), domain: str = "tiny"
    ) -> dict[str, Any]:
        source = {"kind": "local", "reviews": str(reviews), "metadata": str(metadata)}
        return {"source": source, "assets": assets, "refuse": refuse, "domain": domain}

    reviews, metadata = many / "reviews.json.gz", many / "metadata.json.gz"
    asked = {
        "first": run(few / "reviews.json.gz", few / "metadata.json.gz", *STAGE),
        "second": run(reviews, metadata, *STAGE),
        "bad reviews": run(damaged(few / "reviews.json.gz"), metadata, *RAW, "interactions", "sequences"),
        "other domain": run(reviews, metadata, "raw_reviews", "interactions", domain="other"),
        "afterwards": run(reviews, metadata, "sequences"),
        "bad metadata": run(reviews, damaged(metadata), "raw_metadata", "item_texts"),
        "bad raw": run(reviews, metadata, "raw_reviews", "interactions", refuse=("raw",)),
        "bad interactions": run(reviews, metadata, "raw_reviews", "interactions", refuse=("interactions",)),
        "bad sequences": run(reviews, metadata, "sequences", refuse=("sequences",)),
        "bad splits": run(reviews, metadata, "splits", refuse=("splits",)),
    }
    done = place.python("-c", RUNS, json.dumps(list(asked.values())))
    assert done.returncode == 0, done.stderr[-5000:]
    told = [Run(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith('{"success"')]
    return dict(zip(asked, told, strict=True))


def test_refused_reviews_leave_the_good_tables_and_show_their_bad_lines(
    place: Workplace, runs: Mapping[str, Run]
) -> None:
    good, refused = runs["second"], runs["bad reviews"]
    assert (refused.success, set(refused.failed)) == (False, {"bad_share"})
    assert "0.02" in refused.failed["bad_share"]
    assert sorted(refused.stored) == ["raw_metadata", "raw_reviews"]
    assert "interactions failed bad_share: the step stops here" in refused.said[0]
    assert {name for name in good.digests if refused.digests[name] != good.digests[name]} == {"raw_reviews"}


def test_what_comes_after_is_made_from_the_good_tables(runs: Mapping[str, Run]) -> None:
    again = runs["afterwards"]
    assert (again.success, again.stored) == (True, ["sequences"])
    assert again.digests["sequences"] == runs["second"].digests["sequences"] != runs["first"].digests["sequences"]


def test_a_failed_check_is_that_of_its_domain(runs: Mapping[str, Run]) -> None:
    """The other domain's passes afterwards, and the failure still stands."""
    assert runs["second"].statuses == {"tiny": "SUCCEEDED"}
    assert runs["bad reviews"].statuses == {"tiny": "FAILED"}
    assert runs["other domain"].success
    assert runs["other domain"].statuses == {"tiny": "FAILED", "other": "SUCCEEDED"}
    for name, run in runs.items():
        assert run.partitions == ["other" if name == "other domain" else "tiny"]


def test_the_quarantine_is_that_of_the_refused_file(place: Workplace, runs: Mapping[str, Run]) -> None:
    """Seen in the metadata's, which no later run replaces."""
    refused = runs["bad metadata"]
    assert (refused.success, set(refused.failed)) == (False, {"bad_share"})
    assert refused.stored == ["raw_metadata"]
    assert refused.digests["item_texts"] == runs["second"].digests["item_texts"]
    lines = len(unpacked(place.folder / "many/metadata.json.gz"))
    quarantine = pl.read_parquet(place.home / "data_docs/tiny/item_texts_quarantine.parquet")
    assert quarantine["line_number"].to_list() == list(range(EVERY, lines + 1, EVERY))
    assert set(quarantine["file"]) == {"damaged_metadata.json.gz"}


@pytest.mark.parametrize(
    ("stage", "schema", "stored"),
    [
        ("raw", "quarantine_schema", {"raw_reviews"}),
        ("interactions", "schema", {"raw_reviews"}),
        ("sequences", "schema", set()),
        ("splits", "schema", set()),
    ],
)
def test_nothing_that_a_check_refuses_is_stored(
    runs: Mapping[str, Run], stage: str, schema: str, stored: set[str]
) -> None:
    refused, before = runs[f"bad {stage}"], runs["afterwards"]
    assert not refused.success
    assert "schema_faults = 1" in refused.failed[schema]
    assert set(refused.stored) == stored
    for asset in ("interactions", "sequences", "splits"):
        assert refused.digests[asset] == before.digests[asset]


def test_changes_are_judged_against_the_last_materialisation(runs: Mapping[str, Run]) -> None:
    first, second = runs["first"], runs["second"]
    assert (first.success, first.failed) == (True, {})
    assert first.newest_day == ["days_gone_back = 0; first materialisation: nothing to compare with"]
    assert second.success
    assert "sizes" in second.failed
    assert "users from 1" in second.failed["sizes"]
    assert sorted(second.stored) == sorted(STAGE)
