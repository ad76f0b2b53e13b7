"""The chain from raw data to report, materialised for real: what it must leave behind, and that it can be trusted."""

import json
import math

import numpy as np
import polars as pl
import pytest

from evaluation.records import ResultRecord
from models.files import load_recommender
from models.sequences import Sequences
from models.slmrec.teacher_states import TeacherStates
from tests.orchestration.workplace import Workplace

BASELINES = {"popularity", "item_knn", "successor_graph", "text_graph", "sasrec", "sasrec_text", "bsarec"}
RECOMMENDERS = {*BASELINES, "teacher", "student", "narrow_student", "mixed_student"}
BY_STEPS = {"bsarec", "sasrec", "sasrec_text", "teacher", "student", "narrow_student"}
PROTOCOLS = {"full", "sampled_10"}


def records_of(place: Workplace) -> dict[tuple[str, str], ResultRecord]:
    return {(record.recommender, record.key): record for record in place.results().records()}


def ranks_of(place: Workplace, recommender: str) -> pl.DataFrame:
    return pl.read_parquet(place.results().judged[recommender].evaluation / "ranks.parquet")


def test_every_recommender_is_judged_once_under_both_protocols(finished: Workplace) -> None:
    judged = finished.results().judged
    assert set(judged) == RECOMMENDERS
    assert {one.evaluation for one in judged.values()} == set((finished.home / "results/tiny").iterdir())
    for name, one in judged.items():
        assert one.identity == finished.checkpoint(name).name
        assert {path.name for path in one.evaluation.iterdir()} == {
            "full.json",
            "sampled_10.json",
            "ranks.parquet",
            "SHA256SUMS",
        }


def test_every_record_holds_up(finished: Workplace) -> None:
    splits = pl.read_parquet(finished.home / "tables/splits/tiny/splits.parquet")
    items = pl.read_parquet(finished.home / "tables/splits/tiny/items.parquet")
    users = splits.filter(pl.col("split") == "test").height
    results, records = finished.results(), records_of(finished)
    assert set(records) == {(name, key) for name in RECOMMENDERS for key in PROTOCOLS}
    for (name, _), record in records.items():
        assert (record.users, record.items, record.synthetic, record.training.profile) == (
            users,
            items.height,
            True,
            "tiny",
        )
        assert record.data_version == record.provenance.data_version == results.data_version
        assert record.evaluation_identity == results.judged[name].evaluation.name
        assert record.provenance.identity == results.judged[name].identity
        means = {metric: interval.mean for metric, interval in record.metrics.items() if interval}
        assert 0 < means["hr_at_1"] <= means["ndcg_at_5"] <= means["hr_at_5"] <= means["hr_at_10"] < 1
        assert means["ndcg_at_5"] <= means["ndcg_at_10"]
        assert means["hr_at_1"] <= means["mrr"] < 1
        assert all(one and one.low <= one.mean <= one.high for one in record.metrics.values())
        assert bool(record.training.curve) == (name in BY_STEPS)
        assert record.training.scaled_down == (name in ("teacher", "student"))
        assert record.training.parameters > 0
        assert record.provenance.mlflow_run
        assert record.provenance.dagster_run


def test_the_candidates_make_the_sampled_task_easier(finished: Workplace) -> None:
    """10 of about 50 unseen items: the target meets fewer competitors than in the full catalogue."""
    records = records_of(finished)
    for name in RECOMMENDERS:
        full, sampled = (records[name, key].metrics["ndcg_at_10"] for key in ("full", "sampled_10"))
        assert full
        assert sampled
        assert sampled.mean > full.mean


@pytest.mark.parametrize("name", sorted(RECOMMENDERS))
def test_the_metrics_are_those_of_the_ranks_that_are_kept(finished: Workplace, name: str) -> None:
    """HR@10, NDCG@10 and MRR once more by hand; among candidates, HR@1 by counting the draws without a better item."""
    rows, records = ranks_of(finished, name), records_of(finished)
    assert rows["exact"].all()
    ranks, candidates = rows["rank"].to_list(), rows["candidates"].to_list()
    full = records[name, "full"].metrics
    by_hand = {
        "hr_at_10": [rank <= 10 for rank in ranks],
        "ndcg_at_10": [1 / math.log2(rank + 1) if rank <= 10 else 0 for rank in ranks],
        "mrr": [1 / rank for rank in ranks],
    }
    for metric, values in by_hand.items():
        assert (full[metric] or pytest.fail(metric)).mean == pytest.approx(sum(values) / len(values))
    first = [math.comb(N - rank, 10) / math.comb(N - 1, 10) for rank, N in zip(ranks, candidates, strict=True)]
    sampled = records[name, "sampled_10"].metrics["hr_at_1"]
    assert sampled
    assert sampled.mean == pytest.approx(sum(first) / len(first))


def test_the_full_ranking_can_be_recomputed_by_hand(finished: Workplace) -> None:
    """SASRec's ranks once more, from its checkpoint and the tables, by sorting each user's scores."""
    test = pl.read_parquet(finished.home / "tables/splits/tiny/splits.parquet").filter(pl.col("split") == "test")
    recommender = load_recommender(finished.checkpoint("sasrec"))
    places = []
    for history, target in test.select("history", "target").iter_rows():
        scores = recommender.score(Sequences.from_lists([history]))[0].clone()
        scores[[item for item in history if item != target]] = -math.inf
        places.append(scores.argsort(descending=True).tolist().index(target) + 1)
    rows = ranks_of(finished, "sasrec")
    assert rows["user_id"].to_list() == test["user_id"].to_list()
    assert rows["target"].to_list() == test["target"].to_list()
    assert rows["history_length"].to_list() == test["history"].list.len().to_list()
    assert rows["rank"].to_list() == places


def test_the_student_is_compared_with_every_other_user_by_user(finished: Workplace) -> None:
    records, tables = records_of(finished), {table.protocol: table for table in finished.results().comparisons}
    assert set(tables) == PROTOCOLS
    for key, table in tables.items():
        assert (table.subject, table.metric) == ("student", "ndcg_at_10")
        assert {row.against for row in table.rows} == RECOMMENDERS - {"student"}
        for row in table.rows:
            ours, theirs = (records[name, key].metrics["ndcg_at_10"] for name in ("student", row.against))
            assert ours
            assert theirs
            assert row.difference.mean == pytest.approx(ours.mean - theirs.mean, abs=1e-12)
            assert row.difference.p <= row.adjusted <= 1
    ours, theirs = (
        np.where(rank <= 10, 1 / np.log2(rank + 1), 0)
        for rank in (ranks_of(finished, name)["rank"].to_numpy() for name in ("student", "sasrec"))
    )
    interval = next(row.difference for row in tables["full"].rows if row.against == "sasrec")
    wide = 1.96 * (ours - theirs).std(ddof=1) / math.sqrt(len(ours))
    assert interval.high - interval.low == pytest.approx(2 * wide, rel=0.15)


def test_every_distillation_term_was_trained_and_kept(finished: Workplace) -> None:
    training = json.loads((finished.checkpoint("student") / "training.json").read_bytes())
    curve = training["stages"]["training"]["curve"]
    for term in ("ce", "cos", "norm", "ms"):
        values = [point[term] for point in curve if term in point]
        assert len(values) > 3
        assert all(math.isfinite(value) for value in values)
        assert len(set(values)) > 3


def test_lineage_leads_back_to_the_data(finished: Workplace) -> None:
    assets = (*RECOMMENDERS, "item_embeddings", "item_text_embeddings", "teacher_rankings", "language_backbone")
    made = {name: finished.record(name)["provenance"] for name in assets}
    made["teacher_states"] = finished.record("teacher_states")["kept"]["provenance"]
    assert {one["data_version"] for one in made.values()} == {finished.results().data_version}
    upstream = {name: set(one["upstream"]) for name, one in made.items()}
    assert upstream == {
        **{name: set() for name in (*BASELINES, "language_backbone")},
        "item_text_embeddings": {"language_backbone"},
        **{name: {"item_text_embeddings"} for name in ("sasrec_text", "text_graph", "teacher_rankings")},
        "narrow_student": {"item_text_embeddings", "teacher_rankings"},
        "mixed_student": {"narrow_student", "text_graph"},
        "item_embeddings": {"sasrec"},
        "teacher": {"item_embeddings", "language_backbone"},
        "teacher_states": {"teacher"},
        "student": {"item_embeddings", "language_backbone", "teacher", "teacher_states"},
    }
    identity = {name: finished.checkpoint(name).name for name in assets}
    for one in made.values():
        assert all(given == identity.get(name, given) for name, given in one["upstream"].items())
    kept = finished.record("teacher_states")["kept"]["directory"]
    lie = {str(finished.checkpoint(name)) for name in assets} | {kept}
    assert lie == {str(path) for path in (finished.home / "checkpoints/tiny").iterdir()}


def test_what_the_checks_found_can_be_read_without_dagster(finished: Workplace) -> None:
    docs = finished.home / "data_docs/tiny"
    stages = ["raw", "item_texts", "interactions", "sequences", "splits", "dataset_statistics"]
    assert sorted(path.stem for path in docs.glob("*.html")) == sorted(["index", *stages])
    index = (docs / "index.html").read_text()
    for stage in stages:
        assert json.loads((docs / f"{stage}.json").read_text())["passed"]
        assert f'href="{stage}.html"' in index
    html = (finished.home / "reports/tiny/report.html").read_text()
    assert (docs / "index.html").as_uri() in html
    assert "core holds" in html


def test_the_teacher_was_run_once_for_all_of_the_students_steps(finished: Workplace) -> None:
    kept = finished.record("teacher_states")["kept"]
    states = TeacherStates.open(finished.home / "checkpoints/tiny" / kept["directory"].rpartition("/")[2])
    train = pl.read_parquet(finished.home / "tables/splits/tiny/splits.parquet").filter(pl.col("split") == "train")
    assert len(states.states) == train["history"].list.len().clip(upper_bound=10).sum()
    assert states.layers == (2, 4)


def test_it_says_what_it_did(finished: Workplace) -> None:
    progress = (finished.folder / "stderr.txt").read_text()
    for step in ("raw_reviews", "successor_graph", "teacher_states", "student", "evaluation_report", "challenger"):
        assert step in progress
    shown = (finished.folder / "stdout.txt").read_text()
    tables, _, closing = shown.partition("Challenger:")
    for words in ("Popularity", "SASRec", "Teacher", "Student", "NDCG@10", "whole catalogue", "1 + 10 candidates"):
        assert words in tables
    assert "The student's NDCG@10" in tables
    assert "Holm's correction" in tables
    first, report, ui, studies = closing.strip().splitlines()
    assert first.startswith(
        "slmrec-tiny-student: version 1 is the challenger (the results are of this very student; NDCG@10 over"
    )
    assert report.split()[-1] == str(finished.home / "reports/tiny/report.html")
    domains, profile = finished.folder / "domains.yaml", finished.folder / "tiny.yaml"
    assert ui.partition("make")[2] == f" ui DOMAINS={domains} PROFILES={profile}"
    assert studies.partition("make")[2] == f" studies DOMAINS={domains} PROFILES={profile} DOMAIN=tiny PROFILE=tiny"


def test_the_report_is_there(finished: Workplace) -> None:
    html = (finished.home / "reports/tiny/report.html").read_text()
    assert "Synthetic data" in html
    assert "<svg" in html
    own = f"DOMAINS={finished.folder / 'domains.yaml'} PROFILES={finished.folder / 'tiny.yaml'}"
    assert f"make studies {own} DOMAIN=tiny PROFILE=tiny" in html


def test_no_pickle_is_left_anywhere(finished: Workplace) -> None:
    suspects = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".joblib")
    assert [path for path in finished.home.rglob("*") if path.suffix in suspects] == []
    for path in finished.home.rglob("*.npy"):
        np.load(path, mmap_mode="r", allow_pickle=False)
