from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.losses.catalogue import catalogue_cross_entropy, catalogue_divergence, distilled_cross_entropy

N, D, V = 23, 5, 17


def problem(dtype: torch.dtype, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    h_ND = torch.randn(N, D, generator=generator, dtype=torch.float64) * scale
    table_VD = torch.randn(V, D, generator=generator, dtype=torch.float64) * scale
    targets_N = torch.randint(1, V, (N,), generator=generator)
    return h_ND.to(dtype).requires_grad_(), table_VD.to(dtype).requires_grad_(), targets_N


def dense(h_ND: Tensor, table_VD: Tensor, targets_N: Tensor) -> Tensor:
    """The plain road: all logits at once, without the padding column."""
    return nn.functional.cross_entropy((h_ND @ table_VD.T)[:, 1:], targets_N - 1)


@pytest.mark.parametrize("chunk", [None, 1, 7, N, 1000])
def test_value_and_gradients_agree_with_the_dense_loss(chunk: int | None) -> None:
    h_ND, table_VD, targets_N = problem(torch.float64)
    expected = dense(h_ND, table_VD, targets_N)
    expected_h, expected_table = torch.autograd.grad(3 * expected, (h_ND, table_VD))
    loss = catalogue_cross_entropy(h_ND, table_VD, targets_N, chunk=chunk)
    grad_h, grad_table = torch.autograd.grad(3 * loss, (h_ND, table_VD))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    assert (grad_h - expected_h).abs().max() < 1e-8
    assert (grad_table - expected_table).abs().max() < 1e-8


def test_gradients_agree_with_finite_differences() -> None:
    h_ND, table_VD, targets_N = problem(torch.float64)
    assert torch.autograd.gradcheck(lambda h, t: catalogue_cross_entropy(h, t, targets_N, chunk=4), (h_ND, table_VD))


def test_float32_agrees_with_float64() -> None:
    h_ND, table_VD, targets_N = problem(torch.float32)
    grads = torch.autograd.grad(catalogue_cross_entropy(h_ND, table_VD, targets_N), (h_ND, table_VD))
    h64, table64 = h_ND.detach().double().requires_grad_(), table_VD.detach().double().requires_grad_()
    expected = torch.autograd.grad(dense(h64, table64, targets_N), (h64, table64))
    for grad, wanted in zip(grads, expected, strict=True):
        assert grad.dtype == torch.float32
        assert (grad - wanted).abs().max() < 1e-6


def test_bfloat16_is_a_rounding_away() -> None:
    h_ND, table_VD, targets_N = problem(torch.float32)
    loss = catalogue_cross_entropy(h_ND, table_VD, targets_N, precision=torch.bfloat16)
    expected = dense(h_ND, table_VD, targets_N)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    for grad, wanted in zip(
        torch.autograd.grad(loss, (h_ND, table_VD)), torch.autograd.grad(expected, (h_ND, table_VD)), strict=True
    ):
        assert grad.dtype == torch.float32
        assert (grad - wanted).norm() < 0.02 * wanted.norm()


def test_autocast_changes_nothing() -> None:
    h_ND, table_VD, targets_N = problem(torch.float32)
    plain = catalogue_cross_entropy(h_ND, table_VD, targets_N)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(catalogue_cross_entropy(h_ND, table_VD, targets_N), plain)


def test_uniform_scores_cost_the_logarithm_of_the_catalogue() -> None:
    loss = catalogue_cross_entropy(torch.zeros(3, D), torch.randn(V, D), torch.tensor([1, 5, 16]))
    assert loss.item() == pytest.approx(math.log(V - 1), rel=1e-6)


def test_padding_takes_no_part() -> None:
    h_ND, table_VD, targets_N = problem(torch.float64)
    loss = catalogue_cross_entropy(h_ND, table_VD, targets_N)
    (grad_table,) = torch.autograd.grad(loss, table_VD)
    assert (grad_table[0] == 0).all()
    with torch.no_grad():
        table_VD[0] = 1e6
    assert torch.equal(catalogue_cross_entropy(h_ND, table_VD, targets_N), loss)


def test_huge_logits_neither_overflow_nor_underflow() -> None:
    h_ND, table_VD, targets_N = problem(torch.float32, scale=40.0)
    loss = catalogue_cross_entropy(h_ND, table_VD, targets_N)
    assert loss.item() == pytest.approx(dense(h_ND.double(), table_VD.double(), targets_N).item(), rel=1e-5)
    assert loss.item() > 1000


def test_frozen_table_gets_no_gradient() -> None:
    h_ND, table_VD, targets_N = problem(torch.float64)
    wanted_h, _ = torch.autograd.grad(dense(h_ND, table_VD, targets_N), (h_ND, table_VD))
    frozen = table_VD.detach()
    catalogue_cross_entropy(h_ND, frozen, targets_N).backward()
    assert frozen.grad is None
    assert h_ND.grad is not None
    assert (h_ND.grad - wanted_h).abs().max() < 1e-8


def test_without_gradients_it_is_just_the_value() -> None:
    h_ND, table_VD, targets_N = problem(torch.float64)
    with torch.inference_mode():
        loss = catalogue_cross_entropy(h_ND, table_VD, targets_N)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(dense(h_ND, table_VD, targets_N).item())


def test_no_target_and_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one target"):
        catalogue_cross_entropy(torch.zeros(0, D), torch.zeros(V, D), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="width 4"):
        catalogue_cross_entropy(torch.zeros(2, D), torch.zeros(V, 4), torch.tensor([1, 2]))


def answers(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """What a teacher says of each position: four different items; in the last row one, and of the second nothing."""
    generator = torch.Generator().manual_seed(2)
    items_NK = torch.stack([torch.randperm(V - 1, generator=generator)[:4] + 1 for _ in range(N)])
    shares_NK = torch.rand(N, 4, generator=generator, dtype=torch.float64)
    items_NK[1], shares_NK[1] = 0, 0
    items_NK[-1, 1:], shares_NK[-1, 1:] = 0, 0
    return items_NK.int(), shares_NK.to(dtype)


def dense_distilled(
    h_ND: Tensor, table_VD: Tensor, targets_N: Tensor, items_NK: Tensor, shares_NK: Tensor, weight: float
) -> Tensor:
    """The plain road: the whole softened target written out, row by row."""
    softened_NV = torch.zeros(N, V, dtype=torch.float64)
    for row, shares_K in enumerate(shares_NK.double()):
        sum_of_shares = shares_K.sum()
        w = weight if sum_of_shares > 0 else 0.0
        softened_NV[row, targets_N[row]] += 1 - w
        for item, share in zip(items_NK[row].tolist(), shares_K.tolist(), strict=True):
            if item:
                softened_NV[row, item] += w * share / sum_of_shares
    return nn.functional.cross_entropy((h_ND @ table_VD.T)[:, 1:], softened_NV[:, 1:])


@pytest.mark.parametrize("chunk", [None, 1, 7, 1000])
@pytest.mark.parametrize("weight", [0.0, 0.6, 1.0])
def test_distilled_loss_and_gradients_are_those_of_the_dense_softened_target(chunk: int | None, weight: float) -> None:
    h_ND, table_VD, targets_N = problem(torch.float64)
    taught = (targets_N, *answers(), weight)
    assert (answers()[0] == targets_N[:, None]).any(), "the teacher names a target too"
    expected = dense_distilled(h_ND, table_VD, *taught)
    loss, ce = distilled_cross_entropy(h_ND, table_VD, *taught, chunk=chunk)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(3 * loss, (h_ND, table_VD)), torch.autograd.grad(3 * expected, (h_ND, table_VD))
    )
    assert ce.item() == pytest.approx(dense(h_ND, table_VD, targets_N).item(), rel=1e-6)
    assert not ce.requires_grad


def test_distilled_loss_of_a_student_that_says_what_the_teacher_says_is_the_teachers_entropy() -> None:
    """Vectors of one item each: the logits are the logarithms of the shares, so no gradient is left."""
    shares = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    h_ND = torch.cat([torch.zeros(1, 1), shares.log()], 1).requires_grad_()
    loss, _ = distilled_cross_entropy(
        h_ND, torch.eye(4, dtype=torch.float64), torch.tensor([1]), torch.tensor([[1, 2, 3]]), shares, 1.0
    )
    assert loss.item() == pytest.approx(1.5 * math.log(2))
    (gradient,) = torch.autograd.grad(loss, h_ND)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize(("precision", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_distilled_loss_in_lower_precision_is_a_rounding_away(precision: torch.dtype, error: float) -> None:
    h_ND, table_VD, targets_N = problem(torch.float32)
    taught = (targets_N, *answers(torch.float16), 0.6)
    loss, ce = distilled_cross_entropy(h_ND, table_VD, *taught, precision=precision)
    exact = h_ND.detach().double().requires_grad_(), table_VD.detach().double().requires_grad_()
    expected = dense_distilled(*exact, *taught)
    assert (loss.dtype, ce.dtype) == (torch.float32, torch.float32)
    assert loss.item() == pytest.approx(expected.item(), rel=error)
    grads = torch.autograd.grad(loss, (h_ND, table_VD)), torch.autograd.grad(expected, exact)
    for grad, wanted in zip(*grads, strict=True):
        assert (grad - wanted).norm() < error * wanted.norm()


def test_a_teachers_rows_of_other_positions_are_refused() -> None:
    h_ND, table_VD, targets_N = problem(torch.float32)
    items_NK, shares_NK = answers()
    with pytest.raises(ValueError, match="23 positions need as many rows"):
        distilled_cross_entropy(h_ND, table_VD, targets_N, items_NK[1:], shares_NK[1:], 0.5)
    with pytest.raises(ValueError, match=r"\(23, 4\) and \(23, 3\)"):
        distilled_cross_entropy(h_ND, table_VD, targets_N, items_NK, shares_NK[:, 1:], 0.5)


@pytest.mark.parametrize("chunk", [1, 3, None])
def test_divergence_and_its_gradients_are_torchs(chunk: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    h_ND, table_VD, other_NE, other_table_VE = (
        torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((7, 4), (12, 4), (7, 3), (12, 3))
    )
    h_ND.requires_grad_()
    table_VD.requires_grad_()
    log_p, log_q = (
        torch.log_softmax(h @ table[1:].T, 1) for h, table in ((h_ND, table_VD), (other_NE, other_table_VE))
    )
    expected = torch.nn.functional.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    found = catalogue_divergence(h_ND, table_VD, other_NE, other_table_VE, chunk=chunk)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(3 * found, (h_ND, table_VD)), torch.autograd.grad(3 * expected, (h_ND, table_VD))
    )


def test_divergence_of_a_prediction_from_itself_is_zero_and_of_other_catalogues_is_refused() -> None:
    h_ND, table_VD = torch.randn(3, 4), torch.randn(6, 4)
    assert catalogue_divergence(h_ND, table_VD, h_ND, table_VD).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="the same positions and items"):
        catalogue_divergence(h_ND, table_VD, h_ND, table_VD[:5])
    with pytest.raises(ValueError, match="the same positions and items"):
        catalogue_divergence(h_ND[:0], table_VD, h_ND[:0], table_VD)
