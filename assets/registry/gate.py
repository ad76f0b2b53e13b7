"""The gate: what must hold of a student before it becomes the challenger. Each check comes with its evidence.

Belongs here: the checks, and the versions that a student has to hold up against. Not here: the asset that asks them
(`assets/delivery.py`), the page of them (`model_page.py`), moving the champion (`promotions.py`). The data are not
checked again: the gate reads what their checks found.

The rule of comparison (ours): the student is compared with the domain's champion, whichever model that is of, and with
the version of its own model that waits as the challenger, so that a worse student takes neither alias. Slices are
compared with the first of these that there is. It is not compared with itself.

Letters: B users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from assets.amazon.dataset import Dataset
from assets.registry.champion import champion_of, judge_version
from assets.registry.versions import CHALLENGER, CHAMPION, aliased
from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.evaluations import Evaluation

if TYPE_CHECKING:
    from assets.configuration.domains import Domain
    from assets.configuration.profiles import EvaluationProfile, GateProfile
    from evaluation.report.data_section import Check

CHECKS = {
    "judged_itself": "main_results is of this very student, not of one trained before or after.",
    "better_than_popularity": "NDCG@10 over the full catalogue is higher than popularity's.",
    "no_worse_than_champion": (
        "The paired 95 % interval of the NDCG@10 difference to the domain's champion does not begin below -gate.margin."
    ),
    "no_worse_than_challenger": (
        "The same of the difference to the version of its model that waits as the challenger; where that is the "
        "champion, or this student, it is not asked."
    ),
    "no_slice_collapsed": (
        "In no slice of gate.slice_users users or more does the whole paired interval lie below a loss of "
        "gate.slice_loss of the NDCG@10 of the champion, or where there is none of the waiting challenger."
    ),
    "answers_in_time": (
        "The median of one request to the version loaded by MLflow's pyfunc, of one history, is within gate.latency_ms."
    ),
    "data_checks_green": (
        "No critical check of the data failed when it was last asked; those that warn, also of drift, are named."
    ),
}
"""Name -> what is asked, for the UI."""


NO_RIVAL = {
    CHAMPION: "the domain has no other champion to compare with",
    CHALLENGER: "no other version waits as the challenger",
}
"""Alias -> what is said where no version other than the student has it; a champion does not wait."""


class Finding(BaseModel):
    """What a check of the gate found.

    Attributes:
        name: of `CHECKS`.
        words: the evidence in one line.
        values: the evidence in numbers.
        rows: the evidence as a table: a row a slice, or a row a check of the data that is red.
    """

    name: str
    passed: bool
    words: str
    values: dict[str, float] = {}
    rows: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Rival:
    """The version that a student is compared with, judged on the same splits; `alias` says why it."""

    alias: str
    version: RegisteredVersion
    evaluation: Evaluation

    def words(self) -> str:
        """Which it is, and on which data and by which profile it was trained."""
        record = self.evaluation.records[0]
        trained = f"trained on data {record.provenance.data_version}, profile {record.training.profile}"
        return f"{self.alias}, version {self.version.version} of {self.version.name} ({trained})"


def find_rivals(
    student: RegisteredVersion, dataset: Dataset, domain: "Domain", rules: "EvaluationProfile"
) -> list[Rival]:
    """The champion, then the challenger of the same model; without the student, and a version with both aliases once.

    They are judged on this dataset, whatever data they were trained on.
    """
    champion, challenger = champion_of(domain.name), aliased(student.name, CHALLENGER)
    others = {CHAMPION: champion, CHALLENGER: None if challenger == champion else challenger}
    return [
        Rival(alias, version, judge_version(version, alias, dataset, domain, rules))
        for alias, version in others.items()
        if version and version != student
    ]


def judged_itself(judged: str, student: str) -> Finding:
    """Whether the judged identity is the student's."""
    same = judged == student
    words = (
        "the results are of this very student"
        if same
        else f"main_results judged {judged}, and this student is {student}"
    )
    return Finding(name="judged_itself", passed=same, words=words)


def better_than_popularity(ours_B: np.ndarray, floor_B: np.ndarray) -> Finding:
    """Whether the student's mean NDCG@10 is higher."""
    from evaluation.significance import number

    ours, floor = float(ours_B.mean()), float(floor_B.mean())
    return Finding(
        name="better_than_popularity",
        passed=ours > floor,
        words=f"NDCG@10 over the full catalogue {number(ours)}, popularity {number(floor)}",
        values={"student": ours, "popularity": floor},
    )


def no_worse_than(alias: str, ours_B: np.ndarray, rivals: Sequence[Rival], margin: float, seed: int) -> Finding:
    """Whether the interval of the difference to the rival of that alias begins at -margin or above."""
    from evaluation.significance import compare, number

    name, rival = f"no_worse_than_{alias}", next((one for one in rivals if one.alias == alias), None)
    if rival is None:
        return Finding(name=name, passed=True, words=NO_RIVAL[alias])
    theirs_B = headline(rival.evaluation)
    difference = compare(ours_B, theirs_B, seed=seed)
    unknown = rival.evaluation.records[0].unknown.targets
    passed = difference.low >= -margin
    return Finding(
        name=name,
        passed=passed,
        words=(
            f"{rival.words()} on the same users {number(theirs_B.mean())}, difference {number(difference.mean, '+')} "
            f"({number(difference.low, '+')} to {number(difference.high, '+')}), which "
            f"{'does not begin' if passed else 'begins'} below {number(-margin)}; "
            f"it doesn't know {unknown:.1%} of the targets"
        ),
        values={
            "student": float(ours_B.mean()),
            "rival": float(theirs_B.mean()),
            **{part: getattr(difference, part) for part in ("mean", "low", "high", "p")},
            "margin": margin,
            "unknown_targets": unknown,
        },
    )


def no_slice_collapsed(
    ours_B: np.ndarray, rival: Rival | None, dataset: Dataset, rules: "GateProfile", seed: int
) -> Finding:
    """Whether every slice that is large enough may have kept 1 - slice_loss of the rival's NDCG@10."""
    from evaluation.significance import compare
    from evaluation.slices import slice_members

    name = "no_slice_collapsed"
    if rival is None:
        return Finding(name=name, passed=True, words="there is no other version to compare slices with")
    theirs_B, purchases = headline(rival.evaluation), dataset.purchases()
    members = slice_members(purchases[dataset.targets("test")], dataset.histories("test").lengths, purchases)
    rows: list[dict[str, Any]] = []
    for part, (members_B, rule) in members.items():
        users = int(members_B.sum())
        if users == 0:
            continue
        ours, theirs = ours_B[members_B], theirs_B[members_B]
        difference = compare(ours, theirs, seed=seed)
        lost = bool(difference.high < -rules.slice_loss * theirs.mean())
        verdict = "too few users" if users < rules.slice_users else "collapsed" if lost else "kept"
        rows.append(
            {
                "slice": part,
                "rule": rule,
                "users": users,
                "student": float(ours.mean()),
                "rival": float(theirs.mean()),
                "low": difference.low,
                "high": difference.high,
                "verdict": verdict,
            }
        )
    told = {verdict: [row["slice"] for row in rows if row["verdict"] == verdict] for verdict in ("collapsed", "kept")}
    return Finding(
        name=name,
        passed=not told["collapsed"],
        words=(
            f"more than {rules.slice_loss:.0%} of the {rival.alias}'s NDCG@10 lost in: {', '.join(told['collapsed'])}"
            if told["collapsed"]
            else f"no slice lost {rules.slice_loss:.0%} of the {rival.alias}'s NDCG@10 (of {rules.slice_users} users "
            f"or more: {', '.join(told['kept']) or 'none'})"
        ),
        rows=rows,
    )


def answers_in_time(milliseconds: Sequence[float], budget: float) -> Finding:
    """Whether the median request is within the budget."""
    middle = median(milliseconds)
    return Finding(
        name="answers_in_time",
        passed=middle <= budget,
        words=f"one request takes {middle:.1f} ms (median of {len(milliseconds)}), {budget:g} ms are allowed",
        values={"median_ms": middle, "largest_ms": max(milliseconds), "budget_ms": budget},
    )


def data_checks_green(checks: "Sequence[Check]", stages: Sequence[str]) -> Finding:
    """Whether each of the stages was checked and no critical check is red; each red check has a row.

    Args:
        checks: of the data, those of drift too.
        stages: that have checks.
    """
    red = [one for one in checks if not one.passed]
    failed, warned = (
        [f"{one.asset}.{one.name}" for one in red if one.critical is critical] for critical in (True, False)
    )
    unchecked = sorted(set(stages) - {one.asset for one in checks})
    words = [
        f"of {len(checks)} checks of the data {_counted(failed)} failed",
        f"{_counted(warned)} {'warn' if len(warned) > 1 else 'warns'}",
        *([f"no check of {' and '.join(unchecked)} is on record"] if unchecked else []),
    ]
    return Finding(
        name="data_checks_green",
        passed=not failed and not unchecked,
        words=", ".join(words),
        values={"checks": len(checks), "failed": len(failed), "warnings": len(warned)},
        rows=[
            {"check": f"{one.asset}.{one.name}", "outcome": one.outcome, "observed": one.observed}
            for one in sorted(red, key=lambda one: not one.critical)
        ],
    )


def headline(evaluation: Evaluation) -> np.ndarray:
    """Each user's NDCG@10 over the full catalogue, float64 [B]."""
    from evaluation.metrics import HEADLINE

    values: np.ndarray | None = evaluation.records[0].protocol.values(evaluation.ranks)[HEADLINE]
    assert values is not None
    return values


def _counted(names: Sequence[str]) -> str:
    """How many, and which."""
    return f"{len(names)} ({', '.join(names)})" if names else "none"
