"""Drift: today's data against those of the domain's champion. What is planted is seen by its check; nothing stops."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dagster import AssetCheckEvaluation, AssetCheckSeverity, ExecuteInProcessResult

from assets.amazon.dataset import Dataset
from assets.amazon.interactions import Interactions
from assets.configuration.domains import DriftLimits
from assets.drift import CHECKS, Drift, drift
from assets.registry.champion import champion_of, download
from assets.registry.training_data import TRAINING_DATA
from assets.registry.versions import set_alias
from assets.workspace.checkpoints import RegisteredVersion
from models.baselines.successor_graph import SuccessorGraphSettings, fit_successor_graph
from tests.assets.conftest import Chain
from tests.assets.registry.tiny import Wired, dataset_of, metadata_of, registered, trained, value_of, wired

pytestmark = pytest.mark.usefixtures("tracked_home")

ITEMS = 40
IDS, NEW_IDS = ([f"{letter}{item:03}" for item in range(ITEMS)] for letter in "BN")
Rows = list[list[int]]


def bought(seed: int = 0) -> Rows:
    """300 users; the smaller an item's number the more popular it is, and a certain other item often comes after it."""
    rng, shares = np.random.default_rng(seed), 1 / np.arange(3, ITEMS + 3)
    after = np.random.default_rng(1).permutation(ITEMS)
    rows = []
    for user in range(300):
        row = [int(rng.choice(ITEMS, p=shares / shares.sum()))]
        while len(row) < 5 + user % 6:
            follows = rng.random() < 0.3
            row.append(int(after[row[-1]]) if follows else int(rng.choice(ITEMS, p=shares / shares.sum())))
        rows.append([item + 1 for item in row])
    return rows


@dataclass(frozen=True)
class Data:
    """What the data stage hands on."""

    interactions: Interactions
    splits: Dataset


def data_of(rows: Rows, ids: list[str] = IDS, users: Callable[[int], str] = "U{}".format) -> Data:
    dataset = dataset_of(rows, ids)
    people = pl.DataFrame({"user_id": range(len(rows)), "reviewer_id": [users(user) for user in range(len(rows))]})
    table = pl.DataFrame(
        [(user, item, 5.0, day) for user, row in enumerate(rows) for day, item in enumerate(row)],
        schema={"user_id": pl.UInt32, "item_id": pl.UInt32, "rating": pl.Float32, "timestamp": pl.Int64},
        orient="row",
    )
    interactions = Interactions(
        interactions=table, users=people, items=dataset.items, lines=table.height, quarantined={}, steps=()
    )
    return Data(interactions, dataset.model_copy(update={"users": people}))


def champion(domain: str, data: Data, name: str = "student") -> RegisteredVersion:
    """A successor graph of these data, promoted."""
    made = trained(name, fit_successor_graph, SuccessorGraphSettings(), data.splits, domain)
    version = registered(made, data.splits)
    set_alias(version, "champion")
    return version


@dataclass(frozen=True)
class Measured:
    """A run of the asset."""

    result: ExecuteInProcessResult

    @property
    def drift(self) -> Drift:
        found: Drift = value_of(self.result, "drift")
        return found

    @property
    def checks(self) -> Mapping[str, AssetCheckEvaluation]:
        return {one.check_name: one for one in self.result.get_asset_check_evaluations()}

    @property
    def failed(self) -> set[str]:
        return {name for name, one in self.checks.items() if not one.passed}

    def observed(self, check: str) -> str:
        return str(self.checks[check].metadata["observed"].value)


Measure = Callable[..., Measured]


@pytest.fixture
def measure(tmp_path: Path, request: pytest.FixtureRequest) -> Measure:
    """Materialises `drift` in a domain of this test's own, whose name is the function's `domain`."""

    def run(data: Data, domain: str, **limits: float) -> Measured:
        place: Wired = wired(tmp_path, domain, data.splits)
        config = {"domains": {"overrides": {"drift": limits}}} if limits else None
        given = {"interactions": data.interactions, "splits": data.splits}
        return Measured(place.materialise(drift, given=given, config=config))

    return run


def psi(reference: list[float], current: list[float]) -> float:
    """Written out once more, of counts without empty cells."""
    p, q = (np.array(counts) / sum(counts) for counts in (reference, current))
    return float(np.sum(q * np.log(q / p)) + np.sum(p * np.log(p / q)))


def test_without_a_champion_all_passes_and_says_so(measure: Measure) -> None:
    found = measure(data_of(bought()), "uncrowned")
    assert set(found.checks) == set(CHECKS)
    assert found.failed == set()
    assert {found.observed(name) for name in CHECKS} == {"the domain has no champion to compare with"}
    assert (found.drift.champion, found.drift.values) == (None, {})
    assert "figure" not in metadata_of(found.result, "drift")


def test_the_champions_own_data_have_not_drifted_at_all(measure: Measure) -> None:
    data = data_of(bought())
    version = champion("steady", data)
    found = measure(data, "steady")
    assert found.drift.values == dict.fromkeys(CHECKS, 0.0)
    assert (found.drift.champion, found.drift.champion_data_version) == (version, data.splits.version)
    assert found.failed == set()


def half_with_new_items(rows: Rows) -> Rows:
    """Every second user buys new items only; of the others' purchases each item has about its share."""
    return [[item + ITEMS * (user % 2) for item in row] for user, row in enumerate(rows)]


def lengthened(rows: Rows) -> Rows:
    """Everybody has bought the same once more, and the same last two at the end."""
    return [[*row[:-2], *row] for row in rows]


PLANTED: dict[str, tuple[Data, set[str], set[str]]] = {
    "new users": (data_of(bought(), users=lambda user: f"{'N' if user % 2 else 'U'}{user}"), {"new_users"}, set()),
    "new items": (
        data_of(half_with_new_items(bought()), [*IDS, *NEW_IDS]),
        {"new_items", "interactions_with_new_items"},
        {"score_psi"},  # what the champion doesn't know isn't in the histories that it scores
    ),
    "popularity reversed": (
        data_of([[ITEMS + 1 - item for item in row] for row in bought()]),
        {"item_popularity_psi"},
        {"score_psi"},  # other items come last
    ),
    "longer histories": (data_of(lengthened(bought())), {"history_length_psi"}, {"score_psi"}),
    "other successions": (
        data_of([[*sorted(row[:-2]), ITEMS, row[-1]] for row in bought()]),
        {"score_psi"},
        set(),  # what was validated on is no training sequence's: the others see nothing
    ),
}
"""What is planted -> the data, the checks that must see it, and those that may."""


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_seen_by_its_checks_alone(measure: Measure, planted: str) -> None:
    data, must, may = PLANTED[planted]
    domain = planted.replace(" ", "_")
    champion(domain, data_of(bought()))
    found = measure(data, domain)
    assert must <= found.failed <= must | may
    for name, check in found.checks.items():
        assert check.severity == AssetCheckSeverity.WARN
        assert check.metadata["value"].value == found.drift.values[name]
        assert check.metadata["limit"].value == getattr(DriftLimits(), name)
    assert found.result.success


def test_each_check_sees_something_planted() -> None:
    assert set().union(*(must for _, must, _ in PLANTED.values())) == set(CHECKS) == set(DriftLimits.model_fields)


def test_the_values_are_those_of_arithmetic_on_the_raw_rows(measure: Measure) -> None:
    """From the rows alone: training sequences are all but the last two items."""
    old, new = bought(), [*lengthened(bought(1)[:200]), *bought(2)[:150]]
    ids = [*IDS[:36], "N1", "N2", "N3", "N4"]
    champion("counted", data_of(old))
    found = measure(data_of(new, ids, users=lambda user: f"U{user + 40}"), "counted").drift
    then, now = ([row[:-2] for row in rows] for rows in (old, new))
    lengths = found.shifts["history_length_psi"]
    assert sum(lengths.reference) == len(old)
    ends = [int(name.removeprefix("≤ ")) for name in lengths.cells[:-1]]
    bounds = list(zip([0, *ends], [*ends, 99], strict=True))
    counted = [[sum(low < len(row) <= high for row in rows) for low, high in bounds] for rows in (then, now)]
    assert [list(lengths.reference), list(lengths.current)] == counted
    popularity = found.shifts["item_popularity_psi"]
    assert sum(popularity.reference) == sum(map(len, then))
    assert sum(popularity.current) == sum(item <= 36 for row in now for item in row)
    assert found.values["item_popularity_psi"] == pytest.approx(psi(popularity.reference, popularity.current))
    assert found.values["new_items"] == 4 / 40
    assert found.values["interactions_with_new_items"] == pytest.approx(
        sum(item > 36 for row in new for item in row) / sum(map(len, new))
    )
    assert found.values["new_users"] == pytest.approx(90 / 350)  # U300 to U389 are new


def test_the_domains_own_champion_is_asked_and_no_other(measure: Measure) -> None:
    """Two domains whose data differ: each is in line with its own champion, and not with the other's."""
    here, there = data_of(bought()), data_of([[ITEMS + 1 - item for item in row] for row in lengthened(bought())])
    champion("here", here)
    champion("there", there)
    for domain, data in (("here", here), ("there", there)):
        assert set(measure(data, domain).drift.values.values()) == {0.0}
    assert {"item_popularity_psi", "history_length_psi"} <= measure(there, "here").failed


def test_a_challenger_is_no_champion_and_either_student_may_be_it(measure: Measure) -> None:
    data = data_of(bought())
    made = trained("student", fit_successor_graph, SuccessorGraphSettings(), data.splits, "elected")
    set_alias(registered(made, data.splits), "challenger")
    assert champion_of("elected") is None
    assert measure(data, "elected").drift.champion is None
    narrow = champion("elected", data, "narrow_student")
    assert champion_of("elected") == narrow
    assert measure(data, "elected").drift.champion == narrow


def test_the_limits_are_the_domains(measure: Measure) -> None:
    data, _, _ = PLANTED["new users"]
    champion("limited", data_of(bought()))
    assert measure(data, "limited").failed == {"new_users"}
    assert measure(data, "limited", new_users=0.5).failed == set()
    assert "50.0%, 40.0% is allowed" in measure(data, "limited", new_users=0.4).observed("new_users")


def test_a_version_of_before_the_summaries_says_so(measure: Measure) -> None:
    data = data_of(bought())
    (download(champion("older", data)) / "artifacts" / TRAINING_DATA).unlink()
    found = measure(PLANTED["longer histories"][0], "older")
    assert found.failed == set()
    assert all("before versions kept a summary" in found.observed(name) for name in CHECKS)
    assert found.drift.values == {}


def test_the_page_shows_numbers_table_and_figure(measure: Measure) -> None:
    data, _, _ = PLANTED["new items"]
    champion("shown", data_of(bought()))
    found = measure(data, "shown")
    page = metadata_of(found.result, "drift")
    assert {name: page[name] for name in CHECKS} == found.drift.values
    assert page["figure"].startswith("![Drift](data:image/png;base64,")
    rows = {row.data["measure"].replace(" ", "_").lower(): row.data for row in page["measures"].records}
    assert set(rows) == set(CHECKS)
    assert {name for name, row in rows.items() if row["verdict"] == "drifted"} == found.failed
    assert rows["new_items"]["allowed"] == 0.2


def test_a_real_student_of_the_chain_is_measured(measure: Measure, chain: Chain) -> None:
    """The chain's own student is loaded by its own code; on its own data its scores are the same to the last digit."""
    dataset = chain.wired.dataset
    student = chain.checkpoints["student"].model_copy(update={"domain": "really"})
    set_alias(registered(student, dataset), "champion")
    rows = [[*history, target] for history, target in dataset.rows("test").select("history", "target").iter_rows()]
    data = data_of(rows, dataset.item_ids)
    assert data.splits.version == dataset.version
    assert set(measure(data, "really").drift.values.values()) == {0.0}
    drifted = measure(data_of(lengthened(rows), dataset.item_ids), "really")
    assert "history_length_psi" in drifted.failed
    assert not {"new_users", "new_items", "interactions_with_new_items"} & drifted.failed
