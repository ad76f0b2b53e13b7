"""Evaluations: what is ranked, what is kept of it, when it is taken again; expectations by hand, user by user."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assets.configuration.profiles import EvaluationProfile
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.evaluations import Evaluation, evaluate, find, full_ranking, vocabulary_of
from evaluation import ranking
from models.files import load_recommender
from models.recommender import Recommender
from models.sequences import Sequences
from tests.assets.workspace.tiny import (
    CLOTH,
    DATA,
    ITEMS,
    OTHER_DATA,
    ROWS,
    SASREC,
    dataset_of,
    flip_a_byte,
    make,
    popularity,
    random_rows,
    sasrec,
)

RULES = EvaluationProfile(candidates=3, seed=5)
DRAWN = RULES.model_copy(update={"sampling": "drawn"})
KINDS = ("popularity", "sasrec")
METRICS = {
    "hr_at_1": lambda rank: float(rank <= 1),
    "hr_at_5": lambda rank: float(rank <= 5),
    "hr_at_10": lambda rank: float(rank <= 10),
    "ndcg_at_5": lambda rank: math.log(2) / math.log(rank + 1) if rank <= 5 else 0.0,
    "ndcg_at_10": lambda rank: math.log(2) / math.log(rank + 1) if rank <= 10 else 0.0,
    "mrr": lambda rank: 1 / rank,
}

Scores = Callable[[Sequence[int]], Mapping[int, float]]
"""Of a history: item -> score."""

pytestmark = pytest.mark.usefixtures("empty_home")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMREC_HOME", str(tmp_path_factory.mktemp("home")))
        larger = replace(SASREC, model=replace(SASREC.model, d=16))
        return {
            "popularity": make(popularity()),
            "sasrec": make(sasrec()),
            "larger": make(sasrec(settings=larger)),
            "other data": make(popularity(inputs=replace(popularity().inputs, dataset=OTHER_DATA))),
        }


def scores_of(kind: str, checkpoint: Checkpoint) -> Scores:
    """Popularity is counted here; SASRec scores one history at a time."""
    counts = Counter(item for row in ROWS for item in row[:-2])
    if kind == "popularity":
        return lambda _: {item: float(counts[item]) for item in range(1, ITEMS + 1)}
    recommender = load_recommender(checkpoint.directory)
    assert isinstance(recommender, Recommender)
    return lambda history: dict(enumerate(recommender.score(Sequences.from_lists([list(history)]))[0].tolist()))


def ranks_by_hand(rows: Sequence[Sequence[int]], held_out: int, scores: Scores) -> list[int]:
    ranks = []
    for row in rows:
        history, target = row[:-held_out], row[-held_out]
        found = scores(history)
        others = [item for item in range(1, ITEMS + 1) if item not in (*history, target)]
        ranks.append(1 + sum(found[item] >= found[target] for item in others))
    return ranks


def metrics_by_hand(ranks: Sequence[int]) -> dict[str, float]:
    return {name: sum(map(of_rank, ranks)) / len(ranks) for name, of_rank in METRICS.items()}


def means(record: Any) -> dict[str, float]:
    return {name: interval.mean for name, interval in record.metrics.items()}


def judge(checkpoint: Checkpoint, rules: EvaluationProfile = RULES, **given: Any) -> Evaluation:
    return evaluate(checkpoint, given.pop("dataset", DATA), CLOTH, rules, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_the_test_targets_are_ranked_after_the_test_histories(kind: str, checkpoints: dict[str, Checkpoint]) -> None:
    found = judge(checkpoints[kind])
    scores = scores_of(kind, checkpoints[kind])
    ranks, on_validation = (ranks_by_hand(ROWS, held_out, scores) for held_out in (1, 2))
    assert found.ranks.rank.tolist() == ranks != on_validation
    assert found.ranks.candidates.tolist() == [ITEMS - len(row) + 1 for row in ROWS]
    assert found.ranks.exact.all()
    assert means(found.records[0]) == pytest.approx(metrics_by_hand(ranks))
    assert means(found.records[0]) != pytest.approx(metrics_by_hand(on_validation))


def test_what_is_kept_of_each_user(checkpoints: dict[str, Checkpoint]) -> None:
    found = judge(checkpoints["popularity"])
    rows = pl.read_parquet(found.directory / "ranks.parquet")
    bought = Counter(item for row in ROWS for item in row[:-2])
    assert rows["user_id"].to_list() == list(range(len(ROWS)))
    assert rows["target"].to_list() == [row[-1] for row in ROWS]
    assert rows["target_purchases"].to_list() == [bought[row[-1]] for row in ROWS]
    assert rows["history_length"].to_list() == [len(row) - 1 for row in ROWS]


def test_what_a_record_says_of_checkpoint_data_and_protocol(checkpoints: dict[str, Checkpoint]) -> None:
    upstream = checkpoints["sasrec"].model_copy(update={"upstream": {"table": checkpoints["popularity"]}})
    found = judge(upstream)
    assert found.directory == home.results_directory("cloth", found.records[0].evaluation_identity)
    for record in found.records:
        assert (record.recommender, record.domain, record.title, record.synthetic) == (
            "sasrec",
            "cloth",
            "Clothing",
            True,
        )
        assert (record.users, record.items, record.data_version) == (len(ROWS), ITEMS, DATA.version)
        assert record.provenance == upstream.provenance
        assert record.training == upstream.training()
        assert record.upstream_seconds == {"table": checkpoints["popularity"].seconds}
        assert record.inference.seconds > 0
        assert record.seeds == {"bootstrap": 5}
    assert [record.protocol.split.kind for record in found.records] == ["leave_one_out"] * 2


def test_slices_are_cut_by_the_targets_purchases_and_the_histories_lengths(checkpoints: dict[str, Checkpoint]) -> None:
    found = judge(checkpoints["sasrec"])
    bought = Counter(item for row in ROWS for item in row[:-2])
    median = int(np.median([len(row) - 1 for row in ROWS]))
    ranks = found.ranks.rank.tolist()
    of_slice = {
        "cold": [rank for rank, row in zip(ranks, ROWS, strict=True) if not bought[row[-1]]],
        "short": [rank for rank, row in zip(ranks, ROWS, strict=True) if len(row) - 1 <= median],
        "long": [rank for rank, row in zip(ranks, ROWS, strict=True) if len(row) - 1 > median],
    }
    slices = {one.name: one for one in found.records[0].slices}
    assert {name: slices[name].users for name in of_slice} == {name: len(of) for name, of in of_slice.items()}
    for name in ("short", "long"):
        assert means(slices[name]) == pytest.approx(metrics_by_hand(of_slice[name]))


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_metrics_follow_from_the_ranks_in_closed_form(kind: str, checkpoints: dict[str, Checkpoint]) -> None:
    """Of 3 drawn among N - 1 others, of which r - 1 lie ahead, none lies ahead with C(N - r, 3) / C(N - 1, 3)."""
    found = judge(checkpoints[kind])
    full, sampled = found.records
    assert (full.key, sampled.key) == ("full", "sampled_3")
    ranks = zip(found.ranks.rank.tolist(), found.ranks.candidates.tolist(), strict=True)
    first = [math.comb(count - rank, 3) / math.comb(count - 1, 3) for rank, count in ranks]
    assert means(sampled)["hr_at_1"] == pytest.approx(sum(first) / len(first))
    assert means(sampled)["hr_at_5"] == pytest.approx(1)
    assert found.flat_metrics()["sampled_3/hr_at_1"] == means(sampled)["hr_at_1"]
    assert found.flat_metrics()["full/mrr"] == means(full)["mrr"]


def test_drawn_candidates_are_ranked_too_where_they_are_asked_for(checkpoints: dict[str, Checkpoint]) -> None:
    found, full = judge(checkpoints["sasrec"], DRAWN), judge(checkpoints["sasrec"])
    assert [record.key for record in found.records] == ["full", "drawn_3"]
    assert means(found.records[0]) == means(full.records[0])
    drawn = found.ranks.drawn["drawn_3"]
    assert drawn.candidates.tolist() == [4] * len(ROWS)
    assert means(found.records[1]) == pytest.approx(metrics_by_hand(drawn.rank.tolist()))
    assert (drawn.rank <= found.ranks.rank).all()
    assert (drawn.rank[found.ranks.rank == 1] == 1).all()
    assert (drawn.rank[found.ranks.rank == found.ranks.candidates] == 4).all()
    other = judge(checkpoints["sasrec"], DRAWN.model_copy(update={"seed": 6})).ranks.drawn["drawn_3"]
    assert other.rank.tolist() != drawn.rank.tolist()
    assert full.ranks.drawn == {}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An entry for each time that targets are ranked."""
    calls, rank_targets = [], ranking.rank_targets

    def count(*given: Any, **more: Any) -> Any:
        calls.append(given)
        return rank_targets(*given, **more)

    monkeypatch.setattr(ranking, "rank_targets", count)
    return calls


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


def test_an_evaluation_is_taken_once(checkpoints: dict[str, Checkpoint], counted: list[Any]) -> None:
    first = judge(checkpoints["sasrec"])
    before = contents(first.directory)
    assert judge(checkpoints["sasrec"]) == first == find(first.directory)
    assert contents(first.directory) == before
    assert len(counted) == 1


def shifted(directory: Path, seed: int) -> Any:
    """A SASRec of other weights, made without training."""
    recommender: Any = load_recommender(directory)
    weights = next(recommender.parameters())
    rng = np.random.default_rng(seed)
    weights.data += weights.new_tensor(rng.normal(size=weights.shape))
    return recommender


shifted.__module__ = "models.files"  # whose code stands for the function's


def test_whatever_it_depends_on_makes_it_another(checkpoints: dict[str, Checkpoint], counted: list[Any]) -> None:
    by = functools.partial(judge, checkpoints["sasrec"])
    drawn = RULES.model_copy(update={"sampling": "drawn"})
    found = [
        by(),
        by(RULES.model_copy(update={"candidates": 4})),
        by(RULES.model_copy(update={"seed": 6})),
        by(drawn),
        by(dataset=OTHER_DATA, item_ids=DATA.item_ids),
        by(name="champion"),
        by(make=functools.partial(load_recommender)),
        by(make=functools.partial(shifted, seed=1)),
        by(make=functools.partial(shifted, seed=2)),
        judge(checkpoints["larger"]),
        judge(checkpoints["popularity"]),
        judge(checkpoints["other data"], dataset=OTHER_DATA),
    ]
    assert len({one.directory for one in found}) == len(counted) == len(found)
    assert all(find(one.directory) == one for one in found), "none has overwritten another"


def test_what_is_made_of_a_checkpoint_is_ranked_and_has_no_curve(checkpoints: dict[str, Checkpoint]) -> None:
    whole = judge(checkpoints["sasrec"])
    made = judge(checkpoints["sasrec"], name="row", make=functools.partial(shifted, seed=1))
    assert made.ranks.rank.tolist() != whole.ranks.rank.tolist()
    record = made.records[0]
    assert (record.recommender, record.training.stages) == ("row", {})
    assert record.training.settings == whole.records[0].training.settings
    other_size = checkpoints["sasrec"].model_copy(update={"name": "sasrec"})
    larger = load_recommender(checkpoints["larger"].directory)
    of_larger = functools.partial(_larger, directory=checkpoints["larger"].directory)
    assert judge(other_size, make=of_larger).records[0].training.parameters == larger.numbers_read()


def _larger(_: Path, directory: Path) -> Any:
    return load_recommender(directory)


_larger.__module__ = "models.files"


SPOILT: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a byte of the ranks": ("ranks.parquet", flip_a_byte),
    "no ranks": ("ranks.parquet", Path.unlink),
    "a byte of a record": ("full.json", flip_a_byte),
    "half a record": ("sampled_3.json", lambda path: path.write_bytes(path.read_bytes()[:200])),
    "no record": ("sampled_3.json", Path.unlink),
    "no sums": ("SHA256SUMS", Path.unlink),
    "empty sums": ("SHA256SUMS", lambda path: path.write_bytes(b"")),
    "sums that are none": ("SHA256SUMS", lambda path: path.write_bytes(b"what is this\n")),
}


@pytest.mark.parametrize("damage", SPOILT)
def test_a_damaged_evaluation_is_named_and_taken_again(
    damage: str, checkpoints: dict[str, Checkpoint], counted: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    first = judge(checkpoints["popularity"])
    name, spoil = SPOILT[damage]
    assert (first.directory / name).is_file()
    ranks = first.ranks.rank.tolist()
    spoil(first.directory / name)
    (first.directory / "left.over").touch()
    with caplog.at_level("WARNING", logger="slmrec"):
        again = judge(checkpoints["popularity"])
    assert f"{first.directory} can't be used again: " in caplog.text
    assert name in caplog.text or name == "SHA256SUMS"
    assert len(counted) == 2
    assert again.ranks.rank.tolist() == ranks
    assert means(again.records[0]) == means(first.records[0])
    assert find(first.directory) == again
    assert not (first.directory / "left.over").exists()
    assert list(first.directory.parent.iterdir()) == [first.directory]


def test_a_record_of_an_older_form_is_taken_again(
    checkpoints: dict[str, Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    """Its digest is right, and a field of it is unknown."""
    from models.files import file_digests

    first = judge(checkpoints["popularity"])
    path = first.directory / "full.json"
    path.write_bytes(path.read_bytes().replace(b'"users"', b'"people"', 1))
    (first.directory / "SHA256SUMS").unlink()
    sums = file_digests(first.directory)
    (first.directory / "SHA256SUMS").write_text("".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()))
    assert find(first.directory) is None
    assert "full.json can't be read" in caplog.text
    assert judge(checkpoints["popularity"]).records == find(first.directory).records


def test_only_the_promised_checkpoint_is_judged(checkpoints: dict[str, Checkpoint]) -> None:
    exchanged = checkpoints["sasrec"].model_copy(update={"directory": checkpoints["larger"].directory})
    with pytest.raises(ValueError, match=r"should hold the sasrec checkpoint .* Materialise sasrec again"):
        judge(exchanged)
    assert not home.results_directory("cloth", "x").parent.exists()


NEW_IDS = [f"B{item:03}" for item in range(0, 2 * ITEMS, 2)]
"""Items 2 to 11 are B002 to B020, which the checkpoints know; item 1 and those from 12 on are new."""
NEW_ROWS = [*random_rows(seed=9), [1, 12, 13, 14, 5]]
"""The last user's history is new altogether."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_recommender_of_an_older_data_version_is_judged_by_raw_ids(
    kind: str, checkpoints: dict[str, Checkpoint]
) -> None:
    old, new = checkpoints[kind], dataset_of(NEW_ROWS, NEW_IDS)
    found = judge(old, dataset=new, item_ids=DATA.item_ids)
    number = {raw: item for item, raw in enumerate(DATA.item_ids, start=1)}
    own = {item: number.get(raw, 0) for item, raw in enumerate(NEW_IDS, start=1)}
    scores = scores_of(kind, old)
    missed = 0
    for row, rank, candidates, exact in zip(
        NEW_ROWS, found.ranks.rank, found.ranks.candidates, found.ranks.exact, strict=True
    ):
        history, target = [own[item] for item in row[:-1] if own[item]], own[row[-1]]
        assert candidates == ITEMS - len(row) + 1
        if not target or not history:
            missed += 1
            assert (rank, exact) == (candidates, False)
            continue
        of_user = scores(history)
        others = [known for known in own.values() if known and known not in (*history, target)]
        assert (rank, exact) == (1 + sum(of_user[item] >= of_user[target] for item in others), True)
    unknown_targets = sum(own[row[-1]] == 0 for row in NEW_ROWS)
    assert 5 < missed == unknown_targets + 1 < len(NEW_ROWS) - 5
    record = found.records[0]
    assert record.unknown.targets == pytest.approx(unknown_targets / len(NEW_ROWS))
    assert record.unknown.histories == pytest.approx(1 / len(NEW_ROWS))
    assert (record.data_version, record.provenance.data_version) == (new.version, DATA.version)
    of_known = [int(rank) for rank, exact in zip(found.ranks.rank, found.ranks.exact, strict=True) if exact]
    share = len(of_known) / len(NEW_ROWS)
    by_hand = {name: value * share for name, value in metrics_by_hand(of_known).items()}
    assert means(record) == pytest.approx(by_hand), "a miss is worth nothing"


def test_other_data_are_refused_where_no_raw_ids_are_given(checkpoints: dict[str, Checkpoint]) -> None:
    with pytest.raises(ValueError, match=f"made from data version {DATA.version}, but the splits are now"):
        judge(checkpoints["sasrec"], dataset=OTHER_DATA)


def test_a_vocabulary_maps_items_by_raw_id() -> None:
    data = dataset_of(ROWS, [f"B{item:03}" for item in range(1, ITEMS + 1)])
    assert vocabulary_of(data.item_ids, ["B003", "B001", "C"]).tolist() == [0, 2, 0, 1, *[0] * (ITEMS - 3)]


def test_the_protocol_names_the_splits_days_and_departures() -> None:
    cuts = (1455148800, 1468281600)  # 2016-02-11 and 2016-07-12
    temporal = DATA.model_copy(update={"kind": "temporal", "cuts": cuts, "departures": ("in the file's order",)})
    domain = CLOTH.model_validate({**CLOTH.model_dump(), "split": {"kind": "temporal"}, "filters": {"ties": "asin"}})
    split = full_ranking(domain, temporal).split
    assert (split.kind, split.order, split.ties) == ("temporal", "time", "asin")
    assert (split.validation_from, split.test_from) == ("2016-02-11", "2016-07-12")
    assert split.departures == ("in the file's order",)
    assert full_ranking(CLOTH, DATA).split.ties == "hash"
