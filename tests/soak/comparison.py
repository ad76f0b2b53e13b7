"""The home of a chain that was killed again and again, held against one of an undisturbed chain."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from assets.results import Results
from models.files import file_digest

TIMED = ("training.json", "provenance.json", "states.json", "rankings.json")
"""What holds seconds and the ids of runs."""


def differences(expected: Path, found: Path, domain: str) -> list[str]:
    """What was lost, doubled, left or changed, in words; [] where nothing was."""
    checks = (_tables, _checkpoints, _results, _tracking, _dagster, _locks, _left)
    return [difference for check in checks for difference in check(expected, found, domain)]


def _tables(expected: Path, found: Path, domain: str) -> Iterator[str]:
    """Interactions, sequences, splits, texts: row for row."""
    names = {path.relative_to(expected) for path in (expected / "tables").rglob("*.parquet")}
    if names != {path.relative_to(found) for path in (found / "tables").rglob("*.parquet")}:
        yield "there are other tables"
        return
    for name in sorted(names):
        one, other = pl.read_parquet(expected / name), pl.read_parquet(found / name)
        if not one.equals(other):
            yield f"{name}: {other.height:,} rows instead of {one.height:,}, or others"


def _checkpoints(expected: Path, found: Path, domain: str) -> Iterator[str]:
    """The same identities, each with the same bytes, which are those that its provenance names."""
    one, other = (
        {path.name: path for path in (home / "checkpoints" / domain).glob("[!.]*") if ".damaged-" not in path.name}
        for home in (expected, found)
    )
    if one.keys() != other.keys():
        yield f"checkpoints {sorted(other.keys() - one.keys())} too many, {sorted(one.keys() - other.keys())} too few"
    makers = []
    for identity in sorted(one.keys() & other.keys()):
        wanted, there = (json.loads((path[identity] / "provenance.json").read_bytes()) for path in (one, other))
        makers.append(there["mlflow_run"])
        for name, digest in there["files"].items():
            if file_digest(other[identity] / name) != digest:
                yield f"{wanted['name']}: {name} is not what was written"
        changed = [
            name for name, digest in wanted["files"].items() if name not in TIMED and there["files"].get(name) != digest
        ]
        if changed or wanted["files"].keys() != there["files"].keys():
            yield f"{wanted['name']}: other bytes in {changed or 'other files'}"
    if len(set(makers)) != len(makers):
        yield "two checkpoints name one MLflow run"


def _results(expected: Path, found: Path, domain: str) -> Iterator[str]:
    one, other = (
        Results.model_validate_json((home / f"records/main_results/{domain}.json").read_bytes())
        for home in (expected, found)
    )
    if {name: judged.identity for name, judged in one.judged.items()} != {
        name: judged.identity for name, judged in other.judged.items()
    }:
        yield "other recommenders were judged"
    if [record.metrics for record in one.records()] != [record.metrics for record in other.records()]:
        yield "other metrics"
    if one.comparisons != other.comparisons:
        yield "other comparisons"
    for name in one.judged.keys() & other.judged.keys():
        ranks = [pl.read_parquet(results.judged[name].evaluation / "ranks.parquet") for results in (one, other)]
        if not ranks[0].equals(ranks[1]):
            yield f"{name}: other ranks"
    accepted = [json.loads((home / f"records/challenger/{domain}.json").read_bytes()) for home in (expected, found)]
    if len({(one["accepted"], one["model"]["version"]) for one in accepted}) != 1:
        yield "another challenger, or another verdict"


def _tracking(expected: Path, found: Path, domain: str) -> Iterator[str]:
    """No run left running, none twice for one materialisation, no version, model or point of a curve twice."""
    versions = "select name, version from model_versions order by 1, 2"
    if (one := _rows(expected / "mlflow.db", versions)) != (other := _rows(found / "mlflow.db", versions)):
        yield f"{len(other)} registered versions instead of {len(one)}"
    models = "select name, count(*) from logged_models where lifecycle_stage = 'active' group by name order by 1"
    if (one := _rows(expected / "mlflow.db", models)) != (other := _rows(found / "mlflow.db", models)):
        yield f"logged models {sorted(set(other) - set(one))} instead of {sorted(set(one) - set(other))}"
    if left := _rows(found / "mlflow.db", "select name from runs where status = 'RUNNING'"):
        yield f"MLflow runs are left running: {left}"
    twice = """select a.value, b.value, count(*) from tags a join tags b on a.run_uuid = b.run_uuid
        where a.key = 'slmrec.dagster_root_run' and b.key = 'slmrec.asset' group by 1, 2 having count(*) > 1"""
    if doubled := _rows(found / "mlflow.db", twice):
        yield f"two MLflow runs of one materialisation: {doubled}"
    points = "select key, step, count(*) from metrics where key like 'validation/%' or key like 'train/%' "
    if doubled := _rows(found / "mlflow.db", points + "group by run_uuid, key, step having count(*) > 1"):
        yield f"points of a curve twice: {doubled[:5]}"
    curves = """select runs.name, metrics.step, metrics.value from metrics join runs using (run_uuid)
        where metrics.key = 'validation/ndcg_at_10' and runs.rowid in
        (select max(rowid) from runs where status = 'FINISHED' group by name) order by 1, 2"""
    one, other = (_rows(home / "mlflow.db", curves) for home in (expected, found))
    if one != other:
        yield f"other validation curves: {sorted({row[0] for row in set(one) ^ set(other)})}"


def _dagster(expected: Path, found: Path, domain: str) -> Iterator[str]:
    """Only what a run that was killed leaves may be cancelled, and nothing goes on."""
    states = _rows(found / "dagster/history/runs.db", "select status from runs order by id")
    going = [state for (state,) in states if state in ("STARTED", "STARTING", "QUEUED", "NOT_STARTED")]
    if going or states[-1] != ("SUCCESS",):
        yield f"Dagster's runs: {len(going)} still going, the last one {states[-1][0]}"


def _locks(expected: Path, found: Path, domain: str) -> Iterator[str]:
    if (found / f"locks/{domain}.json").exists():
        yield "the domain's lock is still signed"
    for path in found.rglob("*.lock"):
        try:
            FileLock(path, timeout=0).acquire().lock.release()
        except Timeout:
            yield f"{path.name} is held"


def _left(expected: Path, found: Path, domain: str) -> Iterator[str]:
    """What was being written under a name of its own when the process died may lie there; nothing may be damaged."""
    if states := [path.name for path in (found / "training").glob("*/*")]:
        yield f"states of trainings that have ended are left: {states}"
    for path in found.rglob("*.damaged-*"):
        yield f"{path.relative_to(found)} was found damaged"
    for path in (*found.rglob("records/*/*.json"), *found.rglob("facts.json"), *found.rglob("note.json")):
        json.loads(path.read_bytes())


def _rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as store:
        return list(store.execute(query))
