"""`depth_study`: recommenders at their own depth, and the teacher read out early, normed and raw."""

from dataclasses import replace

import pytest
import torch

from assets.configuration.profiles import load_profile
from assets.studies.cells import StudyRun
from assets.studies.depth import _trained, depths, read_out_early
from models.sequences import Sequences
from models.training.config import TrainingConfig
from tests.assets.studies.by_hand import ByHand
from tests.assets.studies.finished import Studied
from tests.assets.tiny import DOMAIN, TEACHER, Chain

pytestmark = pytest.mark.usefixtures("tracked_home")

STUDY = "depth_study"


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("seed", [7, 8])
def test_a_depth_is_trained_at_that_depth_and_as_the_teacher_is(studied: Studied, layers: int, seed: int) -> None:
    cell = f"trained_{layers}-s{seed}"
    assert studied.recommender(STUDY, cell).settings == replace(TEACHER.model, layers=layers)
    record = studied.evaluations[STUDY][cell].records[0]
    assert record.training.settings["training"] == vars(TEACHER.training)
    made = studied.chain.checkpoints
    assert record.provenance.upstream == {
        name: made[name].identity for name in ("item_embeddings", "language_backbone")
    }
    assert studied.terms(STUDY, cell) == {"ce"}


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
def test_raw_read_outs_are_raw_and_normed_ones_normed(studied: Studied, by_hand: ByHand, layer: int) -> None:
    """The residual stream is caught behind the layer, and ranked with by hand; both ways rank differently."""
    raw = by_hand.ranks(lambda stream: stream[layer])
    with_norm = by_hand.ranks(lambda stream: by_hand.normed(stream[layer]))
    found = studied.evaluations[STUDY]
    assert found[f"raw_{layer}-s7"].ranks.rank.tolist() == raw
    assert found[f"normed_{layer}-s7"].ranks.rank.tolist() == with_norm
    assert raw != with_norm


def test_a_read_out_is_the_teacher_up_to_a_layer(studied: Studied) -> None:
    """What it scores with is what stands behind that layer, whole in the last one."""
    teacher = studied.chain.checkpoints["teacher"]
    histories = Sequences.from_lists([row[:-1] for row in studied.chain.rows])
    whole = studied.recommender(STUDY, "trained_4-s7").for_inference().score(histories)
    last = read_out_early(teacher.directory, 4, normed=True).score(histories)
    torch.testing.assert_close(last[:, 1:], whole[:, 1:], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(read_out_early(teacher.directory, 3, normed=True).score(histories)[:, 1:], whole[:, 1:])


def test_the_teachers_own_training_is_a_row_and_says_what_the_whole_read_out_says(studied: Studied) -> None:
    trained, read_out = (studied.evaluations[STUDY][cell] for cell in ("trained_4-s7", "normed_4-s7"))
    assert trained.ranks.rank.tolist() == read_out.ranks.rank.tolist()
    assert trained.records[0].metrics == read_out.records[0].metrics
    mine = studied.chain.checkpoints["teacher"].training()
    assert trained.records[0].training == mine
    assert studied.identity(STUDY, "trained_4-s8") != studied.chain.checkpoints["teacher"].identity


def test_reading_out_costs_the_teachers_training_alone(studied: Studied) -> None:
    made = studied.chain.checkpoints
    below = ("sasrec", "item_embeddings", "language_backbone")
    parameters = []
    for layer in (1, 2, 3, 4):
        for kind in ("normed", "raw"):
            record = studied.evaluations[STUDY][f"{kind}_{layer}-s7"].records[0]
            assert (record.training.stages, record.provenance.identity) == ({}, made["teacher"].identity)
            row = studied.row(STUDY, f"{kind}_{layer}")
            seconds = made["teacher"].seconds + sum(made[name].seconds for name in below)
            assert row.total_training_seconds.mean == pytest.approx(seconds)
            assert row.noise is None
        parameters.append(record.training.parameters)
    assert parameters == sorted(set(parameters))


def test_rows_stand_at_their_depth_on_three_lines(studied: Studied) -> None:
    rows = studied.records[STUDY].tables[0].rows
    assert {row.name: (row.place.line, row.place.layers) for row in rows} == {
        **{f"normed_{layer}": ("teacher read out early, normed", layer) for layer in (1, 2, 3, 4)},
        **{f"raw_{layer}": ("teacher read out early, raw", layer) for layer in (1, 2, 3, 4)},
        **{f"trained_{layers}": ("trained at that depth", layers) for layers in (1, 4)},
    }
    compared = {row.name: row.difference.reference for row in rows if row.difference}
    read_out = {f"{kind}_{layer}" for kind in ("normed", "raw") for layer in (1, 2, 3, 4)} - {"normed_4"}
    assert compared == {**dict.fromkeys(read_out, "normed_4"), "trained_1": "trained_4"}


def test_the_norms_weights_are_told(studied: Studied) -> None:
    weights = studied.recommender(STUDY, "trained_4-s7").norm.weight.detach()
    told = f"from {weights.min():.3f} to {weights.max():.3f}"
    assert told in studied.records[STUDY].notes


@pytest.mark.parametrize(("chosen", "expected"), [([4, 1], (1, 4)), ([3], (3,)), (None, (1, 2, 4))])
def test_without_depths_the_teachers_is_halved(tiny_chain: Chain, chosen: list | None, expected: tuple) -> None:
    profile = load_profile(tiny_chain.folder / "tiny.yaml", DOMAIN, {"studies": {"depths": chosen}})
    assert depths(profile) == expected


def test_the_studies_own_training_takes_the_teachers_place(tiny_chain: Chain) -> None:
    own = {"studies": {"training": {"learning_rate": 0.5, "max_steps": 2}}}
    profile = load_profile(tiny_chain.folder / "tiny.yaml", DOMAIN, own)
    study = StudyRun(None, None, profile, tiny_chain.dataset, None)  # type: ignore[arg-type]
    settings = _trained(study, 1, tiny_chain.checkpoints["teacher"]).recipe.settings
    assert settings.model == replace(TEACHER.model, layers=1)
    assert settings.training == TrainingConfig(learning_rate=0.5, max_steps=2)
