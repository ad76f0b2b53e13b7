"""A champion of an older data version, judged on newer splits by the code that it was packed with."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.registry.champion import champion_of, download, judge_version, load_source
from assets.registry.versions import set_alias
from assets.workspace.checkpoints import RegisteredVersion
from models.baselines.popularity import PopularitySettings, fit_popularity
from tests.assets.registry.tiny import RULES, changed_code, dataset_of, domain_of, random_purchases, registered, trained

pytestmark = pytest.mark.usefixtures("tracked_home")

OLD = random_purchases()
NEW_IDS = ["A000", *reversed(OLD.item_ids[:12]), "C000"]
"""The newer catalogue: three of the fifteen items are gone, two are new, and the others have other numbers."""


def newer_splits():
    rng = np.random.default_rng(7)
    rows = [(rng.choice(len(NEW_IDS), size=6, replace=False) + 1).tolist() for _ in range(30)]
    return dataset_of(rows, NEW_IDS)


NEW = newer_splits()


@pytest.fixture
def champion(tracked_home: Path, tmp_path: Path) -> RegisteredVersion:
    """A champion whose own code likes an item the better the fewer have bought it."""
    checkpoint = trained("student", fit_popularity, PopularitySettings(), OLD, "aged")
    with changed_code(tmp_path, "models/baselines/popularity.py", "self.counts.detach()", "-self.counts.detach()"):
        return registered(checkpoint, OLD)


def test_without_any_model_there_is_no_champion() -> None:
    assert champion_of("nobody") is None


@pytest.mark.parametrize("recommender", ["student", "narrow_student", "mixed_student", "popularity"])
def test_the_champion_is_of_either_deliverable_model_and_of_no_other(tracked_home: Path, recommender: str) -> None:
    domain = f"either-{recommender.replace('_', '-')}"
    version = registered(trained(recommender, fit_popularity, PopularitySettings(), OLD, domain), OLD)
    assert champion_of(domain) is None
    set_alias(version, "champion")
    assert champion_of(domain) == (None if recommender == "popularity" else version)


def test_what_is_downloaded_holds_the_catalogue_and_the_checkpoint(champion: RegisteredVersion) -> None:
    artifacts = download(champion) / "artifacts"
    assert json.loads((artifacts / "catalogue.json").read_text())["items"] == OLD.item_ids
    (checkpoint,) = (path for path in artifacts.iterdir() if path.is_dir())
    assert (checkpoint / "config.json").is_file()


@pytest.mark.parametrize("file", ["model.safetensors", "catalogue.json", "provenance.json"])
def test_a_damaged_version_is_neither_judged_nor_recommended_from(tracked_home: Path, file: str) -> None:
    domain = f"flipped_{file.partition('.')[0]}"
    version = registered(trained("student", fit_popularity, PopularitySettings(), OLD, domain), OLD)
    (path,) = (download(version) / "artifacts").rglob(file)
    data = bytearray(path.read_bytes())
    data[-9 if file != "provenance.json" else 0] ^= 1
    path.write_bytes(data)
    told = rf"Version 1 of {version.name} is damaged: .*{file} is .*make rollback DOMAIN={domain}"
    with pytest.raises(ValueError, match=told):
        load_source(version)
    with pytest.raises(ValueError, match=told):
        judge_version(version, "champion", OLD, domain_of(domain), RULES)


def test_it_is_judged_by_its_own_code_and_raw_ids(champion: RegisteredVersion) -> None:
    judged = judge_version(champion, "champion", NEW, domain_of("aged"), RULES)
    expected = ranks_by_hand()
    rows = pl.read_parquet(judged.directory / "ranks.parquet")
    assert rows["rank"].to_list() == expected
    record = judged.records[0]
    values = [1 / np.log2(rank + 1) if rank <= 10 else 0.0 for rank in expected]
    unknown = np.array([target in ("A000", "C000") for target in raw_targets()])
    values = np.where(unknown, 0.0, values)
    assert record.metrics["ndcg_at_10"].mean == pytest.approx(np.mean(values))
    assert 0 < unknown.mean() < 1
    assert record.unknown.targets == pytest.approx(unknown.mean())
    assert record.recommender == "champion"
    assert (record.data_version, record.provenance.data_version) == (NEW.version, OLD.version)
    assert OLD.version != NEW.version


def test_a_second_judgement_takes_the_first_one(champion: RegisteredVersion) -> None:
    first = judge_version(champion, "champion", NEW, domain_of("aged"), RULES)
    written = {path: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    second = judge_version(champion, "champion", NEW, domain_of("aged"), RULES)
    assert (second.directory, second.records) == (first.directory, first.records)
    assert {path: path.stat().st_mtime_ns for path in second.directory.iterdir()} == written


def raw_targets() -> list[str]:
    return [NEW_IDS[target - 1] for target in NEW.targets("test")]


def ranks_by_hand() -> list[int]:
    """By raw ids: fewer old purchases are better, equal ones count against the target, unknown items come last."""
    bought: dict[str, int] = dict.fromkeys(OLD.item_ids, 0)
    for history, target in OLD.rows("train").select("history", "target").iter_rows():
        for item in (*history, target):
            bought[OLD.item_ids[item - 1]] += 1
    ranks = []
    for history, target in zip(NEW.rows("test")["history"], raw_targets(), strict=True):
        seen = {NEW_IDS[item - 1] for item in history}
        candidates = [raw for raw in NEW_IDS if raw not in seen]
        if target not in bought:
            ranks.append(len(candidates))
            continue
        ahead = [raw for raw in candidates if raw != target and raw in bought and bought[raw] <= bought[target]]
        ranks.append(1 + len(ahead))
    return ranks
