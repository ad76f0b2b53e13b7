"""`online_distillation_study`: who trains with whom, what is followed, and whether the teacher is shielded from it."""

from dataclasses import replace

import pytest
import torch

from assets.inputs.validated_rows import ValidatedRows
from models.recommender import Recommender
from models.slmrec.student import OnlineSettings, fit_online
from models.training.course import Course
from tests.assets.studies.finished import Studied, with_changes
from tests.assets.tiny import STUDENT, TEACHER

pytestmark = pytest.mark.usefixtures("tracked_home")

STUDY = "online_distillation_study"
LOGITS = replace(STUDENT.distillation, lambda_cos=0.0, lambda_norm=0.0, lambda_ms=0.0, lambda_kl=1.5)
STATES = {"ce", "cos", "norm", "ms"}


def online(*, detached: bool, distillation=STUDENT.distillation) -> OnlineSettings:
    return OnlineSettings(
        model=STUDENT.model,
        distillation=distillation,
        training=STUDENT.training,
        teacher=TEACHER.model,
        detached=detached,
    )


@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize(
    ("cell", "settings"),
    [
        ("offline_logits", replace(STUDENT, distillation=LOGITS)),
        ("online", online(detached=True)),
        ("online_attached", online(detached=False)),
        ("online_logits", online(detached=True, distillation=LOGITS)),
    ],
)
def test_a_cell_is_trained_with_the_settings_of_its_row(
    studied: Studied, cell: str, settings: OnlineSettings, seed: int
) -> None:
    assert studied.settings(STUDY, f"{cell}-s{seed}") == settings
    (recipe,) = [one.recipe for one in studied.followed if one.recipe.name == f"{STUDY}/{cell}-s{seed}"]
    assert recipe.seed == seed
    assert recipe.inputs.facts() == {"validation_users": 15, "validation_seed": 5}
    assert recipe.inputs.data_version == studied.chain.dataset.version


@pytest.mark.parametrize(
    ("cell", "label", "terms"),
    [
        ("offline", "offline, states", STATES),
        ("offline_logits", "offline, logits alone", {"ce", "kl"}),
        ("online", "online, states, detached", {*STATES, "teacher_ce"}),
        ("online_attached", "online, states, not detached (as released)", {*STATES, "teacher_ce"}),
        ("online_logits", "online, logits alone, detached", {"ce", "kl", "teacher_ce"}),
    ],
)
def test_a_row_follows_what_its_label_says(studied: Studied, cell: str, label: str, terms: set[str]) -> None:
    assert studied.row(STUDY, cell).label == label
    assert studied.terms(STUDY, f"{cell}-s7") == studied.terms(STUDY, f"{cell}-s8") == terms


def test_detached_rows_shield_the_teacher_from_the_students_terms_and_the_other_does_not(studied: Studied) -> None:
    """Trained again by hand with either flag, each row's student comes out bit for bit, and the other's doesn't."""
    made, inputs = studied.chain.checkpoints, ValidatedRows(studied.chain.dataset, 15, 5)
    upstream = {name: made[name].directory for name in ("item_embeddings", "language_backbone")}
    by_hand = {
        flag: fit_online(inputs.load(upstream), online(detached=flag), Course(seed=7, validate=inputs.validate()))
        for flag in (True, False)
    }
    for cell, flag in (("online", True), ("online_attached", False)):
        row = studied.recommender(STUDY, f"{cell}-s7")
        assert same_weights(row, by_hand[flag].recommender)
        assert not same_weights(row, by_hand[not flag].recommender)


def test_online_rows_stand_on_no_teacher_and_offline_ones_on_the_chains(studied: Studied) -> None:
    made = studied.chain.checkpoints
    together = {"item_embeddings", "language_backbone"}
    for cell in ("offline", "offline_logits", "online", "online_attached", "online_logits"):
        record = studied.evaluations[STUDY][f"{cell}-s8"].records[0]
        read = together if cell.startswith("online") else {*together, "teacher", "teacher_states"}
        assert record.provenance.upstream == {name: made[name].identity for name in read}
        assert record.upstream_seconds == {name: made[name].seconds for name in (*read, "sasrec")}


def test_all_rows_are_compared_with_offline_states(studied: Studied) -> None:
    rows = studied.records[STUDY].tables[0].rows
    compared = {row.name: row.difference.reference for row in rows if row.difference}
    assert compared == dict.fromkeys(("offline_logits", "online", "online_attached", "online_logits"), "offline")


def test_logits_are_weighted_by_the_profiles_lambda_and_states_not_at_all(studied: Studied) -> None:
    for cell in ("offline_logits", "online_logits"):
        ways = studied.settings(STUDY, f"{cell}-s7").distillation
        assert (ways.lambda_kl, ways.lambda_cos, ways.lambda_norm, ways.lambda_ms) == (1.5, 0.0, 0.0, 0.0)
    assert with_changes(STUDENT, {"lambda_kl": 1.5}).distillation != LOGITS


def same_weights(one: Recommender, other: Recommender) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
