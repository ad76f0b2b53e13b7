"""The sample domain from raw data to its champion, by a profile of seconds, with Dagster and MLflow on PostgreSQL and
models in an S3-compatible store.

By environment settings alone, and with the results of a home on SQLite. Run by `make integration`, not by `make test`:
it takes two chains and two times the studies, and needs PostgreSQL.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy

from tests.integration.servers import KEY, PASSWORD, Postgres, Servers, bucket, servers
from tests.orchestration.workplace import PROFILE, Workplace, make_workplace

DOMAIN = "sample"
STUDIES = """
studies:
  seeds: [0]
  depths: [2, 1]
  training: {learning_rate: 0.005, epochs: 1, batch_size: 64}
"""
RECOMMENDERS = ("sasrec", "bsarec", "teacher", "student", "narrow_student", "popularity", "text_graph")
SERVED = """
import json, sys
import mlflow, pandas as pd
from assets.registry.champion import champion_of
champion = champion_of(sys.argv[2])
model = mlflow.pyfunc.load_model(f"models:/{champion.name}@champion")
answer = model.predict(pd.DataFrame({"history": json.loads(sys.argv[1])}), params={"k": 3})
print(json.dumps({"version": champion.version, "answer": answer.to_dict("list")}))
"""


@dataclass(frozen=True)
class Grown:
    place: Workplace
    servers: Servers
    said: dict[str, str]
    """What each command printed; `away`: the first chain, which lost its database."""


def interrupted(place: Workplace, postgres: Postgres) -> str:
    """The chain, while PostgreSQL goes away twice: for a moment, and until the run has ended. What the run said."""
    running = place.chain_in_progress(DOMAIN, SLMREC_MLFLOW_PATIENCE="20")
    said, after = [], ["bsarec", "sasrec"]
    with running:
        assert running.stderr
        for line in running.stderr:
            said.append(line)
            if after and "training ended" in line and f" {after[0]} " in line:
                postgres.stop()
                if after.pop(0) == "bsarec":
                    postgres.start()
    (place.folder / "away.txt").write_text("".join(said))
    assert running.returncode == 2, "".join(said[-50:])
    postgres.start()
    return "".join(said)


def taken_through(place: Workplace, *, studies: bool) -> dict[str, str]:
    """The chain, a promotion and, if asked for, the studies: what each printed."""
    profile = place.folder / "tiny.yaml"
    profile.write_text(PROFILE + STUDIES)
    given = ("--domain", DOMAIN, "--profile", str(profile))
    review = ("--domain", DOMAIN, "--reason", "the only one", "--by", "a reviewer")
    commands = [("run", *given), ("promote", *review), ("history", "--domain", DOMAIN)]
    said = {}
    for command in [*commands, *([("studies", *given)] if studies else [])]:
        done = place.run(*command)
        assert done.returncode == 0, done.stderr[-5000:]
        said[command[0]] = done.stdout + done.stderr
    return said


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A home as it is without any setting."""
    place = make_workplace(tmp_path_factory.mktemp("plain"))
    taken_through(place, studies=False)
    return place


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    with servers() as running:
        bare = make_workplace(tmp_path_factory.mktemp("grown"))
        place = Workplace(bare.folder, {**bare.environment, **running.environment})
        away = interrupted(place, running.postgres)
        yield Grown(place, running, {"away": away, **taken_through(place, studies=True)})


def rows(address: str, query: str) -> list[tuple[Any, ...]]:
    engine = sqlalchemy.create_engine(address)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(sqlalchemy.text(query))]
    engine.dispose()
    return found


def test_the_runs_are_in_postgres_and_in_no_file(grown: Grown) -> None:
    statuses = rows(grown.servers.database("dagster"), "select pipeline_name, status from runs order by id")
    assert statuses == [("chain", "CANCELED"), ("chain", "SUCCESS"), ("studies", "SUCCESS")]
    mlflow = dict(rows(grown.servers.database("mlflow"), "select status, count(*) from runs group by status"))
    assert mlflow.keys() == {"FINISHED", "KILLED"}
    assert mlflow["KILLED"] == 1
    left = [path.relative_to(grown.place.home) for path in grown.place.home.rglob("*.db")]
    assert left == []
    assert not [path for path in (grown.place.home / "mlflow-artifacts").rglob("*") if path.is_file()]


def test_the_artifacts_are_in_the_bucket(grown: Grown) -> None:
    keys = [found.key for found in bucket(grown.servers.endpoint).objects.all()]
    (source,) = rows(
        grown.servers.database("mlflow"),
        "select storage_location, source from model_versions where name like '%-student'",
    )
    for name in ("MLmodel", "artifacts/catalogue.json", "model_card.md"):
        assert [key for key in keys if key.endswith(name)], name
    assert source[1].startswith(f"s3://slmrec-models/models/{DOMAIN}/")
    for name in ("report.html", "studies.html", "training.json"):
        assert [key for key in keys if key.endswith(f"/artifacts/{name}")], name


@pytest.mark.parametrize("recommender", RECOMMENDERS)
def test_it_comes_to_the_same_checkpoints_and_metrics(grown: Grown, plain: Workplace, recommender: str) -> None:
    ours, theirs = (place.results(DOMAIN) for place in (grown.place, plain))
    assert ours.judged[recommender].identity == theirs.judged[recommender].identity
    metrics = [
        {record.key: record.metrics for record in results.records() if record.recommender == recommender}
        for results in (ours, theirs)
    ]
    assert metrics[0].keys() == {"full", "sampled_10"}
    assert metrics[0] == metrics[1]


def test_the_studies_are_in_the_report(grown: Grown) -> None:
    studies = {path.parent.name for path in (grown.place.home / "studies" / DOMAIN).glob("*/study.md")}
    assert studies == {"ablation_study", "depth_study", "online_distillation_study", "theory_check"}
    report = (grown.place.home / f"reports/{DOMAIN}/studies.html").read_text()
    assert [name for name in studies if f'id="{name}"' not in report] == []


def test_the_champion_is_read_back_from_the_bucket_and_answers_as_the_plain_one(grown: Grown, plain: Workplace) -> None:
    asins = pl.read_parquet(plain.home / f"tables/interactions/{DOMAIN}/items.parquet")["asin"].to_list()
    asked = json.dumps([asins[:3], [asins[7], "unknown"]])
    answers = []
    for place in (grown.place, plain):
        done = place.python("-c", SERVED, asked, DOMAIN, **tracking(place))
        assert done.returncode == 0, done.stderr[-3000:]
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    assert answers[0] == answers[1]
    assert "a reviewer" in grown.said["history"]


def tracking(place: Workplace) -> dict[str, str]:
    """What MLflow's own calls need to find the store."""
    return {"MLFLOW_TRACKING_URI": place.environment.get("MLFLOW_TRACKING_URI", f"sqlite:///{place.home}/mlflow.db")}


def test_no_secret_is_written_anywhere(grown: Grown) -> None:
    secrets = {PASSWORD, PASSWORD.replace("%2F", "/"), KEY}
    texts = dict(grown.said)
    texts |= {
        str(path): path.read_text(errors="replace")
        for path in grown.place.home.rglob("*")
        if path.is_file() and path.suffix not in (".safetensors", ".parquet", ".gz", ".npy")
    }
    for name in ("dagster", "mlflow"):
        address = grown.servers.database(name)
        tables = rows(address, "select table_name from information_schema.tables where table_schema = 'public'")
        texts |= {f"{name}.{table}": str(rows(address, f'select * from "{table}"')) for (table,) in tables}
    for stored in bucket(grown.servers.endpoint).objects.all():
        if not stored.key.endswith(".safetensors"):
            texts[stored.key] = stored.get()["Body"].read().decode(errors="replace")
    assert [where for where, text in texts.items() if any(secret in text for secret in secrets)] == []


def test_a_database_that_is_away_is_one_plain_message_at_once(grown: Grown) -> None:
    away = grown.servers.database("mlflow").replace(str(grown.servers.postgres.port), "1")
    done = grown.place.chain(DOMAIN, MLFLOW_TRACKING_URI=away)
    assert done.returncode == 1
    assert "MLflow's database at postgresql+psycopg2://127.0.0.1:1/mlflow can't be reached" in done.stderr
    done = grown.place.chain(DOMAIN, DAGSTER_POSTGRES_URL=away)
    assert done.returncode == 2
    assert done.stderr.count("Traceback") == 0
    assert "What Dagster keeps of runs, as" in done.stderr
    assert "connection to server" in done.stderr
    assert PASSWORD not in done.stderr


def test_a_database_that_goes_away_in_the_middle_ends_the_run_in_a_line_and_the_next_goes_on(grown: Grown) -> None:
    """One that was away for a moment is waited for. The other tests find the same results as of an undisturbed home."""
    *_, last = grown.said["away"].splitlines()
    assert last.startswith("slmrec: What Dagster keeps of runs, as ")
    assert "can't be written: connection to server at" in last
    assert last.endswith("starting the database; the same command then goes on from where it was.")
    assert "Traceback" not in grown.said["away"]
    trained = [re.findall(r" (\w+) +training ended", grown.said[which]) for which in ("away", "run")]
    assert trained[0] == ["bsarec", "language_backbone", "sasrec"]
    assert re.search(r" bsarec +done in", grown.said["away"]), "that of a moment was waited for"
    assert not set(trained[0]) & set(trained[1])
    assert "teacher" in trained[1]


def test_settings_that_say_nothing_of_postgres_are_not_passed_over(grown: Grown, plain: Workplace) -> None:
    done = plain.chain(DOMAIN, DAGSTER_POSTGRES_URL=grown.servers.database("dagster"))
    assert done.returncode == 2
    assert "doesn't name it" in done.stderr
    assert "postgres_url: {env: DAGSTER_POSTGRES_URL}" in done.stderr
    assert not Path(plain.home / "dagster/dagster.yaml").read_text().count("postgres")
