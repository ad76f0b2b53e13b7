"""bfloat16: what is computed in it, how far that is from float32, and that the fast path differs no more than so."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.files import load_recommender, save_recommender
from models.slmrec.layers import read_out
from models.slmrec.recommender import LLMRecommender
from tests.models.recommenders import HISTORIES, batch_of, recommender_on


def states_and_loss(recommender: LLMRecommender, *, autocast: bool) -> tuple[list[Tensor], Tensor]:
    """The raw states after each layer, one after another, and the loss."""
    batch = batch_of(recommender)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), torch.no_grad():
        states = recommender.supervised_states(batch["items"], batch["lengths"], (1, 2, 3), normed=False)
        return states, recommender(**batch)["loss"]


def distance(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest number."""
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_the_fast_path_is_the_plain_one_to_bfloat16s_rounding(backbone: Path, objective: str) -> None:
    fast, plain = (
        recommender_on(backbone, objective=objective, shared_prompt=on, length_buckets=on).train()
        for on in (True, False)
    )
    exact, loss_exact = states_and_loss(plain, autocast=False)
    (found, loss), (expected, loss_plain) = (states_and_loss(side, autocast=True) for side in (fast, plain))
    for of_fast, of_plain, in_full in zip(found, expected, exact, strict=True):
        assert of_fast.dtype == of_plain.dtype == torch.float32, "the residual stream is summed up in full"
        assert distance(of_fast, of_plain) < 2**-6, "each rounds in its own way"
        assert distance(of_fast, in_full) < 2**-5
    assert loss.item() == pytest.approx(loss_plain.item(), rel=2**-8)
    assert loss.item() == pytest.approx(loss_exact.item(), rel=2**-7)


@pytest.fixture
def held(backbone: Path) -> LLMRecommender:
    recommender = recommender_on(backbone)
    recommender.decoder.hold_in_bfloat16()
    return recommender


def test_frozen_matrices_alone_are_held_in_bfloat16(backbone: Path, held: LLMRecommender) -> None:
    in_bfloat16 = {name for name, tensor in held.named_parameters() if tensor.dtype == torch.bfloat16}
    frozen = {name for name, p in held.decoder.named_parameters() if p.ndim == 2 and not p.requires_grad}
    assert in_bfloat16 == {f"decoder.{name}" for name in frozen}
    assert len(frozen) == 3 * 7
    assert {tensor.dtype for name, tensor in held.named_parameters() if name not in in_bfloat16} == {torch.float32}
    assert held.decoder.in_bfloat16
    trained = recommender_on(backbone, tuned="all")
    trained.decoder.hold_in_bfloat16()
    assert not trained.decoder.in_bfloat16, "what is trained stays in full"


def test_held_weights_change_no_number_of_a_training_in_bfloat16(backbone: Path, held: LLMRecommender) -> None:
    """Neither states nor loss nor gradients: autocast rounds frozen matrices to the same numbers."""
    plain = recommender_on(backbone)
    gradients = []
    for recommender in (plain, held):
        with torch.autocast("cpu", torch.bfloat16):
            loss = recommender(**batch_of(recommender))["loss"]
        loss.backward()
        gradients.append({name: p.grad for name, p in recommender.named_parameters() if p.requires_grad})
    assert all(gradient.dtype == torch.float32 for gradient in gradients[1].values())
    assert all(torch.equal(gradient, gradients[0][name]) for name, gradient in gradients[1].items())
    (states, loss), (expected, loss_plain) = (states_and_loss(side, autocast=True) for side in (held, plain))
    assert all(map(torch.equal, states, expected))
    assert torch.equal(loss, loss_plain)


def test_held_layers_are_run_in_bfloat16_wherever_they_are_used(backbone: Path, held: LLMRecommender) -> None:
    """Ranking, and a teacher's outputs: their callers know nothing of the precision."""
    plain = recommender_on(backbone)
    (states, _), (expected, _) = states_and_loss(held, autocast=False), states_and_loss(plain, autocast=True)
    for state, of_plain in zip(states, expected, strict=True):
        assert state.dtype == torch.float32
        assert distance(state, of_plain) < 2**-5  # the adapters are in full now
    assert 0 < distance(held.represent(HISTORIES), plain.represent(HISTORIES)) < 2**-5


def test_a_checkpoint_keeps_what_is_held(held: LLMRecommender, tmp_path: Path) -> None:
    """Half the bytes; the layers come back as they were, and so do the scores."""
    save_recommender(held, tmp_path / "held")
    loaded = load_recommender(tmp_path / "held")
    assert isinstance(loaded, LLMRecommender)
    assert [tensor.dtype for tensor in loaded.parameters()] == [tensor.dtype for tensor in held.parameters()]
    assert torch.equal(loaded.score(HISTORIES), held.score(HISTORIES))


def test_folded_lora_stays_in_bfloat16_to_its_rounding(backbone: Path, held: LLMRecommender) -> None:
    """Folded or not, it lies about as far from float32."""
    exact, before = recommender_on(backbone).represent(HISTORIES), held.represent(HISTORIES)
    folded = deepcopy(held).for_inference()
    assert folded.decoder.in_bfloat16
    assert 0 < distance(folded.represent(HISTORIES), exact) < 2 * distance(before, exact) < 2**-5


def test_who_is_made_of_held_layers_has_them_in_full_and_a_read_out_holds_them_too(held: LLMRecommender) -> None:
    student = LLMRecommender.from_teacher(held.settings, held, seed=0)
    assert {tensor.dtype for tensor in student.parameters()} == {torch.float32}
    first = student.decoder.layers[0].mlp.up_proj.lora_A.default.weight
    assert not torch.equal(first, first.bfloat16().float()), "drawn in full, next to matrices in full"
    shallow = read_out(held, 2, normed=True)
    assert shallow.decoder.in_bfloat16
    assert shallow.represent(HISTORIES).shape == (len(HISTORIES), held.items_VD.shape[1])
