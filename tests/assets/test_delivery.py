"""The gate: which student becomes the challenger, what the reviewer is told, and who becomes the champion by itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dagster import AssetCheckSeverity

from assets.amazon.dataset import Dataset
from assets.amazon.validation.docs import STAGES, add_to_data_docs
from assets.amazon.validation.rules import Check, CheckResult, Validation
from assets.configuration.domains import DriftLimits
from assets.data import DatasetStatistics
from assets.delivery import Decision, challenger, read_decision
from assets.drift import Drift
from assets.registry import promotions
from assets.registry.champion import champion_of
from assets.registry.gate import CHECKS, answers_in_time, find_rivals
from assets.registry.store import connect, model_name
from assets.registry.versions import aliased, set_alias, tags_of
from assets.results import Report, Results, gather
from assets.workspace import home
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
MIDDLING = (fit_successor_graph, SuccessorGraphSettings(backward=1.0, recency=1.0))
"""Takes what came before for as likely: better than popularity, worse than the graph."""

OLDER_IDS = DATASET.item_ids[:9]


def older() -> Dataset:
    """The ring when it had nine of the twelve items."""
    rows = [[(start + step) % 9 + 1 for step in range(6)] for start in range(24)]
    return dataset_of(rows, OLDER_IDS)


def mixed() -> Dataset:
    """Long histories go round a ring of thirty; the short ones are drawn, half of them end at the popular item 6."""
    rng = np.random.default_rng(1)
    around = [[(start + step) % 30 + 1 for step in range(8)] for start in range(60)]
    drawn = [(rng.choice(24, size=4, replace=False) + 7).tolist() for _ in range(80)]
    short = [[6, *items] if user % 2 else [*items, 6] for user, items in enumerate(drawn)]
    return dataset_of([*around, *short], [f"B{item:03}" for item in range(30)])


def recommender(name: str, fit: tuple[Any, Any], domain: str, seed: int = 0, dataset: Dataset = DATASET) -> Checkpoint:
    """Trained, judged and registered."""
    made = judged(trained(name, *fit, dataset, domain, seed=seed), dataset)
    return made.model_copy(update={"model": registered(made, dataset)})


def note_checks(domain: str, *found: CheckResult, of: str = "item_texts") -> None:
    """What a stage's checks came to, in the domain's Data Docs; by default one green check."""
    results = found or (CheckResult("sound", passed=True, critical=True, observed="all is well"),)
    checks = tuple(Check(one.name, "by hand", critical=one.critical) for one in results)
    validation = Validation(of, checks, results, ())
    add_to_data_docs(home.data_docs_directory(domain), validation, domain=domain, synthetic=True)


def values_of(directory: Path) -> np.ndarray:
    """NDCG@10 of each user by the kept ranks; an unknown target is a miss."""
    rows = pl.read_parquet(directory / "ranks.parquet")
    rank = rows["rank"].to_numpy()
    return np.where((rank <= 10) & rows["exact"].to_numpy(), 1 / np.log2(rank + 1), 0.0)


@dataclass(frozen=True)
class Verdict:
    """What the asset came to: the decision, what Dagster shows of it, and its checks by name."""

    decision: Decision
    shown: dict[str, Any]
    checks: dict[str, Any]

    @property
    def failed(self) -> set[str]:
        return {name for name, check in self.checks.items() if not check.passed}

    def words(self, name: str) -> str:
        return next(one.words for one in self.decision.findings if one.name == name)


@dataclass(frozen=True)
class Gate:
    """The asset `challenger` on a domain of its own."""

    place: Wired

    def student(self, fit: tuple[Any, Any], seed: int = 0) -> Checkpoint:
        return recommender("student", fit, self.place.domain, seed, self.place.dataset)

    def floor(self) -> Checkpoint:
        return recommender("popularity", POPULARITY, self.place.domain, dataset=self.place.dataset)

    def pass_through(
        self,
        student: Checkpoint,
        results: Results | None = None,
        splits: Dataset | None = None,
        described: str | None = None,
        narrow: Checkpoint | None = None,
        mixed: Checkpoint | None = None,
        moved: Drift | None = None,
        delivered: str = "student",
        **settings: Any,
    ) -> Verdict:
        """By default the other students aren't even registered: what isn't delivered isn't looked at."""
        others = {"narrow_student": narrow, "mixed_student": mixed}
        registered = {name: other for name, other in others.items() if other}
        judged = {"popularity": self.floor(), "student": student, **registered}
        found = results or gather(judged, seed=5)
        statistics = DatasetStatistics(
            data_version=described or self.place.dataset.version,
            synthetic=True,
            raw=[],
            lines=3,
            quarantined={},
            steps=[],
            values={"first_day": "2014-01-02", "last_day": "2015-03-04"},
        )
        report = Report(path=home.home() / "report.html", url="http://mlflow/report")
        given = {
            "splits": splits or self.place.dataset,
            "student": student,
            "narrow_student": narrow or student.model_copy(update={"name": "narrow_student", "model": None}),
            "mixed_student": mixed or student.model_copy(update={"name": "mixed_student", "model": None}),
            "main_results": found,
            "dataset_statistics": statistics,
            "drift": moved or drifted(self.place.dataset.version),
            "evaluation_report": report,
        }
        config = {"profile": {"overrides": {"gate": settings, "delivery": {"recommender": delivered}}}}
        result = self.place.materialise(challenger, given=given, config=config)
        assert result.success
        evaluated = {one.check_name: one for one in result.get_asset_check_evaluations()}
        return Verdict(value_of(result, "challenger"), metadata_of(result, "challenger"), evaluated)

    @property
    def model(self) -> str:
        return model_name(self.place.domain, "student")

    def alias(self, name: str = "challenger") -> Any:
        return aliased(self.model, name)

    def tags(self, number: str) -> dict[str, str]:
        return tags_of(self.model, number) or {}

    def page(self, number: str) -> str:
        return connect(home.mlflow_uri()).get_model_version(self.model, number).description


def drifted(data_version: str, **values: float) -> Drift:
    """These measures of drift."""
    return Drift(data_version=data_version, limits=DriftLimits(), words="data 2 against data 1", values=values)


def gate_on(dataset: Dataset, request: pytest.FixtureRequest, folder: Path) -> Gate:
    """On a domain of the test's name, whose data were checked and are sound."""
    place = wired(folder, request.node.name[5:45].strip("_").lower(), dataset)
    for stage in STAGES:
        note_checks(place.domain, of=stage)
    return Gate(place)


@pytest.fixture
def gate(request: pytest.FixtureRequest, tracked_home: Path, tmp_path: Path) -> Gate:
    return gate_on(DATASET, request, tmp_path)


def test_a_first_student_that_was_judged_itself_and_beats_popularity_is_accepted(gate: Gate) -> None:
    student, floor = gate.student(GRAPH), gate.floor()
    verdict = gate.pass_through(student)
    assert verdict.decision.accepted
    assert verdict.decision.model == student.model == gate.alias()
    assert set(verdict.checks) == set(CHECKS)
    assert verdict.failed == set()
    ours, theirs = (number(values_of(one.evaluation).mean()) for one in (student, floor))
    assert ours > theirs
    assert verdict.words("judged_itself") == "the results are of this very student"
    assert verdict.words("better_than_popularity") == f"NDCG@10 over the full catalogue {ours}, popularity {theirs}"
    assert verdict.words("no_worse_than_champion") == "the domain has no other champion to compare with"
    assert verdict.words("no_worse_than_challenger") == "no other version waits as the challenger"
    assert "there is no champion and no other challenger to compare with" in gate.page("1")
    assert verdict.words("no_slice_collapsed") == "there is no other version to compare slices with"
    assert f"version {student.model.version} is the challenger" in verdict.decision.words()
    assert read_decision(gate.place.domain) == verdict.decision
    assert verdict.shown["decision"] == "challenger"
    assert verdict.shown["model"].partition("?")[0].endswith(f"/models/{gate.model}/versions/1")
    assert gate.tags("1")["slmrec.gate"] == "passed"
    assert gate.tags("1")["slmrec.gate.rival"] == ""


def test_a_student_trained_after_it_was_judged_is_held_back(gate: Gate) -> None:
    before, after = (gate.student(GRAPH, seed) for seed in (0, 1))
    stale = gather({"popularity": gate.floor(), "student": before}, seed=5)
    verdict = gate.pass_through(after, stale)
    assert verdict.failed == {"judged_itself"}
    assert (
        verdict.words("judged_itself") == f"main_results judged {before.identity}, and this student is {after.identity}"
    )
    assert not verdict.decision.accepted
    assert gate.alias() is None


def test_a_student_that_is_as_good_as_popularity_is_held_back(gate: Gate) -> None:
    student = gate.student(POPULARITY)
    assert values_of(student.evaluation).mean() == values_of(gate.floor().evaluation).mean()
    verdict = gate.pass_through(student)
    assert verdict.failed == {"better_than_popularity"}
    assert (gate.alias(), verdict.shown["decision"]) == (None, "held back")
    assert "held back" in verdict.decision.words()
    assert gate.tags("1")["slmrec.gate"] == "failed"
    assert gate.tags("1")["slmrec.gate.reasons"].startswith(verdict.words("better_than_popularity"))
    check = verdict.checks["better_than_popularity"]
    assert check.severity is AssetCheckSeverity.WARN
    assert check.metadata["observed"].value == verdict.words("better_than_popularity")
    assert check.partition == gate.place.domain


def test_a_student_worse_than_the_champion_is_held_back(gate: Gate) -> None:
    """Beside a popularity that knows little: the student is better than that, and worse than the champion."""
    good, weak = gate.student(GRAPH), gate.student(POPULARITY)
    set_alias(good.model, "champion")
    verdict = gate.pass_through(weak)
    assert "no_worse_than_champion" in verdict.failed
    assert gate.alias() is None
    ours, theirs = (values_of(one.evaluation) for one in (weak, good))
    difference = compare(ours, theirs, seed=5)
    assert difference.low < -0.001
    told = verdict.words("no_worse_than_champion")
    trained_on = f"(trained on data {DATASET.version}, profile tiny)"
    assert told.startswith(f"champion, version 1 of {gate.model} {trained_on} on the same users")
    assert f"{number(theirs.mean())}, difference {number(difference.mean, '+')} " in told
    assert f"({number(difference.low, '+')} to {number(difference.high, '+')}), which begins below −.0010" in told
    assert gate.tags("2")["slmrec.gate.rival"] == f"{gate.model}/1"


def test_the_margin_is_the_profiles(gate: Gate) -> None:
    """How far below the champion the interval may begin: a hair more, and a hair less."""
    good, weak = gate.student(GRAPH), gate.student(POPULARITY)
    set_alias(good.model, "champion")
    low = compare(values_of(weak.evaluation), values_of(good.evaluation), seed=5).low
    inside = gate.pass_through(weak, margin=-low + 1e-6)
    assert "no_worse_than_champion" not in inside.failed
    assert "does not begin below" in inside.words("no_worse_than_champion")
    outside = gate.pass_through(weak, margin=-low - 1e-6)
    assert "no_worse_than_champion" in outside.failed


def test_without_a_champion_a_much_worse_student_does_not_take_the_challengers_alias(gate: Gate) -> None:
    good, weak = gate.student(GRAPH), gate.student(POPULARITY)
    assert gate.pass_through(good).decision.accepted
    verdict = gate.pass_through(weak)
    assert "no_worse_than_challenger" in verdict.failed
    told = verdict.words("no_worse_than_challenger")
    assert told.startswith(f"challenger, version 1 of {gate.model} (trained on data")
    assert gate.alias() == good.model
    assert read_decision(gate.place.domain) == verdict.decision


def test_an_equal_student_takes_the_alias_and_a_second_look_at_it_changes_nothing(gate: Gate) -> None:
    first, second = gate.student(GRAPH), gate.student(GRAPH, seed=1)
    for student in (first, second, second):
        assert gate.pass_through(student).decision.accepted
        assert gate.alias() == student.model
    assert gate.tags("2")["slmrec.gate.rival"] == ""


def test_a_better_challenger_that_waits_is_displaced_by_no_worse_student_than_itself(gate: Gate) -> None:
    """The champion is weaker than both: a student between the two is held back, and an equal one takes the alias."""
    weak, waiting, middling = gate.student(POPULARITY), gate.student(GRAPH), gate.student(MIDDLING)
    set_alias(weak.model, "champion")
    set_alias(waiting.model, "challenger")
    verdict = gate.pass_through(middling)
    assert verdict.failed == {"no_worse_than_challenger"}
    assert (gate.alias("champion"), gate.alias()) == (weak.model, waiting.model)
    champions, theirs, ours = (values_of(one.evaluation) for one in (weak, waiting, middling))
    assert champions.mean() < ours.mean() < theirs.mean()
    difference = compare(ours, theirs, seed=5)
    told = verdict.words("no_worse_than_challenger")
    assert told.startswith(f"challenger, version 2 of {gate.model} (trained on data {DATASET.version}, profile tiny)")
    assert f"{number(theirs.mean())}, difference {number(difference.mean, '+')} " in told
    assert verdict.checks["no_worse_than_challenger"].metadata["low"].value == difference.low
    assert verdict.words("no_worse_than_champion").startswith(f"champion, version 1 of {gate.model}")
    page = gate.page("3").replace("&emsp;", "")
    assert "| champion, version 1 |" in page
    assert "| challenger, version 2 |" in page
    assert f"✗ `no_worse_than_challenger`: {told}" in page
    assert gate.tags("3")["slmrec.gate.rival"] == f"{gate.model}/1"  # what a promotion asks for

    assert gate.pass_through(middling, margin=-difference.low + 1e-6).decision.accepted
    assert gate.alias() == middling.model
    assert gate.pass_through(gate.student(GRAPH, seed=1)).decision.accepted


def test_no_version_is_compared_with_itself_and_none_twice(gate: Gate) -> None:
    first, second = gate.student(GRAPH), gate.student(GRAPH, seed=1)

    def rivals(student: Checkpoint) -> list[tuple[str, Any]]:
        found = find_rivals(student.model, DATASET, domain_of(gate.place.domain), RULES)
        return [(one.alias, one.version) for one in found]

    set_alias(first.model, "challenger")
    assert (rivals(first), rivals(second)) == ([], [("challenger", first.model)])
    set_alias(first.model, "champion")  # the challenger was promoted: it waits no longer
    assert (rivals(first), rivals(second)) == ([], [("champion", first.model)])
    set_alias(second.model, "challenger")
    assert (rivals(first), rivals(second)) == ([("challenger", second.model)], [("champion", first.model)])


def test_a_challenger_of_older_data_is_judged_on_the_same_users(gate: Gate) -> None:
    """It waits beside a champion, and can't know the newer items: the student is better and takes the alias."""
    set_alias(gate.student(POPULARITY).model, "champion")
    waiting = trained("student", *GRAPH, older(), gate.place.domain)
    set_alias(registered(waiting, older()), "challenger")
    verdict = gate.pass_through(gate.student(GRAPH))
    assert verdict.decision.accepted
    told = verdict.words("no_worse_than_challenger")
    assert f"trained on data {older().version}" in told
    unknown = np.mean([DATASET.item_ids[target - 1] not in OLDER_IDS for target in DATASET.targets("test")])
    assert told.endswith(f"it doesn't know {unknown:.1%} of the targets")
    assert "The challenger learned from other data" in gate.page("3")


def test_a_critical_check_of_the_data_that_is_red_holds_the_student_back(gate: Gate) -> None:
    student = gate.student(GRAPH)
    note_checks(gate.place.domain, CheckResult("bad_share", passed=False, critical=True, observed="2 % of lines"))
    verdict = gate.pass_through(student)
    assert verdict.failed == {"data_checks_green"}
    assert gate.alias() is None
    words = "of 6 checks of the data 1 (item_texts.bad_share) failed, none warns"
    assert verdict.words("data_checks_green") == words
    assert f"✗ `data_checks_green`: {words}" in gate.page("1")
    (home.data_docs_directory(gate.place.domain) / "item_texts.json").unlink()
    unknown = gate.pass_through(student)
    assert unknown.failed == {"data_checks_green"}
    assert unknown.words("data_checks_green").endswith("no check of item_texts is on record")


def test_warnings_of_the_data_and_of_drift_pass_and_are_named(gate: Gate) -> None:
    note_checks(
        gate.place.domain,
        CheckResult("texts_clean", passed=False, critical=False, observed="3 tags"),
        CheckResult("one_row_an_item", passed=True, critical=True, observed="12 rows"),
    )
    moved = drifted(DATASET.version, new_items=0.31, new_users=0.1)
    verdict = gate.pass_through(gate.student(GRAPH), moved=moved)
    assert verdict.decision.accepted
    words = "of 9 checks of the data none failed, 2 (item_texts.texts_clean, drift.new_items) warn"
    assert verdict.words("data_checks_green") == words
    assert words in gate.tags("1")["slmrec.gate.reasons"]
    check = verdict.checks["data_checks_green"]
    assert (check.metadata["checks"].value, check.metadata["failed"].value, check.metadata["warnings"].value) == (
        9,
        0,
        2,
    )
    seen = "31.0%, 20.0% is allowed; data 2 against data 1"
    rows = [row.data for row in check.metadata["table"].value.records]
    assert rows == [
        {"check": "item_texts.texts_clean", "outcome": "warning", "observed": "3 tags"},
        {"check": "drift.new_items", "outcome": "warning", "observed": seen},
    ]
    page = gate.page("1")
    assert f"✓ `data_checks_green`: {words}" in page
    told = "- `item_texts.texts_clean` (warning): 3 tags\n- `drift.new_items` (warning): 31.0%, 20.0% is allowed\n"
    assert told in page  # without which data: Dagster has it


def test_a_champion_of_older_data_is_judged_on_the_same_users(gate: Gate) -> None:
    reigning = trained("student", *GRAPH, older(), gate.place.domain)
    set_alias(registered(reigning, older()), "champion")
    student = gate.student(GRAPH)
    verdict = gate.pass_through(student)
    unknown = np.mean([DATASET.item_ids[target - 1] not in OLDER_IDS for target in DATASET.targets("test")])
    assert 0 < unknown < 1
    told = verdict.words("no_worse_than_champion")
    assert f"trained on data {older().version}" in told
    assert told.endswith(f"it doesn't know {unknown:.1%} of the targets")
    assert verdict.decision.accepted
    assert "learned from other data" in gate.page(student.model.version)


def test_a_slice_that_collapses_holds_the_student_back(
    request: pytest.FixtureRequest, tracked_home: Path, tmp_path: Path
) -> None:
    """Over all users within a wide margin; in its slice the whole interval lies below the share that may be lost."""
    gate = gate_on(mixed(), request, tmp_path)
    good, weak = gate.student(GRAPH), gate.student(POPULARITY)
    set_alias(good.model, "champion")
    verdict = gate.pass_through(weak, margin=1.0)
    assert "no_slice_collapsed" in verdict.failed
    rows = {row["slice"]: row for one in verdict.decision.findings for row in one.rows}
    long = np.arange(140) < 60
    for name, members, expected in (("short", ~long, "kept"), ("long", long, "collapsed")):
        ours, theirs = (values_of(one)[members] for one in (weak.evaluation, good.evaluation))
        assert rows[name]["users"] == members.sum()
        assert rows[name]["student"] == pytest.approx(ours.mean())
        lost = compare(ours, theirs, seed=5).high < -0.2 * theirs.mean()
        assert rows[name]["verdict"] == expected == ("collapsed" if lost else "kept")
    assert verdict.checks["no_slice_collapsed"].metadata["table"].value.records[0].data["slice"] in rows

    spared = gate.pass_through(weak, margin=1.0, slice_users=1000)
    assert "no_slice_collapsed" not in spared.failed
    assert {row["verdict"] for one in spared.decision.findings for row in one.rows} == {"too few users"}
    allowed = gate.pass_through(weak, margin=1.0, slice_loss=1.0)
    assert "no_slice_collapsed" not in allowed.failed


def test_a_student_that_answers_too_slowly_is_held_back(gate: Gate) -> None:
    verdict = gate.pass_through(gate.student(GRAPH), latency_ms=1e-6)
    assert verdict.failed == {"answers_in_time"}
    assert gate.alias() is None
    found = next(one for one in verdict.decision.findings if one.name == "answers_in_time")
    assert 0 < found.values["median_ms"] <= found.values["largest_ms"]


def test_a_later_verdict_that_fails_takes_the_alias_back_and_the_page_says_so(gate: Gate) -> None:
    first, second = gate.student(GRAPH), gate.student(GRAPH, seed=1)
    gate.pass_through(first)
    assert "no longer" not in gate.page("1")
    assert gate.pass_through(first, latency_ms=1e-6).failed == {"answers_in_time"}
    assert gate.alias() is None
    assert gate.tags("1")["slmrec.gate"] == "failed"
    assert "**Gate: failed** It was the challenger by an earlier verdict, and is no longer." in gate.page("1")
    gate.pass_through(second)
    gate.pass_through(first, latency_ms=1e-6)
    assert gate.alias() == second.model
    assert "no longer" not in gate.page("1")


def test_the_median_request_counts_and_the_budget_itself_is_allowed() -> None:
    assert answers_in_time([1.0, 100.0, 2.0], 2.0).passed
    assert not answers_in_time([1.0, 100.0, 2.1], 2.0).passed


def test_a_student_that_is_not_registered_is_an_error(gate: Gate) -> None:
    student = gate.student(GRAPH).model_copy(update={"model": None})
    with pytest.raises(ValueError, match="is not registered: materialise student again"):
        gate.pass_through(student)


def test_results_or_statistics_of_other_splits_are_refused(gate: Gate) -> None:
    """The champion is judged on the splits: its users would be paired with others."""
    student = gate.student(GRAPH)
    set_alias(student.model, "champion")
    with pytest.raises(ValueError, match=f"version {DATASET.version}, but the splits are now {older().version}"):
        gate.pass_through(student, splits=older())
    with pytest.raises(ValueError, match=f"dataset_statistics is of data version {older().version}, but the splits"):
        gate.pass_through(student, described=older().version)
    with pytest.raises(ValueError, match=f"drift is of data version {older().version}, but the splits"):
        gate.pass_through(student, moved=drifted(older().version))
    assert gate.alias() is None


def test_the_versions_page_has_what_a_reviewer_decides_by(gate: Gate) -> None:
    good, new = gate.student(GRAPH), gate.student(GRAPH, seed=1)
    set_alias(good.model, "champion")
    verdict = gate.pass_through(new)
    page = gate.page(new.model.version)
    assert page == verdict.shown["page"]
    page = page.replace("&emsp;", "")
    assert page.startswith(f"# Student (SLMRec) for {gate.place.domain}\n\n**Gate: passed**")
    for one in verdict.decision.findings:
        assert f"✓ `{one.name}`: {one.words}" in page
    interval = next(one for one in gather({"student": new}, seed=5).records() if one.key == "full").metrics["mrr"]
    for words in (
        "Reviews from 2014-01-02 to 2015-03-04",
        f"judged on 24 users and 12 items of data version {DATASET.version}",
        "Full ranking",
        "1 + 3 candidates",
        f"| MRR | {number(interval.mean)} ({number(interval.low)} to {number(interval.high)}) |",
        "| champion, version 1",
        "| Popularity |",
        "| short | history of up to",
        "one request",
        "synthetic",
        "over users, not over trainings",
        "[Evaluation report](http://mlflow/report)",
        "[Dagster run of this verdict](http://127.0.0.1:3000/runs/",
        new.identity,
    ):
        assert words in page, words
    assert len(verdict.shown["page"]) <= 5000

    weak = gate.pass_through(gate.student(POPULARITY))
    failed = gate.page(weak.decision.model.version)
    assert "**Gate: failed**" in failed
    assert f"✗ `no_worse_than_champion`: {weak.words('no_worse_than_champion')}" in failed


def test_a_long_page_is_cut_at_a_line_and_says_so(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it says the rest is, the whole page is."""
    monkeypatch.setattr("assets.registry.model_page.LONGEST", 2000)
    verdict = gate.pass_through(gate.student(GRAPH))
    page, whole = gate.page("1"), verdict.shown["page"]
    assert len(page) <= 2000 < len(whole)
    kept, told = page.rsplit("\n\n", 1)
    assert told == "The rest is in Dagster: asset `challenger`, `page` among the metadata of the run of this verdict.\n"
    assert whole.startswith(f"{kept}\n")


def test_nobody_is_promoted_unless_the_profile_says_so(gate: Gate) -> None:
    gate.pass_through(gate.student(GRAPH))
    assert gate.alias("champion") is None
    assert promotions.notice(gate.place.domain) == []


def test_with_promote_a_student_that_passes_becomes_the_champion_once(gate: Gate) -> None:
    good, weak = gate.student(GRAPH), gate.student(POPULARITY)
    for student in (good, good, weak):
        gate.pass_through(student, promote=True)
        assert gate.alias("champion") == good.model
    (entry,) = promotions.notice(gate.place.domain)
    assert (entry.action, entry.before, entry.after, entry.by, entry.gate) == (
        "promoted",
        None,
        good.model,
        "automatic",
        "passed",
    )
    assert entry.reasons
    assert entry.reasons.startswith("the results are of this very student; NDCG@10 over the full catalogue")


def test_the_profile_says_which_student_is_delivered(gate: Gate) -> None:
    """The narrow one is as good as the other is bad, and the other way round; each is judged as itself."""
    domain, dataset = gate.place.domain, gate.place.dataset
    weak, narrow = gate.student(POPULARITY), recommender("narrow_student", GRAPH, domain, dataset=dataset)
    assert not gate.pass_through(weak, narrow=narrow).decision.accepted
    decision = gate.pass_through(weak, narrow=narrow, delivered="narrow_student").decision
    assert decision.accepted
    assert decision.model == narrow.model == aliased(model_name(domain, "narrow_student"), "challenger")
    assert gate.alias() is None
    good, plain = gate.student(GRAPH), recommender("narrow_student", POPULARITY, domain, seed=1, dataset=dataset)
    assert not gate.pass_through(good, narrow=plain, delivered="narrow_student").decision.accepted
    assert gate.pass_through(good, narrow=plain).decision.model == good.model
    mixed = recommender("mixed_student", GRAPH, domain, dataset=dataset)
    decision = gate.pass_through(weak, narrow=plain, mixed=mixed, delivered="mixed_student").decision
    assert decision.accepted
    assert decision.model == mixed.model


def test_the_champion_is_the_rival_whichever_model_it_is_of(gate: Gate) -> None:
    """The narrow student is judged by its own code and passes; with `promote` it takes the champion's alias."""
    domain, weak = gate.place.domain, gate.student(POPULARITY)
    narrow = recommender("narrow_student", GRAPH, domain, dataset=gate.place.dataset)
    set_alias(weak.model, "champion")
    verdict = gate.pass_through(weak, narrow=narrow, delivered="narrow_student", promote=True)
    assert verdict.decision.accepted
    assert verdict.words("no_worse_than_champion").startswith(f"champion, version 1 of {gate.model} (trained on data")
    theirs = number(values_of(weak.evaluation).mean())
    assert f"on the same users {theirs}, difference +" in verdict.words("no_worse_than_champion")
    assert tags_of(narrow.model.name, "1")["slmrec.gate.rival"] == f"{gate.model}/1"
    assert (gate.alias("champion"), champion_of(domain)) == (None, narrow.model)
    entries = promotions.notice(domain)
    assert [(one.action, one.before, one.after) for one in entries] == [
        ("changed by hand", None, weak.model),
        ("promoted", weak.model, narrow.model),
    ]
    good = gate.student(GRAPH, seed=1)
    assert gate.pass_through(good, narrow=narrow).decision.accepted
    rivals = find_rivals(good.model, DATASET, domain_of(domain), RULES)
    assert [(one.alias, one.version) for one in rivals] == [("champion", narrow.model)]
