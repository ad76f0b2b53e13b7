"""The registry: one version an identity, its metrics and its aliases."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from assets.registry.store import connect
from assets.registry.versions import aliased, log_metrics, set_alias
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint, RegisteredVersion
from models.baselines.popularity import PopularitySettings, fit_popularity
from tests.assets.registry.tiny import registered, ring, tracked_run, trained

pytestmark = pytest.mark.usefixtures("tracked_home")

DATASET = ring()


def popularity(domain: str, seed: int = 0) -> Checkpoint:
    return trained("popularity", fit_popularity, PopularitySettings(), DATASET, domain, seed=seed)


def versions_of(name: str) -> list[str]:
    found = connect(home.mlflow_uri()).search_model_versions(f"name = '{name}'")
    return sorted(str(version.version) for version in found)


def test_an_identity_is_registered_once_and_another_is_the_second_version(tracked_home: Path) -> None:
    first, second = popularity("once"), popularity("once", seed=1)
    assert first.identity != second.identity
    name = "slmrec-once-popularity"
    assert registered(first, DATASET) == RegisteredVersion(name=name, version="1")
    assert registered(first, DATASET).version == "1"
    assert registered(second, DATASET).version == "2"
    assert registered(first, DATASET).version == "1"
    assert versions_of(name) == ["1", "2"]


def test_a_version_that_is_not_ready_is_not_taken(tracked_home: Path) -> None:
    checkpoint = popularity("unready")
    first = registered(checkpoint, DATASET)
    with closing(sqlite3.connect(tracked_home / "mlflow.db")) as store, store:
        store.execute("UPDATE model_versions SET status = 'PENDING_REGISTRATION' WHERE name = ?", [first.name])
    assert registered(checkpoint, DATASET).version == "2"
    assert registered(checkpoint, DATASET).version == "2"


@pytest.mark.parametrize("stopped_in", ["log_model_artifacts", "finalize_logged_model", "create_model_version"])
def test_a_killed_registration_leaves_no_second_model(
    tracked_home: Path, monkeypatch: pytest.MonkeyPatch, stopped_in: str
) -> None:
    checkpoint, other = popularity(f"stopped_{stopped_in}"), popularity(f"stopped_{stopped_in}", seed=1)
    registered(other, DATASET)
    client = connect(home.mlflow_uri())
    with monkeypatch.context() as patched:
        patched.setattr(client, stopped_in, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                registered(checkpoint, DATASET)
    made = registered(checkpoint, DATASET)
    assert made.version == "2"
    versions = [client.get_model_version(made.name, number) for number in ("1", "2")]
    assert versions[0].run_id
    models = client.search_logged_models([client.get_run(versions[0].run_id).info.experiment_id])
    assert {model.model_id for model in models} == {version.tags["slmrec.model_id"] for version in versions}
    folders = (tracked_home / "mlflow-artifacts" / checkpoint.domain).rglob("MLmodel")
    assert len([*folders]) == 2


def test_a_version_says_where_it_comes_from(tracked_home: Path) -> None:
    checkpoint = popularity("told")
    made = registered(checkpoint, DATASET, note="The data are synthetic.")
    client = connect(home.mlflow_uri())
    version = client.get_model_version(made.name, made.version)
    assert version.status == "READY"
    assert version.description.startswith("# Tiny for told")
    assert "The data are synthetic." in version.description
    told = {name: version.tags[f"slmrec.{name}"] for name in ("domain", "recommender", "data_version", "identity")}
    assert told == {
        "domain": "told",
        "recommender": "popularity",
        "data_version": DATASET.version,
        "identity": checkpoint.identity,
    }
    outputs = [output.model_id for output in client.get_run(version.run_id).outputs.model_outputs]
    assert outputs == [version.tags["slmrec.model_id"]]


def test_a_damaged_checkpoint_is_not_registered_and_leaves_no_model(tracked_home: Path) -> None:
    checkpoint = popularity("damaged")
    (checkpoint.directory / "config.json").write_text('{"n_items": 12}')
    with pytest.raises(ValueError, match=r"config.json is not the file that was written. Materialise popularity again"):
        registered(checkpoint, DATASET)
    client = connect(home.mlflow_uri())
    assert versions_of("slmrec-damaged-popularity") == []
    experiment = client.get_experiment_by_name("slmrec/damaged").experiment_id
    assert client.search_logged_models([experiment]) == []


def test_metrics_are_on_the_run_the_model_and_the_version(tracked_home: Path) -> None:
    made, run = registered(popularity("measured"), DATASET), tracked_run("measured")
    log_metrics(made, run.run_id, {"full/ndcg_at_10": 0.5, "sampled_3/hr_at_1": 0.25}, DATASET)
    client = connect(home.mlflow_uri())
    assert client.get_run(run.run_id).data.metrics == {"full/ndcg_at_10": 0.5, "sampled_3/hr_at_1": 0.25}
    version = client.get_model_version(made.name, made.version)
    assert (version.tags["full/ndcg_at_10"], version.tags["sampled_3/hr_at_1"]) == ("0.5000", "0.2500")
    metrics = client.get_logged_model(version.tags["slmrec.model_id"]).metrics
    assert {(one.key, one.value, one.run_id, one.dataset_digest) for one in metrics} == {
        ("full/ndcg_at_10", 0.5, run.run_id, DATASET.version),
        ("sampled_3/hr_at_1", 0.25, run.run_id, DATASET.version),
    }


def test_an_alias_names_one_version_at_a_time(tracked_home: Path) -> None:
    name = "slmrec-named-popularity"
    assert aliased(name, "challenger") is None
    first, second = (registered(popularity("named", seed), DATASET) for seed in (0, 1))
    assert aliased(name, "challenger") is None
    for version in (first, second, first):
        set_alias(version, "challenger")
        assert aliased(name, "challenger") == version
    assert aliased(name, "champion") is None
