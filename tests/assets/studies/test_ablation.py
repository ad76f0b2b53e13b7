"""`ablation_study`: each row is the profile's student with just that changed which its label says."""

from dataclasses import replace
from typing import Any

import pytest

from assets.configuration.profiles import Profile, load_profile
from assets.studies.ablation import Variant, student_cell, variants
from assets.studies.cells import StudyRun
from assets.workspace.identity import plain
from models.slmrec.distillation import DistillationConfig
from models.training.config import TrainingConfig
from tests.assets.studies.finished import Studied, with_changes
from tests.assets.studies.test_cells import ABLATION
from tests.assets.tiny import DOMAIN, STUDENT, Chain

pytestmark = pytest.mark.usefixtures("tracked_home")

TERMS = {
    "ce": {"ce"},
    "ce_ms": {"ce", "ms"},
    "cos": {"ce", "cos"},
    "cos_norm": {"ce", "cos", "norm"},
    "cos_ms": {"ce", "cos", "ms"},
    "all": {"ce", "cos", "norm", "ms"},
    "all_b1": {"ce", "cos", "norm"},
    "all_random": {"ce", "cos", "norm", "ms"},
    "all_random_trained": {"ce", "cos", "norm", "ms"},
}
SETTINGS = {
    "ce": with_changes(STUDENT, {"lambda_cos": 0.0, "lambda_norm": 0.0, "lambda_ms": 0.0}),
    "ce_ms": with_changes(STUDENT, {"lambda_cos": 0.0, "lambda_norm": 0.0}),
    "cos": with_changes(STUDENT, {"lambda_norm": 0.0, "lambda_ms": 0.0}),
    "cos_norm": with_changes(STUDENT, {"lambda_ms": 0.0}),
    "cos_ms": with_changes(STUDENT, {"lambda_norm": 0.0}),
    "all": STUDENT,
    "all_b1": with_changes(STUDENT, {"blocks": 1}),
    "all_random": with_changes(STUDENT, {"start": "random"}),
    "all_random_trained": with_changes(
        replace(STUDENT, model=replace(STUDENT.model, tuned="all")), {"start": "random"}
    ),
}
ALONE = {"item_embeddings", "language_backbone"}
TAUGHT = {*ALONE, "teacher", "teacher_states"}


def profile(chain: Chain, **student: Any) -> Profile:
    return load_profile(chain.folder / "tiny.yaml", DOMAIN, {"student": student})


@pytest.mark.parametrize("row", ABLATION)
def test_a_rows_loss_has_the_terms_of_its_label(studied: Studied, row: str) -> None:
    for seed in (7, 8):
        assert studied.terms("ablation_study", f"{row}-s{seed}") == TERMS[row]


@pytest.mark.parametrize("row", ABLATION)
def test_a_row_is_trained_with_the_profiles_weights_and_rate(studied: Studied, row: str) -> None:
    for seed in (7, 8):
        told = studied.evaluations["ablation_study"][f"{row}-s{seed}"].records[0].training.settings
        assert told == plain(SETTINGS[row])


def test_a_row_stands_on_the_teacher_only_where_it_looks_at_one(studied: Studied) -> None:
    made = studied.chain.checkpoints
    for row in ABLATION:
        record = studied.evaluations["ablation_study"][f"{row}-s8"].records[0]
        read = ALONE if row in ("ce", "ce_ms") else TAUGHT
        assert record.provenance.upstream == {name: made[name].identity for name in read}
        assert record.upstream_seconds == {name: made[name].seconds for name in (*read, "sasrec")}


def test_all_rows_are_compared_with_the_whole(studied: Studied) -> None:
    rows = studied.records["ablation_study"].tables[0].rows
    assert [row.name for row in rows] == list(ABLATION)
    compared = {row.name: row.difference.reference for row in rows if row.difference}
    assert compared == {name: "all" for name in ABLATION if name != "all"}


def test_every_weight_of_the_layers_is_trained_in_one_row(studied: Studied) -> None:
    lora, every = (
        studied.evaluations["ablation_study"][f"{name}-s7"].records[0].training
        for name in ("all_random", "all_random_trained")
    )
    assert lora.trainable_parameters < lora.parameters / 2
    norms_and_maps = every.parameters - every.trainable_parameters
    assert norms_and_maps < every.parameters / 2


def test_each_variant_is_the_students_with_something_left_out(tiny_chain: Chain) -> None:
    ways = {"blocks": 4, "lambda_cos": 2.0, "lambda_norm": 0.3, "lambda_ms": 1.0}
    of_four = profile(tiny_chain, model={"layers": 4}, distillation=ways)
    whole, found = DistillationConfig(**ways), variants(of_four)
    changed = {name: variant.model for name, variant in found.items() if variant.model != of_four.student.model}
    assert changed == {"all_random_trained": replace(of_four.student.model, tuned="all")}
    assert {name: variant.distillation for name, variant in found.items()} == {
        "ce": replace(whole, lambda_cos=0.0, lambda_norm=0.0, lambda_ms=0.0),
        "ce_ms": replace(whole, lambda_cos=0.0, lambda_norm=0.0),
        "cos": replace(whole, lambda_norm=0.0, lambda_ms=0.0),
        "cos_norm": replace(whole, lambda_ms=0.0),
        "cos_ms": replace(whole, lambda_norm=0.0),
        "all": whole,
        "all_b1": replace(whole, blocks=1),
        "all_b2": replace(whole, blocks=2),
        "all_random": replace(whole, start="random"),
        "all_random_trained": replace(whole, start="random"),
    }


def test_random_layers_are_not_quantised(tiny_chain: Chain) -> None:
    found = variants(profile(tiny_chain, model={"quantization": "8bit"}))
    held = {name: variant.model.quantization for name, variant in found.items()}
    assert {name for name, quantization in held.items() if quantization == "none"} == {
        "all_random",
        "all_random_trained",
    }


def test_no_row_twice_where_every_weight_is_trained_anyway(tiny_chain: Chain) -> None:
    assert set(variants(profile(tiny_chain, model={"tuned": "all"}))) == set(ABLATION) - {"all_random_trained"}


def test_random_layers_are_those_of_no_teacher(tiny_chain: Chain) -> None:
    """A profile whose student starts from chosen layers of its teacher has a control all the same."""
    found = variants(profile(tiny_chain, distillation={"start": "teacher", "layers": "interval"}))
    assert (found["all"].distillation.start, found["all"].distillation.layers) == ("teacher", "interval")
    assert (found["all_random"].distillation.start, found["all_random"].distillation.layers) == ("random", "first")


def test_the_studies_own_training_takes_the_students_place(tiny_chain: Chain) -> None:
    own = {"studies": {"training": {"learning_rate": 0.5, "max_steps": 2}}}
    changed = load_profile(tiny_chain.folder / "tiny.yaml", DOMAIN, own)
    study = StudyRun(None, None, changed, tiny_chain.dataset, None)  # type: ignore[arg-type]
    variant = Variant("all", STUDENT.distillation, STUDENT.model)
    cell = student_cell(study, "all", variant, tiny_chain.values["teacher_states"], reference=None)
    wanted = TrainingConfig(learning_rate=0.5, max_steps=2)
    assert cell.recipe.settings == replace(STUDENT, training=wanted)
