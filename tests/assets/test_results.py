"""The table of results and the report: they gather what was measured, and refuse what can't be compared."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assets.data import DatasetStatistics
from assets.registry.store import connect, dagster_run_url
from assets.results import RECOMMENDERS, Results, evaluation_report, gather, main_results, read_results, sentences
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint
from evaluation.sampling import expected
from evaluation.significance import compare
from models.baselines.item_knn import ItemKNNSettings, fit_item_knn
from models.baselines.popularity import PopularitySettings, fit_popularity
from models.baselines.successor_graph import SuccessorGraphSettings, fit_successor_graph
from tests.assets.conftest import Chain
from tests.assets.registry.tiny import judged, metadata_of, random_purchases, ring, trained, value_of
from tests.evaluation.made_up import STATISTICS

pytestmark = pytest.mark.usefixtures("tracked_home")

DOMAIN, DATASET = "gathered", random_purchases()
FITS = {
    "popularity": (fit_popularity, PopularitySettings()),
    "item_knn": (fit_item_knn, ItemKNNSettings(shrinkage=0.0)),
    "student": (fit_successor_graph, SuccessorGraphSettings()),
}


def recommenders(dataset: Any = DATASET) -> dict[str, Checkpoint]:
    return {name: judged(trained(name, *fit, dataset, DOMAIN), dataset) for name, fit in FITS.items()}


def ndcg(checkpoint: Checkpoint) -> np.ndarray:
    """NDCG@10 over the full catalogue, from the kept ranks."""
    ranks = pl.read_parquet(checkpoint.evaluation / "ranks.parquet")["rank"].to_numpy()
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0)


def test_the_table_names_what_it_measured() -> None:
    made = recommenders()
    results = gather(made, seed=7)
    assert results.data_version == DATASET.version
    assert {name: one.identity for name, one in results.judged.items()} == {
        name: checkpoint.identity for name, checkpoint in made.items()
    }
    assert len({one.identity for one in results.judged.values()}) == len(FITS)
    assert [(record.recommender, record.key) for record in results.records()] == [
        (name, key) for name in FITS for key in ("full", "sampled_3")
    ]
    for record in results.records():
        if record.key == "full":
            assert record.metrics["ndcg_at_10"].mean == pytest.approx(ndcg(made[record.recommender]).mean())


def test_the_comparisons_are_those_of_the_same_ranks() -> None:
    made = recommenders()
    tables = {table.protocol: table for table in gather(made, seed=7).comparisons}
    assert set(tables) == {"full", "sampled_3"}
    others = [name for name in made if name != "student"]
    for table in tables.values():
        assert (table.subject, table.metric, table.users) == ("student", "ndcg_at_10", 40)
        assert [row.against for row in table.rows] == others
    by_hand = [compare(ndcg(made["student"]), ndcg(made[name]), seed=7) for name in others]
    assert [row.difference for row in tables["full"].rows] == by_hand
    small, large = sorted(one.p for one in by_hand)
    adjusted = [min(1.0, 2 * small), min(1.0, max(2 * small, large))]
    assert sorted(row.adjusted for row in tables["full"].rows) == pytest.approx(adjusted)
    sampled = {name: expected(evaluation.ranks, 3) for name, evaluation in gather(made, seed=7).evaluations().items()}
    (first, _) = tables["sampled_3"].rows
    assert first.difference == compare(sampled["student"]["ndcg_at_10"], sampled["popularity"]["ndcg_at_10"], seed=7)
    assert gather(made, seed=8).comparisons != gather(made, seed=7).comparisons


def test_recommenders_of_different_data_are_refused() -> None:
    other = ring()
    mixed = recommenders() | {"popularity": recommenders(other)["popularity"]}
    with pytest.raises(ValueError, match="different data versions") as refusal:
        gather(mixed, seed=7)
    assert other.version in str(refusal.value)
    assert DATASET.version in str(refusal.value)
    assert "materialise them again" in str(refusal.value)


def test_a_recommender_that_was_never_judged_is_refused() -> None:
    made = recommenders()
    made["item_knn"] = made["item_knn"].model_copy(update={"evaluation": None})
    with pytest.raises(ValueError, match=f"item_knn has not been judged on domain '{DOMAIN}': materialise it again"):
        gather(made, seed=7)


def test_an_evaluation_that_is_gone_is_named() -> None:
    made = recommenders()
    gone = made["student"].model_copy(update={"evaluation": home.results_directory(DOMAIN, "gone")})
    with pytest.raises(ValueError, match="The evaluation of student is gone or damaged: materialise it again"):
        gather(made | {"student": gone}, seed=7)


def test_without_results_one_is_told_how_to_make_them() -> None:
    with pytest.raises(ValueError, match="no results of domain 'never': make run DOMAIN=never"):
        read_results("never")


def gathered(chain: Chain) -> Any:
    """`main_results` of the chain's recommenders under the profile that didn't train them."""
    return chain.wired.materialise(main_results, given=chain.checkpoints, config={"profile": {"profile": "second"}})


def written() -> dict[Path, int]:
    """When each file of the chain's evaluations was written."""
    return {path: path.stat().st_mtime_ns for path in (home.home() / "results/chained").glob("*/*")}


def test_each_result_tells_of_the_profile_that_trained_it_and_nothing_is_ranked(chain: Chain) -> None:
    before = written()
    assert len({path.parent for path in before}) == len(RECOMMENDERS)
    results = value_of(gathered(chain), "main_results")
    assert written() == before
    assert list(results.judged) == RECOMMENDERS
    for record in results.records():
        checkpoint = chain.checkpoints[record.recommender]
        assert (record.training.profile, record.provenance.profile, record.provenance.seed) == ("first", "first", 3)
        assert record.provenance.identity == checkpoint.identity
        assert record.training == checkpoint.training()
    told = {record.recommender: record.training.backbone for record in results.records()}
    for name in RECOMMENDERS:
        if name in ("teacher", "student"):
            assert "local model" in told[name]
            assert "width 16" in told[name]
        else:
            assert told[name] is None
    assert read_results("chained") == results


def test_main_results_are_tracked_and_shown(chain: Chain) -> None:
    result = gathered(chain)
    results, shown = value_of(result, "main_results"), metadata_of(result, "main_results")
    run = connect(home.mlflow_uri()).get_run(shown["mlflow_run"].rpartition("/")[2].partition("?")[0])
    for record in results.records():
        value = record.metrics["ndcg_at_10"].mean
        assert run.data.metrics[f"{record.recommender}/{record.key}/ndcg_at_10"] == pytest.approx(value)
    for name, checkpoint in chain.checkpoints.items():
        assert run.data.tags[f"slmrec.judged.{name}"] == checkpoint.identity
    assert [row.data["recommender"] for row in shown["full"].records] == RECOMMENDERS
    for sentence in sentences(results):
        assert sentence in shown["what it says"]
    assert "data:image/png;base64," in shown["chart"]


@pytest.mark.parametrize("delivered", ["student", "narrow_student"])
def test_what_the_profile_delivers_is_compared_with_all_others(chain: Chain, delivered: str) -> None:
    config = {"profile": {"overrides": {"delivery": {"recommender": delivered}}}}
    results = value_of(chain.wired.materialise(main_results, given=chain.checkpoints, config=config), "main_results")
    for table in results.comparisons:
        assert table.subject == delivered
        assert {row.against for row in table.rows} == set(RECOMMENDERS) - {delivered}


def statistics(version: str) -> DatasetStatistics:
    return DatasetStatistics(
        data_version=version, synthetic=True, raw=[], lines=0, quarantined={}, steps=[], values=STATISTICS
    )


def report(chain: Chain, results: Results, version: str, config: Mapping[str, Any] | None = None) -> Any:
    given: Mapping[str, Any] = {"main_results": results, "dataset_statistics": statistics(version)}
    return chain.wired.materialise(evaluation_report, given=given, config=config)


def test_the_report_says_what_was_compared_and_links_to_the_runs(chain: Chain) -> None:
    results = gather(chain.checkpoints, seed=5)
    result = report(chain, results, chain.wired.dataset.version)
    path = value_of(result, "evaluation_report").path
    assert path == home.report_directory("chained") / "report.html"
    page = html.unescape(path.read_text())
    assert len(sentences(results)) >= 2
    for sentence in sentences(results):
        assert sentence in " ".join(page.split())
    student = chain.checkpoints["student"].provenance
    assert f'href="{dagster_run_url(student.dagster_run)}"' in page
    assert f"/runs/{student.mlflow_run}?workflowType=machine_learning" in page
    assert "<code>make studies DOMAIN=chained PROFILE=first</code> makes them" in page
    assert metadata_of(result, "evaluation_report")["records"] == 2 * len(RECOMMENDERS)


def test_the_report_names_the_command_that_makes_the_studies_of_this_very_run(chain: Chain) -> None:
    config = {"profile": {"profile": "second"}, "domains": {"as_of": "2018-09-26"}}
    results = gather(chain.checkpoints, seed=5)
    path = value_of(report(chain, results, chain.wired.dataset.version, config), "evaluation_report").path
    page = " ".join(html.unescape(path.read_text()).split())
    assert "<code>make studies DOMAIN=chained PROFILE=second AS_OF=2018-09-26</code> makes them" in page


def test_statistics_of_other_data_are_refused(chain: Chain) -> None:
    results, path = gather(chain.checkpoints, seed=5), home.report_directory("chained") / "report.html"
    path.unlink(missing_ok=True)
    with pytest.raises(ValueError, match="dataset_statistics describes data version 0123") as refusal:
        report(chain, results, "0123")
    assert results.data_version in str(refusal.value)
    assert "materialise both again for domain 'chained'" in str(refusal.value)
    assert not path.exists()
