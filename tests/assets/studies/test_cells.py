"""Cells of studies: trained with every seed, each once whoever asks for it, resumed where they were killed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dagster import AssetsDefinition

from assets.configuration.profiles import load_profile
from assets.registry.store import connect, ensure_experiment
from assets.studies.ablation import ablation_study
from assets.studies.depth import depth_study
from assets.studies.online import online_distillation_study
from assets.studies.theory import theory_check
from tests.assets.studies.finished import KILLED, SEEDS, STUDIES, Studied, ndcg_at_10
from tests.assets.tiny import DOMAIN, ITEMS, Chain, bought, dataset_of, materialise

pytestmark = pytest.mark.usefixtures("tracked_home")

ABLATION = ("ce", "ce_ms", "cos", "cos_norm", "cos_ms", "all", "all_b1", "all_random", "all_random_trained")
ONLINE = ("offline", "offline_logits", "online", "online_attached", "online_logits")
READ_OUT = tuple(f"{kind}_{layer}" for layer in (1, 2, 3, 4) for kind in ("normed", "raw"))
THEORY = ("whole", "one_layer", "one_step", "one_matrix")
ROWS = {
    "ablation_study": dict.fromkeys(ABLATION, SEEDS),
    "online_distillation_study": dict.fromkeys(ONLINE, SEEDS),
    "depth_study": {**dict.fromkeys(READ_OUT, (7,)), **dict.fromkeys(("trained_1", "trained_4"), SEEDS)},
    "theory_check": dict.fromkeys(THEORY, (7,)),
}
"""Study → row → its seeds. What is made of the teacher has the teacher's."""


@pytest.mark.parametrize("study", STUDIES)
def test_every_row_is_judged_with_every_seed_under_both_protocols(studied: Studied, study: str) -> None:
    cells = {f"{row}-s{seed}" for row, seeds in ROWS[study].items() for seed in seeds}
    assert set(studied.evaluations[study]) == cells
    for evaluation in studied.evaluations[study].values():
        assert [record.key for record in evaluation.records] == ["full", "sampled_3"]
    for table in studied.records[study].tables:
        assert {row.name: row.training_seeds for row in table.rows} == ROWS[study]
    assert [table.protocol.kind for table in studied.records[study].tables] == ["full", "expected"]


@pytest.mark.parametrize("study", STUDIES)
def test_each_ranking_is_announced(studied: Studied, study: str) -> None:
    """It takes minutes of a deep model, with nothing else to look at."""
    for row in studied.records[study].tables[0].rows:
        said = studied.told.count(f"{study}: ranking all users' targets by: {row.label}\n")
        assert said == len(row.training_seeds)


@pytest.mark.parametrize(
    ("study", "row"),
    [(study, row) for study, rows in ROWS.items() for row, seeds in rows.items() if seeds == SEEDS],
)
def test_each_seed_trains_other_weights(studied: Studied, study: str, row: str) -> None:
    first, second = (studied.evaluations[study][f"{row}-s{seed}"].records[0].provenance for seed in SEEDS)
    assert (first.seed, second.seed) == SEEDS
    assert first.files["model.safetensors"] != second.files["model.safetensors"]
    assert first.settings_hash == second.settings_hash
    assert first.upstream == second.upstream


def test_no_two_rows_of_a_study_are_one_training_under_two_names(studied: Studied) -> None:
    for study in ("ablation_study", "online_distillation_study"):
        identities = [studied.identity(study, cell) for cell in studied.evaluations[study]]
        assert len(set(identities)) == len(identities)


def test_what_a_study_shares_with_another_or_with_the_chain_is_trained_once(studied: Studied) -> None:
    made = studied.chain.checkpoints
    for seed in SEEDS:
        shared = studied.identity("online_distillation_study", f"offline-s{seed}")
        assert shared == studied.identity("ablation_study", f"all-s{seed}")
    assert studied.identity("ablation_study", "all-s7") == made["student"].identity
    assert studied.identity("depth_study", "trained_4-s7") == made["teacher"].identity
    names = [one.recipe.name for one in studied.followed]
    assert {name: count for name, count in Counter(names).items() if count > 1} == {}
    not_shared = {
        "ablation_study/all-s7",
        "depth_study/trained_4-s7",
        "online_distillation_study/offline-s7",
    }
    assert not not_shared & set(names)
    assert len({"ablation_study/all-s8", "online_distillation_study/offline-s8"} & set(names)) <= 1


def test_a_killed_study_trains_only_what_is_missing(studied: Studied) -> None:
    """What was finished stays as it was; all else is trained, and in all 28 trainings have been made."""
    finished = {path.name for path in studied.before}
    assert {studied.identity("ablation_study", f"{name}-s7") for name in ("ce", "ce_ms")} <= finished
    for path, written in studied.before.items():
        assert (path / "model.safetensors").stat().st_mtime_ns == written
    cells = {
        studied.identity(study, f"{row}-s{seed}")
        for study, rows in ROWS.items()
        for row, seeds in rows.items()
        for seed in seeds
    }
    trained_before = {studied.chain.checkpoints[name].identity for name in ("teacher", "student")}
    assert len(cells - trained_before) == 28
    assert len(studied.followed) == 28 - len(finished)


def test_the_killed_cell_goes_on_inside_its_training(studied: Studied) -> None:
    """It was killed in the third of four steps, and the second one's state was on disk."""
    resumed = {one.recipe.name: one.steps for one in studied.followed if one.resumed}
    assert resumed == {KILLED: {"training": 2}}
    others = [sum(one.steps.values()) for one in studied.followed if not one.resumed]
    assert set(others) == {4}
    stage = studied.evaluations["ablation_study"]["cos-s7"].records[0].training.stages["training"]
    assert (stage.steps, [point["step"] for point in stage.curve]) == (4, [1.0, 2.0, 3.0, 4.0])
    assert not list((studied.chain.home / "training").rglob("*.safetensors"))


def test_rows_hold_means_over_the_seeds_and_paired_differences(studied: Studied) -> None:
    """By hand, from each user's rank."""
    ranks = {cell: one.ranks.rank for cell, one in studied.evaluations["ablation_study"].items()}
    theirs = np.mean([ndcg_at_10(ranks[f"all-s{seed}"]) for seed in SEEDS], axis=0)
    for name in ABLATION:
        row = studied.row("ablation_study", name)
        by_seed = [ndcg_at_10(ranks[f"{name}-s{seed}"]) for seed in SEEDS]
        spread = row.metrics["ndcg_at_10"]
        assert spread.values == pytest.approx([users.mean() for users in by_seed])
        assert spread.deviation == pytest.approx(abs(by_seed[0].mean() - by_seed[1].mean()) / 2**0.5)
        if name == "all":
            assert row.difference is None
            continue
        users = np.mean(by_seed, axis=0) - theirs
        assert (row.difference.reference, row.difference.users.mean) == ("all", pytest.approx(users.mean()))
        assert row.difference.users.low <= users.mean() <= row.difference.users.high
        of_seeds = [(ndcg_at_10(ranks[f"{name}-s{seed}"]) - ndcg_at_10(ranks[f"all-s{seed}"])).mean() for seed in SEEDS]
        half = 12.7062 * abs(of_seeds[0] - of_seeds[1]) / 2  # t of one degree of freedom, times s over the root of 2
        assert row.difference.seeds == pytest.approx((users.mean() - half, users.mean() + half), abs=1e-5)


def test_a_row_costs_its_own_training_and_what_it_stands_on(studied: Studied) -> None:
    for study, rows in ROWS.items():
        for name, seeds in rows.items():
            row = studied.row(study, name)
            records = [studied.evaluations[study][f"{name}-s{seed}"].records[0] for seed in seeds]
            assert row.training_seconds.values == tuple(record.training.cost.seconds for record in records)
            assert row.total_training_seconds.values == tuple(record.total_training_seconds for record in records)


def test_each_cell_is_a_run_beneath_that_of_its_study_and_none_is_registered(studied: Studied) -> None:
    client = connect(studied.chain.store)
    runs = client.search_runs([ensure_experiment(client, DOMAIN)], "tags.`slmrec.asset` LIKE 'depth_study%'")
    (study,) = [run for run in runs if run.info.run_name == "depth_study" and run.info.status == "FINISHED"]
    cells = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == study.info.run_id]
    trained = {f"depth_study/trained_{layers}-s{seed}" for layers in (1, 4) for seed in SEEDS}
    assert {run.info.run_name for run in cells} == trained
    for run in cells:
        told = studied.evaluations["depth_study"][run.info.run_name.removeprefix("depth_study/")].flat_metrics()
        assert run.data.metrics["full/ndcg_at_10"] == pytest.approx(told["full/ndcg_at_10"])
        assert (run.info.status, run.data.params["seed"]) == ("FINISHED", run.info.run_name[-1])
    mean = studied.row("depth_study", "trained_1").metrics["ndcg_at_10"].mean
    assert study.data.metrics["full/trained_1/ndcg_at_10"] == pytest.approx(mean)
    assert client.search_registered_models(f"name LIKE 'slmrec-{DOMAIN}-%/%'") == []
    assert client.search_registered_models(f"name LIKE 'slmrec-{DOMAIN}-%_study%'") == []


def test_the_killed_runs_are_closed(studied: Studied) -> None:
    client = connect(studied.chain.store)
    runs = client.search_runs([ensure_experiment(client, DOMAIN)], "tags.`slmrec.asset` LIKE 'ablation_study%'")
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}
    assert {run.info.run_name for run in runs if run.info.status == "KILLED"} == {"ablation_study", KILLED}


@pytest.mark.parametrize("study", [ablation_study, depth_study, online_distillation_study, theory_check])
def test_a_teacher_of_other_splits_is_refused(tiny_chain: Chain, own_home: Path, study: AssetsDefinition) -> None:
    """Before it meets what it can't know, such as an item that has come since."""
    rows = bought(seed=1)
    rows[0][0] = ITEMS + 1
    other = dataset_of(rows)
    with pytest.raises(ValueError, match=r"materialise .* again") as refused:
        materialise(study, {**tiny_chain.values, "splits": other}, tiny_chain.folder)
    assert tiny_chain.dataset.version in str(refused.value)
    assert other.version in str(refused.value)
    assert not (own_home / "studies").exists()


@pytest.mark.parametrize(
    ("studies", "message"),
    [
        ({"seeds": [1, 1]}, "seeds must be different numbers"),
        ({"depths": [2, 9]}, "depth_study wants 9 layers of a backbone of 4"),
    ],
)
def test_a_profile_whose_studies_are_impossible_is_refused(tiny_chain: Chain, studies: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_profile(tiny_chain.folder / "tiny.yaml", DOMAIN, {"studies": studies})
