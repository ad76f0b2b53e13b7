"""Protocols say what they are, as data and in words, and never ask for more candidates than there are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from evaluation.metrics import Ranks, user_values
from evaluation.protocols import ExpectedRanking, FullRanking, Protocol, SampledRanking, Split
from evaluation.sampling import candidates_of, expected, seen_items
from models.sequences import Sequences

TEMPORAL = Split(kind="temporal", validation_from="2015-03-01", test_from="2016-02-11")
SPLITS = [Split(), Split(order="file"), Split(ties="asin"), TEMPORAL, Split(departures=("repeated purchases kept",))]
RANKS = Ranks(np.array([3, 1]), np.array([8, 6]), np.array([True, True]))


@given(st.data())
def test_candidates_are_distinct_and_allowed_even_where_few_are_left(data: st.DataObject) -> None:
    n_items = data.draw(st.integers(3, 40))
    rows = data.draw(st.lists(st.lists(st.integers(1, n_items), max_size=n_items), min_size=1, max_size=6))
    targets = np.array([data.draw(st.integers(1, n_items)) for _ in rows])
    mask = np.zeros((len(rows), n_items + 1), dtype=bool)
    for user, row in enumerate(rows):
        mask[user, [0, targets[user], *row]] = True
    least = int((~mask).sum(axis=1).min())
    asked = SampledRanking(candidates=data.draw(st.integers(1, 60)), seed=data.draw(st.integers(0, 99)))
    if least == 0:
        with pytest.raises(ValueError, match="interacted with every item"):
            asked.fit(Sequences.from_lists(rows), targets, n_items)
        return
    protocol = asked.fit(Sequences.from_lists(rows), targets, n_items)
    assert protocol.candidates == min(asked.candidates, least)
    drawn = candidates_of(np.arange(len(rows)), mask, protocol.candidates, protocol.seed)
    assert not np.take_along_axis(mask, drawn, axis=1).any()
    assert all(len(set(row)) == protocol.candidates for row in drawn.tolist())


def test_repeated_history_items_count_once_when_fitting() -> None:
    histories = Sequences.from_lists([[1, 1, 1, 2], [3]])
    assert SampledRanking().fit(histories, np.array([2, 4]), n_items=10).candidates == 8
    assert seen_items(histories, 10).values.tolist() == [1, 2, 3]
    assert seen_items(histories, 10, without=np.array([2, 4])).offsets.tolist() == [0, 1, 2]


def test_with_seen_items_only_the_target_is_kept_out() -> None:
    protocol = SampledRanking(exclude_seen=False).fit(Sequences.from_lists([[1, 2, 3]]), np.array([4]), n_items=10)
    assert (protocol.candidates, protocol.key) == (9, "drawn_9_with_seen")


def test_the_closed_form_has_as_many_candidates_as_every_user_has() -> None:
    fewer = ExpectedRanking(candidates=999).fit(RANKS)
    assert (fewer.candidates, fewer.asked, fewer.key) == (5, 999, "sampled_5")
    assert fewer.title() == "1 + 5 candidates: this domain has no more"
    assert "among 1 + 5 items (999 were asked for), drawn uniformly" in fewer.words()
    assert ExpectedRanking(candidates=4).fit(RANKS) == ExpectedRanking(candidates=4)
    with pytest.raises(ValueError, match="interacted with every item"):
        ExpectedRanking().fit(Ranks.of(np.array([1]), 1))


def test_each_protocol_has_its_own_values() -> None:
    drawn = SampledRanking(candidates=3)
    ranks = Ranks(RANKS.rank, RANKS.candidates, RANKS.exact, {drawn.key: Ranks.of(np.array([2, 4]), 4)})
    assert FullRanking().values(ranks)["mrr"].tolist() == [1 / 3, 1]
    assert drawn.values(ranks)["mrr"].tolist() == [1 / 2, 1 / 4]
    closed = ExpectedRanking(candidates=5).values(ranks)
    np.testing.assert_array_equal(closed["mrr"], expected(RANKS, 5)["mrr"])
    assert closed["mrr"][0] > user_values(RANKS)["mrr"][0]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("protocol", [FullRanking, ExpectedRanking, SampledRanking])
def test_a_protocol_survives_json_and_says_its_split_first(protocol: type, split: Split) -> None:
    one = protocol(split=split)
    assert TypeAdapter(Protocol).validate_json(one.to_json()) == one
    assert one.words().lower().startswith(f"{split.words().lower()}: the target is ranked")
    assert one.words().endswith("equal scores count against the target.")


def test_keys_titles_and_words() -> None:
    assert (FullRanking().key, FullRanking().title()) == ("full", "Full ranking")
    with_seen = FullRanking(exclude_seen=False)
    assert (with_seen.key, with_seen.title()) == ("full_with_seen", "Full ranking, seen items included")
    assert "the user's history included" in with_seen.words()
    assert (ExpectedRanking().key, ExpectedRanking().title()) == ("sampled_999", "1 + 999 candidates")
    assert "as expected over draws (closed form)" in ExpectedRanking().words()
    assert (SampledRanking().key, SampledRanking().title()) == ("drawn_999", "1 + 999 candidates, drawn")
    assert "fixed by seed 7" in SampledRanking(seed=7).words()


def test_splits_in_words() -> None:
    by_hash, by_file, by_asin, temporal, departing = (split.words() for split in SPLITS)
    assert by_hash == "leave-one-out, by time, purchases of one day in an order drawn by hash"
    assert by_file == "leave-one-out, in the file's order, as the released code (leaks the catalogue number)"
    assert "catalogue numbers, as in the published sequences (leaks" in by_asin
    assert temporal.startswith("global temporal split (validation from 2015-03-01, test from 2016-02-11), by time")
    assert departing.endswith("; repeated purchases kept")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "temporal"}, "has two days"),
        ({"kind": "temporal", "test_from": "2016-02-11"}, "has two days"),
        ({"test_from": "2016-02-11"}, "has two days"),
        ({"kind": "temporal", "validation_from": "2016-02-11", "test_from": "2016-02-10"}, "can't begin on 2016-02-10"),
        ({"kind": "temporal", "validation_from": "soon", "test_from": "later"}, "Invalid isoformat"),
        ({"ties": "file"}, "'hash' or 'asin'"),
    ],
)
def test_impossible_splits_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split(**values)


def test_one_day_may_begin_both() -> None:
    assert Split(kind="temporal", validation_from="2015-03-01", test_from="2015-03-01").test_from == "2015-03-01"


@pytest.mark.parametrize("values", [{"candidates": 0}, {"seed": -1}])
def test_impossible_protocols_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="greater than"):
        SampledRanking(**values)
