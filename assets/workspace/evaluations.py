"""Evaluations: a recommender's rank of each test user, taken once and kept, and what follows from the ranks.

An evaluation is a directory, `results/<domain>/<identity>`, of a record for each protocol, `ranks.parquet`, and
`SHA256SUMS` of them all. The ranks are a row a test user: the rank of the target among how many candidates, how often
the target was bought in training, and the history's length. From these rows follow any cut-off, slices, sampled metrics
and paired comparisons, with no model run. An evaluation's identity is a hash of the checkpoint's, the data version, the
protocol and the code that ranks; while these stand it is used again.
"""

import datetime as dt
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from assets.amazon.dataset import Dataset
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint, damaged_files
from assets.workspace.identity import code_hash, plain
from evaluation.provenance import short_hash

if TYPE_CHECKING:
    from assets.configuration.domains import Domain
    from assets.configuration.profiles import EvaluationProfile
    from evaluation.cost import Cost
    from evaluation.metrics import Ranks
    from evaluation.protocols import FullRanking, Protocol
    from evaluation.records import ResultRecord
    from models.recommender import AnyRecommender

RANKS, SUMS = "ranks.parquet", "SHA256SUMS"

logger = logging.getLogger("slmrec.evaluations")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation left.

    Attributes:
        directory: of its files.
        records: one a protocol, full ranking first.
    """

    directory: Path
    records: "tuple[ResultRecord, ...]"

    @property
    def ranks(self) -> "Ranks":
        """Each test user's rank among all unseen items, and among drawn candidates where there are such."""
        from evaluation.metrics import Ranks

        rows = pl.read_parquet(self.directory / RANKS)
        exact = rows["exact"].to_numpy()
        drawn = {
            record.key: Ranks(rows[record.key].to_numpy(), np.full(rows.height, record.protocol.candidates + 1), exact)
            for record in self.records
            if record.protocol.kind == "drawn"
        }
        return Ranks(rows["rank"].to_numpy(), rows["candidates"].to_numpy(), exact, drawn)

    def flat_metrics(self) -> dict[str, float]:
        """MLflow's names: `full/ndcg_at_10`."""
        return {f"{record.key}/{name}": mean for record in self.records for name, mean in record.means.items()}


def evaluate(
    checkpoint: Checkpoint,
    dataset: Dataset,
    domain: "Domain",
    rules: "EvaluationProfile",
    *,
    name: str | None = None,
    make: "functools.partial[Any] | None" = None,
    item_ids: Sequence[str] | None = None,
) -> Evaluation:
    """Rank the test targets by a recommender, or take the evaluation that lies there.

    Args:
        checkpoint: what is judged, or what `load` makes the recommender of.
        dataset: whose test part it is judged on.
        domain: for the record's words.
        rules: candidates and seeds.
        name: of the row that the result is; by default the checkpoint's.
        make: makes the recommender of the checkpoint's directory; by default it is read as it was saved. Its code and
            its arguments (of a `functools.partial`) are a part of the evaluation's identity.
        item_ids: the recommender's own raw item ids, item 1 first, where it was trained on another data version.

    Raises:
        ValueError: if it was trained on another data version and no `item_ids` are given, or its files are damaged.
    """
    from evaluation.intervals import summarise
    from evaluation.ranking import unknown
    from evaluation.records import ResultRecord, Unknown
    from evaluation.slices import slice_metrics
    from models.files import file_digests, staged_directory

    if item_ids is None:
        checkpoint.require_data(dataset.version)
    full = full_ranking(domain, dataset)
    identity = short_hash(
        plain(
            {
                "checkpoint": checkpoint.identity,
                "name": name,
                "made": [make.func.__qualname__, make.args, make.keywords] if make else None,
                "data_version": dataset.version,
                "rules": rules,
                "protocol": full.model_dump(mode="json"),
                "code": code_hash(
                    "evaluation.ranking",
                    "evaluation.protocols",
                    "evaluation.slices",
                    *([make.func.__module__] if make else []),
                ),
            }
        )
    )
    directory = home.results_directory(checkpoint.domain, identity)
    if found := find(directory):
        return found
    vocabulary = None if item_ids is None else vocabulary_of(dataset.item_ids, item_ids)
    histories, targets = dataset.histories("test"), dataset.targets("test")
    recommender, ranks, protocols, inference = _rank(checkpoint, dataset, rules, full, make, vocabulary)
    purchases = dataset.purchases()
    of_targets, of_histories = unknown(histories, targets, vocabulary)
    training = checkpoint.training()
    if make:  # made of the checkpoint without training, so it has no curve of its own
        training = training.model_copy(update={"stages": {}, "parameters": recommender.numbers_read()})
    records = tuple(
        ResultRecord(
            recommender=name or checkpoint.name,
            domain=domain.name,
            title=domain.title,
            synthetic=domain.synthetic,
            data_version=dataset.version,
            protocol=protocol,
            users=len(targets),
            items=dataset.n_items,
            metrics=summarise(values, rules.seed),
            slices=slice_metrics(values, purchases[targets], histories.lengths, purchases, seed=rules.seed),
            unknown=Unknown(targets=float(of_targets.mean()), histories=float(of_histories.mean())),
            training=training,
            provenance=checkpoint.provenance,
            evaluation_identity=identity,
            inference=inference,
            upstream_seconds=checkpoint.upstream_seconds(),
            seeds={"bootstrap": rules.seed},
        )
        for protocol in protocols
        for values in [protocol.values(ranks)]
    )
    rows = pl.DataFrame(
        {
            "user_id": dataset.users_of("test"),
            "target": targets,
            "target_purchases": purchases[targets],
            "history_length": histories.lengths,
            "rank": ranks.rank,
            "candidates": ranks.candidates,
            "exact": ranks.exact,
            **{key: among.rank for key, among in ranks.drawn.items()},
        }
    )
    with staged_directory(directory) as staged:
        rows.write_parquet(staged / RANKS, compression="zstd")
        for record in records:
            (staged / f"{record.key}.json").write_bytes(record.to_json())
        sums = (f"{sha256}  {file}\n" for file, sha256 in file_digests(staged).items())
        (staged / SUMS).write_text("".join(sums), encoding="utf-8")
    return Evaluation(directory, records)


def find(directory: Path) -> Evaluation | None:
    """The evaluation in a directory; None where there is none, or a damaged one, which the log names."""
    from evaluation.records import ResultRecord

    if not directory.is_dir():
        return None
    try:
        lines = (directory / SUMS).read_text(encoding="utf-8").splitlines()
        written = {name: sha256 for sha256, name in map(str.split, lines)}
        damaged = damaged_files(directory, written) if RANKS in written else [SUMS]
        names = sorted(written.keys() - {RANKS, *damaged}, key=lambda name: (not name.startswith("full"), name))
        records = tuple(ResultRecord.read(directory / name, "It is taken again.") for name in names)
        problem = f"{', '.join(damaged)} is not the file that was written" if damaged else ""
    except (ValueError, OSError) as error:
        problem = str(error)
    if problem:
        logger.warning("the evaluation %s can't be used again: %s", directory, problem)
        return None
    return Evaluation(directory, records)


def full_ranking(domain: "Domain", dataset: Dataset) -> "FullRanking":
    """The protocol of this domain's splits, over the full catalogue."""
    from evaluation.protocols import FullRanking, Split

    days = [dt.datetime.fromtimestamp(cut, dt.UTC).date().isoformat() for cut in dataset.cuts or ()]
    return FullRanking(
        split=Split(
            kind=domain.split.kind,
            order=domain.filters.order,
            ties=domain.filters.ties,
            **(dict(zip(("validation_from", "test_from"), days, strict=True)) if days else {}),
            departures=dataset.departures,
        )
    )


def vocabulary_of(raw_ids: Sequence[str], item_ids: Sequence[str]) -> np.ndarray:
    """int64 [V + 1]: what number a recommender whose items are `item_ids` gives each of the raw ids; 0 for none."""
    numbers = {raw: number for number, raw in enumerate(item_ids, start=1)}
    return np.array([0, *(numbers.get(raw, 0) for raw in raw_ids)], dtype=np.int64)


def _rank(
    checkpoint: Checkpoint,
    dataset: Dataset,
    rules: "EvaluationProfile",
    full: "FullRanking",
    make: "functools.partial[Any] | None",
    vocabulary: np.ndarray | None,
) -> "tuple[AnyRecommender, Ranks, list[Protocol], Cost]":
    """The recommender, the ranks of the test targets, the protocols that they serve, and what ranking took."""
    from evaluation.cost import measured
    from evaluation.protocols import ExpectedRanking, SampledRanking
    from evaluation.ranking import rank_targets
    from models.files import load_recommender

    histories, targets = dataset.histories("test"), dataset.targets("test")
    directory = checkpoint.verified()
    recommender = (make(directory) if make else load_recommender(directory)).for_inference()
    split, candidates = full.split, rules.candidates
    drawn = []
    if rules.sampling == "drawn":
        protocol = SampledRanking(split=split, candidates=candidates, seed=rules.seed)
        drawn = [protocol.fit(histories, targets, dataset.n_items)]
    with measured() as meter:
        ranks = rank_targets(recommender, histories, targets, vocabulary=vocabulary, drawn=drawn)
    expected = [] if drawn else [ExpectedRanking(split=split, candidates=candidates).fit(ranks)]
    return recommender, ranks, [full, *expected, *drawn], meter.cost
