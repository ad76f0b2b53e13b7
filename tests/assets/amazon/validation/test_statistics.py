"""Changes: statistics in line with the last ones pass, each that departs is a warning, and nothing is critical."""

import pytest

from assets.amazon.statistics import dataset_statistics
from assets.amazon.validation.statistics import CHANGE_CHECKS, check_changes
from tests.assets.amazon.validation.damage import Mutation, failed, names, observed

STATISTICS = {
    "users": 1_000,
    "items": 200,
    "interactions": 8_000,
    "density": 0.04,
    "history_length_mean": 8.0,
    "history_length_median": 7.0,
    "history_length_p90": 15.0,
    "top_1_percent_share": 0.03,
    "top_10_percent_share": 0.25,
    "tied_share": 0.2,
    "repeat_share": 0.0,
    "rating_mean": 4.5,
    "last_day": "2018-09-30",
}


def now(**fields: object) -> object:
    return lambda statistics: statistics | fields


MUTATIONS = [
    Mutation("sizes", "current", now(users=1_201)),
    Mutation("sizes", "current", now(items=159)),
    Mutation("sizes", "current", now(interactions=16_000)),
    Mutation("sizes", "previous", now(users=0)),
    Mutation("sizes", "current", lambda statistics: {k: v for k, v in statistics.items() if k != "users"}),
    Mutation("density", "current", now(density=0.03)),
    Mutation("history_lengths", "current", now(history_length_mean=10.0)),
    Mutation("history_lengths", "current", now(history_length_median=5.0)),
    Mutation("history_lengths", "current", now(history_length_p90=19.0)),
    Mutation("popularity", "current", now(top_1_percent_share=0.09)),
    Mutation("popularity", "current", now(top_10_percent_share=0.19)),
    Mutation("ties_and_repeats", "current", now(tied_share=0.9)),
    Mutation("ties_and_repeats", "current", now(repeat_share=0.06)),
    Mutation("ratings", "current", now(rating_mean=4.2)),
    Mutation("newest_day", "current", now(last_day="2018-09-29")),
    Mutation("newest_day", "previous", lambda statistics: {k: v for k, v in statistics.items() if k != "last_day"}),
]


def test_statistics_in_line_pass() -> None:
    grown = STATISTICS | {"users": 1_100, "interactions": 9_000, "tied_share": 0.24, "last_day": "2018-10-07"}
    for current in (STATISTICS, grown):
        validation = check_changes(current, STATISTICS)
        assert [result.name for result in validation.results] == names(CHANGE_CHECKS)
        assert failed(validation) == set()
        assert not any(result.critical for result in validation.results)
    assert observed(validation, "sizes").endswith(
        "users from 1,000 to 1,100, items from 200 to 200, interactions from 8,000 to 9,000"
    )


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.check)
def test_what_departs_is_a_warning_and_nothing_else_is(mutation: Mutation) -> None:
    arguments = {"current": STATISTICS, "previous": STATISTICS}
    arguments[mutation.argument] = mutation.damage(arguments[mutation.argument])
    validation = check_changes(**arguments)
    assert failed(validation) == {mutation.check}
    assert validation.passed


def test_every_check_has_a_mutation() -> None:
    assert {mutation.check for mutation in MUTATIONS} == set(names(CHANGE_CHECKS))


def test_the_first_materialisation_passes_and_says_so() -> None:
    validation = check_changes(STATISTICS, None)
    assert failed(validation) == set()
    assert all("first materialisation" in result.observed for result in validation.results)


def test_the_projects_statistics_have_what_is_compared(domain) -> None:
    statistics = dataset_statistics(domain.interactions.interactions, domain.dataset)
    assert failed(check_changes(statistics, statistics)) == set()
