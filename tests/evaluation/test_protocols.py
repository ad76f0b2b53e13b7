"""Sampled candidates: unseen, distinct, uniform, fixed by the seed, and the same whatever the batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.protocols import FILE_ORDER, LEAVE_ONE_OUT, FullRanking, SampledRanking, global_temporal
from models.sequences import Sequences


def excluded(histories: Sequences, targets: np.ndarray, n_items: int) -> np.ndarray:
    mask = np.zeros((len(histories), n_items + 1), dtype=bool)
    mask[:, 0] = True
    for user in range(len(histories)):
        mask[user, histories.values[histories.offsets[user] : histories.offsets[user + 1]]] = True
        mask[user, targets[user]] = True
    return mask


@given(st.data())
def test_candidates_are_distinct_and_allowed_even_where_few_are_left(data):
    n_items = data.draw(st.integers(3, 40))
    rows = data.draw(st.lists(st.lists(st.integers(1, n_items), max_size=n_items), min_size=1, max_size=6))
    targets = np.array([data.draw(st.integers(1, n_items)) for _ in rows])
    histories = Sequences.from_lists(rows)
    mask = excluded(histories, targets, n_items)
    least = int((~mask).sum(axis=1).min())
    asked = SampledRanking(candidates=data.draw(st.integers(1, 60)), seed=data.draw(st.integers(0, 99)))
    if least == 0:
        with pytest.raises(ValueError, match="interacted with every item"):
            asked.fit(histories, targets, n_items)
        return
    protocol = asked.fit(histories, targets, n_items)
    assert protocol.candidates == min(asked.candidates, least)
    assert protocol.key == f"sampled_{protocol.candidates}"
    drawn = protocol.candidates_of(np.arange(len(rows)), mask)
    assert drawn.shape == (len(rows), protocol.candidates)
    assert not np.take_along_axis(mask, drawn, axis=1).any()
    assert all(len(set(row)) == protocol.candidates for row in drawn.tolist())


def test_candidates_do_not_depend_on_batches_or_their_order():
    rng = np.random.default_rng(0)
    n_items, users = 300, np.arange(60)
    histories = Sequences.from_lists([rng.integers(1, n_items + 1, size=rng.integers(0, 30)).tolist() for _ in users])
    mask = excluded(histories, rng.integers(1, n_items + 1, size=60), n_items)
    protocol = SampledRanking(candidates=250, seed=7)
    whole = protocol.candidates_of(users, mask)
    shuffled = rng.permutation(60)
    for size in (1, 7, 60):
        parts = [shuffled[start : start + size] for start in range(0, 60, size)]
        drawn = np.concatenate([protocol.candidates_of(part, mask[part]) for part in parts])
        np.testing.assert_array_equal(drawn, whole[shuffled])


def test_users_and_seeds_differ():
    mask = np.zeros((2, 1001), dtype=bool)
    mask[:, 0] = True
    first, other_user = SampledRanking(50, seed=0).candidates_of(np.arange(2), mask)
    other_seed = SampledRanking(50, seed=1).candidates_of(np.arange(2), mask)[0]
    assert len(set(first) & set(other_user)) < 25
    assert len(set(first) & set(other_seed)) < 25


def test_every_allowed_item_is_drawn_equally_often():
    """4,000 users draw 5 of 19 allowed items: each item's count is binomial, n = 4000, p = 5/19; within 5 sigma."""
    users, n_items = 4000, 20
    mask = np.zeros((users, n_items + 1), dtype=bool)
    mask[:, [0, 13]] = True
    counts = np.bincount(SampledRanking(5, seed=3).candidates_of(np.arange(users), mask).ravel(), minlength=n_items + 1)
    share = 5 / 19
    assert counts[[0, 13]].tolist() == [0, 0]
    allowed = np.delete(counts, [0, 13])
    assert np.abs(allowed - users * share).max() < 5 * np.sqrt(users * share * (1 - share))


def test_first_places_are_uniform_too():
    """The first draw alone, over 8,000 users and 8 items: chi-squared with 7 degrees of freedom stays below 30."""
    mask = np.zeros((8000, 9), dtype=bool)
    mask[:, 0] = True
    first = SampledRanking(1, seed=5).candidates_of(np.arange(8000), mask)[:, 0]
    counts = np.bincount(first, minlength=9)[1:]
    assert ((counts - 1000) ** 2 / 1000).sum() < 30


def test_repeated_history_items_count_once_when_fitting():
    histories = Sequences.from_lists([[1, 1, 1, 2], [3]])
    assert SampledRanking(999).fit(histories, np.array([2, 4]), n_items=10).candidates == 8


def test_with_seen_items_only_the_target_is_kept_out():
    histories = Sequences.from_lists([[1, 2, 3]])
    protocol = SampledRanking(999, exclude_seen=False).fit(histories, np.array([4]), n_items=10)
    assert protocol.key == "sampled_9_with_seen"


def test_protocols_describe_themselves():
    sampled = SampledRanking(412, seed=7).to_dict()
    words = sampled.pop("words")
    assert sampled == {
        "key": "sampled_412",
        "split": "leave-one-out",
        "candidates": 412,
        "seen_items": "excluded",
        "ties": "against the target",
        "seed": 7,
    }
    assert "1 + 412" in words
    assert "seed 7" in words
    full = FullRanking().to_dict()
    assert (full["key"], full["candidates"], full["seed"]) == ("full", "all", None)
    assert FullRanking(exclude_seen=False).key == "full_with_seen"
    assert "included" in FullRanking(exclude_seen=False).words()


@pytest.mark.parametrize("split", [LEAVE_ONE_OUT, FILE_ORDER, global_temporal("2015-03-01", "2016-02-11")])
def test_the_split_is_said_first_and_recorded(split):
    histories = Sequences.from_lists([[1, 2]])
    for protocol in (FullRanking(split=split), SampledRanking(3, split=split)):
        fitted = protocol.fit(histories, np.array([3]), n_items=10)
        assert fitted.to_dict()["split"] == split
        assert fitted.words().startswith(split[0].upper() + split[1:] + ": the target is ranked")


def test_a_temporal_split_names_its_days():
    words = global_temporal("2015-03-01", "2016-02-11")
    assert words == "global temporal (validation from 2015-03-01, test from 2016-02-11)"
    assert "2015-03-01, test from 2015-03-01" in global_temporal("2015-03-01", "2015-03-01")
    with pytest.raises(ValueError, match="can't begin on 2015-02-28"):
        global_temporal("2015-03-01", "2015-02-28")


def test_file_order_is_marked():
    assert "file's order" in FullRanking(split=FILE_ORDER).words()
    assert "leaks" in SampledRanking(split=FILE_ORDER).words()


@pytest.mark.parametrize("values", [{"candidates": 0}, {"seed": -1}])
def test_impossible_protocols_are_refused(values):
    with pytest.raises(ValueError, match="not"):
        SampledRanking(**values)


def test_an_unfitted_protocol_stops_where_too_few_are_left():
    mask = np.zeros((1, 10), dtype=bool)
    mask[0, :5] = True
    with pytest.raises(ValueError, match="fewer than 6 items"):
        SampledRanking(6).candidates_of(np.arange(1), mask)
