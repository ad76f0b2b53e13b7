"""The gate: which student becomes the challenger, and what the reviewer is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assets.amazon.dataset import Dataset
from assets.delivery import Decision, challenger, decide, read_decision
from assets.registry.champion import judge_champion
from assets.registry.versions import aliased, set_alias
from assets.results import Results, gather
from assets.workspace.checkpoints import Checkpoint
from evaluation.significance import compare, number
from models.baselines.popularity import PopularitySettings, fit_popularity
from models.baselines.successor_graph import SuccessorGraphSettings, fit_successor_graph
from tests.assets.registry.tiny import (
    RULES,
    Wired,
    dataset_of,
    domain_of,
    judged,
    metadata_of,
    registered,
    ring,
    trained,
    value_of,
    wired,
)

pytestmark = pytest.mark.usefixtures("tracked_home")

DATASET = ring()
POPULARITY = (fit_popularity, PopularitySettings())
GRAPH = (fit_successor_graph, SuccessorGraphSettings())
"""Knows what comes next on the ring, as popularity can't."""


def recommender(name: str, fit: tuple[Any, Any], domain: str, seed: int = 0) -> Checkpoint:
    """Trained, judged and registered."""
    made = judged(trained(name, *fit, DATASET, domain, seed=seed), DATASET)
    return made.model_copy(update={"model": registered(made, DATASET)})


def decision_on(
    student: Checkpoint, floor: Checkpoint, results: Results | None = None, champion: Any = None
) -> Decision:
    found = results or gather({"popularity": floor, "student": student}, seed=5)
    return decide(student, found, found.evaluations(), champion, seed=5)


def mean_ndcg(checkpoint: Checkpoint) -> float:
    found = gather({"student": checkpoint}, seed=5).records()[0].metrics["ndcg_at_10"]
    return found.mean


@pytest.fixture
def floor(tracked_home: Path) -> Checkpoint:
    return recommender("popularity", POPULARITY, "gate")


def test_a_student_that_was_judged_itself_and_beats_popularity_is_accepted(floor: Checkpoint) -> None:
    student = recommender("student", GRAPH, "gate")
    decision = decision_on(student, floor)
    assert decision.accepted
    assert decision.model == student.model
    ours, theirs = (number(mean_ndcg(one)) for one in (student, floor))
    assert ours > theirs
    assert decision.reasons == [
        "judged itself",
        f"NDCG@10 over the full catalogue {ours}, popularity {theirs}",
    ]
    assert f"version {student.model.version} is the challenger" in decision.words()


def test_a_student_trained_after_it_was_judged_is_held_back(floor: Checkpoint) -> None:
    before, after = (recommender("student", GRAPH, "gate", seed) for seed in (0, 1))
    results = gather({"popularity": floor, "student": before}, seed=5)
    assert decision_on(before, floor, results).accepted
    decision = decision_on(after, floor, results)
    assert not decision.accepted
    assert decision.reasons[0] == f"main_results judged {before.identity}, and this student is {after.identity}"
    assert "held back" in decision.words()


def test_a_student_that_is_as_good_as_popularity_is_held_back(floor: Checkpoint) -> None:
    student = recommender("student", POPULARITY, "gate")
    assert mean_ndcg(student) == mean_ndcg(floor)
    decision = decision_on(student, floor)
    assert not decision.accepted
    assert decision.reasons[0] == "judged itself"


def test_a_student_that_is_worse_than_the_floor_is_held_back(tracked_home: Path) -> None:
    floor, student = recommender("popularity", GRAPH, "upside_down"), recommender("student", POPULARITY, "upside_down")
    assert mean_ndcg(student) < mean_ndcg(floor)
    assert not decision_on(student, floor).accepted


def test_a_student_that_is_not_registered_is_an_error(floor: Checkpoint) -> None:
    student = recommender("student", GRAPH, "gate").model_copy(update={"model": None})
    with pytest.raises(ValueError, match="student of domain 'gate' is not registered: materialise student again"):
        decision_on(student, floor)


OLDER_IDS = DATASET.item_ids[:9]


def older() -> Dataset:
    """The ring when it had nine of the twelve items."""
    rows = [[(start + step) % 9 + 1 for step in range(6)] for start in range(24)]
    return dataset_of(rows, OLDER_IDS)


@pytest.mark.parametrize("fit", [GRAPH, POPULARITY])
def test_a_champion_is_evidence_and_no_part_of_the_gate(tracked_home: Path, fit: tuple[Any, Any]) -> None:
    """Whether the champion is better than the student or worse: the gate decides the same."""
    domain = f"reigned_{fit[0].__name__}"
    reigning = trained("student", *fit, older(), domain)
    set_alias(registered(reigning, older()), "champion")
    champion = judge_champion(f"slmrec-{domain}-student", "champion", DATASET, domain_of(domain), RULES)
    floor, good, equal = (
        recommender(name, made, domain)
        for name, made in (("popularity", POPULARITY), ("student", GRAPH), ("student", POPULARITY))
    )
    for student, accepted in ((good, True), (equal, False)):
        alone, decision = decision_on(student, floor), decision_on(student, floor, champion=champion)
        assert (alone.accepted, decision.accepted) == (accepted, accepted)
        assert decision.reasons[:-1] == alone.reasons
        told = decision.reasons[-1]
        unknown = np.mean([DATASET.item_ids[target - 1] not in OLDER_IDS for target in DATASET.targets("test")])
        assert 0 < unknown < 1
        assert f"trained on data {older().version}" in told
        assert told.endswith(f"it doesn't know {unknown:.1%} of the targets")
        ours, theirs = (values_of(one) for one in (student.evaluation, champion.directory))
        difference = compare(ours, theirs, seed=5)
        assert f"on the same users {number(theirs.mean())}, difference {number(difference.mean, '+')} " in told
        assert f"({number(difference.low, '+')} to {number(difference.high, '+')})" in told


def values_of(directory: Path) -> np.ndarray:
    """NDCG@10 of each user by the kept ranks; an unknown target is a miss."""
    rows = pl.read_parquet(directory / "ranks.parquet")
    rank = rows["rank"].to_numpy()
    return np.where((rank <= 10) & rows["exact"].to_numpy(), 1 / np.log2(rank + 1), 0.0)


@dataclass(frozen=True)
class Gate:
    """The asset `challenger` on a domain of its own."""

    place: Wired

    def pass_through(
        self,
        student: Checkpoint,
        results: Results | None = None,
        splits: Dataset = DATASET,
        narrow: Checkpoint | None = None,
        delivered: str = "student",
    ) -> tuple[Decision, dict[str, Any]]:
        """By default the other student isn't even registered: what isn't delivered isn't looked at."""
        floor = recommender("popularity", POPULARITY, self.place.domain)
        judged = {"popularity": floor, "student": student, **({"narrow_student": narrow} if narrow else {})}
        narrow = narrow or student.model_copy(update={"name": "narrow_student", "model": None})
        found = results or gather(judged, seed=5)
        given = {"splits": splits, "student": student, "narrow_student": narrow, "main_results": found}
        chosen = {"profile": {"overrides": {"delivery": {"recommender": delivered}}}}
        result = self.place.materialise(challenger, given=given, config=chosen)
        return value_of(result, "challenger"), metadata_of(result, "challenger")

    def student(self, fit: tuple[Any, Any], seed: int = 0) -> Checkpoint:
        return recommender("student", fit, self.place.domain, seed)

    def alias(self, name: str = "challenger") -> Any:
        return aliased(f"slmrec-{self.place.domain}-student", name)


@pytest.fixture
def gate(request: pytest.FixtureRequest, tracked_home: Path, tmp_path: Path) -> Gate:
    return Gate(wired(tmp_path, request.node.name[5:45].strip("_").lower(), DATASET))


def test_held_back_a_first_student_gets_no_alias(gate: Gate) -> None:
    decision, shown = gate.pass_through(gate.student(POPULARITY))
    assert not decision.accepted
    assert gate.alias() is None
    assert shown["decision"] == "held back"
    assert "judged itself" in shown["reasons"]


def test_only_an_accepted_student_moves_the_alias(gate: Gate) -> None:
    good, equal, better = gate.student(GRAPH), gate.student(POPULARITY), gate.student(GRAPH, seed=1)
    assert [one.model.version for one in (good, equal, better)] == ["1", "2", "3"]
    decision, shown = gate.pass_through(good)
    assert decision.accepted
    assert gate.alias() == good.model
    assert shown["decision"] == "challenger"
    assert shown["model"].partition("?")[0].endswith(f"/models/{good.model.name}/versions/1")
    assert read_decision(gate.place.domain) == decision

    held_back, _ = gate.pass_through(equal)
    assert not held_back.accepted
    assert gate.alias() == good.model
    assert read_decision(gate.place.domain) == held_back

    stale = gather({"popularity": recommender("popularity", POPULARITY, gate.place.domain), "student": good}, seed=5)
    assert not gate.pass_through(better, stale)[0].accepted
    assert gate.alias() == good.model

    assert gate.pass_through(better)[0].accepted
    assert gate.alias() == better.model


def test_a_champion_in_the_registry_is_judged_and_keeps_its_alias(gate: Gate) -> None:
    old, new = gate.student(GRAPH), gate.student(GRAPH, seed=1)
    set_alias(old.model, "champion")
    decision, _ = gate.pass_through(new)
    assert decision.accepted
    assert decision.reasons[-1].startswith(f"champion (trained on data {DATASET.version}) on the same users")
    assert decision.reasons[-1].endswith("it doesn't know 0.0% of the targets")
    assert (gate.alias("champion"), gate.alias("challenger")) == (old.model, new.model)


def test_the_profile_says_which_student_is_delivered(gate: Gate) -> None:
    """The narrow one is as good as the other is bad, and the other way round; each is judged as itself."""
    weak, narrow = gate.student(POPULARITY), recommender("narrow_student", GRAPH, gate.place.domain)
    assert not gate.pass_through(weak, narrow=narrow)[0].accepted
    decision, _ = gate.pass_through(weak, narrow=narrow, delivered="narrow_student")
    assert decision.accepted
    assert decision.model == narrow.model
    assert aliased(f"slmrec-{gate.place.domain}-narrow_student", "challenger") == narrow.model
    assert gate.alias() is None
    good, plain = gate.student(GRAPH), recommender("narrow_student", POPULARITY, gate.place.domain)
    assert not gate.pass_through(good, narrow=plain, delivered="narrow_student")[0].accepted
    assert gate.pass_through(good, narrow=plain)[0].model == good.model


def test_results_of_other_splits_are_refused(gate: Gate) -> None:
    """The champion is judged on the splits: its users would be paired with others."""
    student = gate.student(GRAPH)
    set_alias(student.model, "champion")
    with pytest.raises(ValueError, match=f"version {DATASET.version}, but the splits are now {older().version}"):
        gate.pass_through(student, splits=older())
    assert gate.alias() is None
