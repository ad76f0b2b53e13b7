"""Drift: how far today's data have moved from those that the domain's champion learned from.

Belongs here: the asset, its checks, and which data are compared. Not here: the measures (`evaluation/drift.py`), what a
version keeps of its data (`assets/registry/training_data.py`), and the limits, which are the domain's settings. What
moved since the data were last made is asked elsewhere (`assets/amazon/validation/statistics.py`).

Like is compared with like: all training sequences with all training sequences, test histories with test histories.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    MetadataValue,
    Output,
    asset,
)
from pydantic import BaseModel

from assets.amazon.dataset import Dataset
from assets.amazon.interactions import Interactions
from assets.configuration.domains import DriftLimits
from assets.configuration.resources import DomainResource
from assets.registry.champion import champion_of, download, load_source
from assets.registry.store import model_url
from assets.registry.training_data import SAMPLED_USERS, best_scores, read_training_data, user_hashes
from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.evaluations import vocabulary_of
from assets.workspace.presentation import OWNERS, figure_metadata, table_metadata
from assets.workspace.resources import Home
from evaluation.drift import Shift, new_share, new_users_share, popularity_shift, value_shift

CHECKS = {
    "item_popularity_psi": "The purchases of the items that the champion knows lie over these as they did.",
    "history_length_psi": "The training sequences are as long as they were.",
    "score_psi": "The champion is as sure of its best item for a test history as it was.",
    "new_users": "Few of the users are not among those that the champion learned from.",
    "new_items": "Few of the items are not in the champion's catalogue.",
    "interactions_with_new_items": "Few of the interactions are with items that the champion can't recommend.",
}
"""Name, also of the limit among the domain's settings -> what is promised, for the UI."""


class Drift(BaseModel):
    """How far a domain's data have moved.

    Attributes:
        data_version: of today's splits.
        champion: that they are compared for; None where the domain has none.
        champion_data_version: of the splits that it learned from; None where it doesn't say.
        values: by check: a population stability index, or a share from 0 to 1; empty where nothing was compared.
        shifts: by check: the counts behind an index.
        limits: of the domain, when it was measured.
        words: what was compared with what, or why nothing was.
    """

    data_version: str
    champion: RegisteredVersion | None = None
    champion_data_version: str | None = None
    values: dict[str, float] = {}
    shifts: dict[str, Shift] = {}
    limits: DriftLimits
    words: str

    def limit(self, check: str) -> float:
        """What a check allows."""
        return float(getattr(self.limits, check))

    def passed(self, check: str) -> bool:
        """Whether a value is within its limit; what could not be compared is."""
        return check not in self.values or self.values[check] <= self.limit(check)

    def observed(self, check: str) -> str:
        """What a check saw, in one line."""
        if check not in self.values:
            return self.words if not self.values else "the champion gives no scores that could be compared"
        value, limit = self.values[check], self.limit(check)
        if check in self.shifts:
            chance = self.shifts[check].by_chance
            return f"PSI {value:.3f}, {limit:g} is allowed, chance alone brings about {chance:.3f}; {self.words}"
        return f"{value:.1%}, {limit:.1%} is allowed; {self.words}"


@asset(
    group_name="delivery",
    kinds={"mlflow"},
    owners=OWNERS,
    io_manager_key="records",
    check_specs=[AssetCheckSpec(name, asset="drift", description=told) for name, told in CHECKS.items()],
)
def drift(
    context: AssetExecutionContext,
    home: Home,  # noqa: ARG001  # holds the domain
    domains: DomainResource,
    interactions: Interactions,
    splits: Dataset,
) -> Iterator[Output[Drift] | AssetCheckResult]:
    """How far today's data have moved from those that the champion learned from. It stops nothing: it warns."""
    domain = context.partition_key
    found = measure(champion_of(domain), interactions, splits, domains.load(domain).drift)
    context.log.info(found.words)
    yield Output(found, metadata=_metadata(found))
    for name in CHECKS:
        if not found.passed(name):
            context.log.warning(f"{name}: {found.observed(name)}")
        yield AssetCheckResult(
            asset_key="drift",
            check_name=name,
            passed=found.passed(name),
            severity=AssetCheckSeverity.WARN,  # whether to train again is for a person or a schedule to say
            metadata={"observed": found.observed(name), **_numbers(found, name)},
        )


def measure(
    champion: RegisteredVersion | None, interactions: Interactions, splits: Dataset, limits: DriftLimits
) -> Drift:
    """Today's data against those of a registered version.

    Args:
        champion: None: there is nothing to compare with, which the words say.
        interactions: today's.
        splits: made of them.
        limits: the domain's.
    """
    from evaluation.ranking import translated

    now = Drift(data_version=splits.version, limits=limits, words="the domain has no champion to compare with")
    if champion is None:
        return now
    now = now.model_copy(update={"champion": champion})
    then = read_training_data(download(champion) / "artifacts")
    if then is None:
        words = (
            f"{_named(champion)} was registered before versions kept a summary of their training data, so nothing can "
            "be compared until another one is the champion"
        )
        return now.model_copy(update={"words": words})
    source = load_source(champion)
    vocabulary = vocabulary_of(splits.item_ids, source.item_ids)
    purchases = np.bincount(vocabulary, weights=splits.purchases(), minlength=len(source.item_ids) + 1)
    lengths = np.repeat(np.arange(len(then.history_lengths)), then.history_lengths)
    scores = best_scores(source.recommender, translated(splits.histories("test"), vocabulary))
    shifts = {
        "item_popularity_psi": popularity_shift(source.purchases, purchases[1:]),
        "history_length_psi": value_shift(lengths, splits.training_sequences().lengths),
        **({"score_psi": value_shift(np.array(then.scores), scores)} if then.scores and len(scores) else {}),
    }
    users = user_hashes(splits.users["reviewer_id"])
    shares = {
        "new_users": new_users_share(np.array(then.user_hashes, dtype=np.uint64), SAMPLED_USERS, users),
        "new_items": new_share(vocabulary, np.arange(1, splits.n_items + 1)),
        "interactions_with_new_items": new_share(vocabulary, interactions.interactions["item_id"].to_numpy()),
    }
    return now.model_copy(
        update={
            "champion_data_version": then.data_version,
            "values": {**{name: shift.psi for name, shift in shifts.items()}, **shares},
            "shifts": shifts,
            "words": f"data {splits.version} against data {then.data_version}, which {_named(champion)} learned from",
        }
    )


def _named(version: RegisteredVersion) -> str:
    return f"version {version.version} of {version.name}"


def _metadata(found: Drift) -> Mapping[str, Any]:
    """What the asset's page shows: a number a measure, which Dagster draws over time, a table and the figure."""
    shown: dict[str, Any] = {"what": found.words}
    if found.champion:
        shown["champion"] = MetadataValue.url(model_url(found.champion))
    if not found.values:
        return shown
    from evaluation.report.drift_figure import drift_panels
    from evaluation.report.figures import png

    rows = [
        {
            "measure": name.replace("_", " ").replace("psi", "PSI"),  # words may be broken where the page is narrow
            "value": value,
            "allowed": found.limit(name),
            "by chance": found.shifts[name].by_chance if name in found.shifts else None,
            "verdict": "within" if found.passed(name) else "drifted",
        }
        for name, value in found.values.items()
    ]
    figure = png(drift_panels(found.shifts, found.values, found.limits.model_dump()))
    return {**shown, "measures": table_metadata(rows), "figure": figure_metadata(figure, "Drift"), **found.values}


def _numbers(found: Drift, check: str) -> dict[str, float]:
    return {"value": found.values[check], "limit": found.limit(check)} if check in found.values else {}
