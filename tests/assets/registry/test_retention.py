"""Which registered versions `make prune` removes, on a real store: not the champion, the one before, or one in use."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from assets.registry.champion import champion_of, download
from assets.registry.promotions import promote, rollback
from assets.registry.retention import remove_versions, stale_versions
from assets.registry.store import connect
from assets.registry.versions import set_alias, tags_of
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint, RegisteredVersion
from models.baselines.popularity import PopularitySettings, fit_popularity
from orchestration.prune import prune
from tests.assets.registry.tiny import registered, ring, trained

pytestmark = pytest.mark.usefixtures("tracked_home")

DATASET = ring()
WHO = {"reason": "a test", "by": "ada", "force": True}


def checkpoint(domain: str, seed: int = 0, name: str = "student") -> Checkpoint:
    return trained(name, fit_popularity, PopularitySettings(), DATASET, domain, seed=seed)


def version_of(domain: str, seed: int = 0, name: str = "student", days: float = 40) -> RegisteredVersion:
    """Registered that many days ago."""
    made = registered(checkpoint(domain, seed, name), DATASET)
    path = home.mlflow_uri().removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as store, store:
        store.execute(
            "UPDATE model_versions SET creation_time = creation_time - ? WHERE name = ? AND version = ?",
            [int(days * 86_400_000), made.name, made.version],
        )
    return made


def listed(domain: str, keep: int = 0, days: float = 0) -> list[RegisteredVersion]:
    return [one.version for one in stale_versions(domain, keep, days)]


def files() -> set[Path]:
    return {path for path in home.mlflow_artifacts().rglob("*") if path.is_file()}


def in_use(domain: str, version: RegisteredVersion) -> None:
    """As the record of an asset names it, within another value."""
    path = home.records_directory() / "student" / f"{domain}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"deep": [{{"model": {version.model_dump_json()}}}]}}')


def test_the_champion_the_one_before_the_challenger_and_what_is_in_use_stay(tracked_home: Path) -> None:
    """Of six old versions one is not needed; it goes with its logged model and its files, and nothing else does."""
    domain = "kept"
    old, before, champion, challenger, used, _ = (version_of(domain, seed) for seed in range(6))
    version_of(domain, name="narrow_student")
    for version in (before, champion):
        promote(domain, version.name, version=version.version, **WHO)
    set_alias(challenger, "challenger")
    in_use(domain, used)
    assert listed(domain, keep=1, days=30) == [old]
    assert listed(domain, keep=6) == []
    assert listed(domain, keep=1, days=50) == []

    log, there = home.promotions_log(domain).read_bytes(), files()
    (stale,) = stale_versions(domain, 1, 30)
    place = download(old)
    own = {path for path in there if path.is_relative_to(place)}
    assert stale.bytes == sum(path.stat().st_size for path in own) > 0
    assert stale.days == pytest.approx(40, abs=0.1)
    client: MlflowClient = connect(home.mlflow_uri())
    logged = (tags_of(old.name, old.version) or {})["slmrec.model_id"]
    assert remove_versions(domain, [stale]) == [stale]
    assert files() == there - own
    assert tags_of(old.name, old.version) is None
    with pytest.raises(MlflowException, match="not found"):
        client.get_logged_model(logged)
    assert home.promotions_log(domain).read_bytes() == log

    import mlflow.pyfunc

    assert rollback(domain, reason="a test", by="ada").after == before == champion_of(domain)
    assert mlflow.pyfunc.load_model(str(download(before))).metadata
    assert registered(checkpoint(domain, 0), DATASET).version == "7"


def test_a_champion_changed_by_hand_that_no_look_has_noticed_keeps_the_one_before(tracked_home: Path) -> None:
    before, champion, other = (version_of("unnoticed", seed) for seed in range(3))
    promote("unnoticed", before.name, version=before.version, **WHO)
    set_alias(champion, "champion")
    assert listed("unnoticed") == [other]


def test_the_newest_are_counted_for_each_model_and_the_young_stay(tracked_home: Path) -> None:
    one, two = version_of("counted", 0, days=9), version_of("counted", 1, days=5)
    narrow = version_of("counted", name="narrow_student", days=7)
    assert listed("counted", keep=1) == [one]
    assert listed("counted", keep=0) == [one, narrow, two]
    assert listed("counted", keep=0, days=6) == [one, narrow]


def test_a_version_that_was_promoted_since_it_was_listed_stays(tracked_home: Path) -> None:
    version = version_of("since")
    found = stale_versions("since", 0, 0)
    assert [one.version for one in found] == [version]
    promote("since", version.name, version=version.version, **WHO)
    assert remove_versions("since", found) == []
    assert download(version).is_dir()


def test_a_copy_made_in_mlflow_and_files_outside_the_home_are_left_alone(
    tracked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = version_of("copied")
    client = connect(home.mlflow_uri())
    tags = tags_of(version.name, version.version)
    source = client.get_model_version(version.name, version.version).source
    client.create_registered_model("somebody's")
    client.create_model_version("somebody's", source=source, tags=tags)
    assert listed("copied") == []
    client.delete_registered_model("somebody's")
    assert listed("copied") == [version]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.mlflow_uri())
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path))
    assert listed("copied") == []


def test_a_removal_that_was_killed_is_finished_by_the_next(tracked_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then the half-removed version is not taken for its identity's."""
    version = version_of("killed")
    found = stale_versions("killed", 0, 0)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "delete_logged_model", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_versions("killed", found)
    assert registered(checkpoint("killed"), DATASET).version == "2"
    again = stale_versions("killed", 1, 0)
    assert [(one.version, one.bytes) for one in again] == [(version, 0)]
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "delete_model_version", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_versions("killed", again)
    assert remove_versions("killed", again) == again
    assert listed("killed", keep=1) == []
    assert tags_of(version.name, "1") is None
    assert tags_of(version.name, "2") is not None


def test_prune_lists_and_removes_versions_of_the_domains_of_this_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    home.prepare_home()
    first, second = (version_of("pruned", seed) for seed in range(2))
    promote("pruned", second.name, version=second.version, **WHO)
    assert prune(2, 30, dry=False) == 0
    assert "0 directories, 0 files and 0 registered versions" in capsys.readouterr().out
    assert prune(1, 30, dry=True) == 0
    told = capsys.readouterr().out
    assert first.uri in told
    assert second.uri not in told
    assert "0 directories, 0 files and 1 registered versions" in told
    assert "nothing was" in told
    assert tags_of(first.name, first.version) is not None
    assert prune(1, 30, dry=False) == 0
    assert capsys.readouterr().out.endswith("removed.\n")
    assert tags_of(first.name, first.version) is None
    assert champion_of("pruned") == second
