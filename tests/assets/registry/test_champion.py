"""A champion of an older data version, judged on newer splits by the code that it was packed with."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.registry.champion import judge_champion
from assets.registry.versions import set_alias
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


def name_of(domain: str) -> str:
    return f"slmrec-{domain}-student"


def test_without_a_champion_nothing_is_judged() -> None:
    assert judge_champion(name_of("nobody"), "champion", NEW, domain_of("nobody"), RULES) is None


@pytest.fixture
def champion(tracked_home: Path, tmp_path: Path) -> str:
    """The name of a champion whose own code likes an item the better the fewer have bought it."""
    checkpoint = trained("student", fit_popularity, PopularitySettings(), OLD, "aged")
    with changed_code(tmp_path, "models/baselines/popularity.py", "self.counts.detach()", "-self.counts.detach()"):
        version = registered(checkpoint, OLD)
    set_alias(version, "champion")
    return version.name


def test_it_is_judged_by_its_own_code_and_raw_ids(champion: str) -> None:
    judged = judge_champion(champion, "champion", NEW, domain_of("aged"), RULES)
    assert judged is not None
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


def test_a_second_judgement_takes_the_first_one(champion: str) -> None:
    first = judge_champion(champion, "champion", NEW, domain_of("aged"), RULES)
    written = {path: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    second = judge_champion(champion, "champion", NEW, domain_of("aged"), RULES)
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
