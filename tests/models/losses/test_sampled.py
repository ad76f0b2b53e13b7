from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from models.losses.catalogue import catalogue_cross_entropy
from models.losses.sampled import SampledSoftmax, sampled_cross_entropy, training_cross_entropy

N, D, ITEMS = 23, 5, 200


def problem(dtype: torch.dtype, items: int = ITEMS) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    h_ND = torch.randn(N, D, generator=generator, dtype=torch.float64)
    table_VD = torch.randn(items + 1, D, generator=generator, dtype=torch.float64)
    targets_N = torch.randint(1, items + 1, (N,), generator=generator)
    return h_ND.to(dtype).requires_grad_(), table_VD.to(dtype).requires_grad_(), targets_N


def by_hand(h_ND: Tensor, table_VD: Tensor, targets_N: Tensor, drawn_M: Tensor) -> Tensor:
    """The formula written out position by position."""
    losses = []
    for h_D, target in zip(h_ND, targets_N, strict=True):
        others = drawn_M[drawn_M != target]
        probability = len(others) / (len(table_VD) - 2)
        corrected = table_VD[others] @ h_D - math.log(probability)
        of_target = table_VD[target] @ h_D
        losses.append(torch.cat([of_target[None], corrected]).logsumexp(0) - of_target)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("chunk", [None, 1, 7, N, 1000])
def test_value_and_gradients_are_the_formulas(chunk: int | None) -> None:
    h_ND, table_VD, targets_N = problem(torch.float64)
    drawn_M = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(2))[:40] + 1
    drawn_M[:3] = targets_N[:3]  # accidental hits
    drawn_M = drawn_M.unique()
    expected = by_hand(h_ND, table_VD, targets_N, drawn_M)
    loss = sampled_cross_entropy(h_ND, table_VD, targets_N, drawn_M.flip(0), chunk=chunk)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(3 * loss, (h_ND, table_VD)),
        torch.autograd.grad(3 * expected, (h_ND, table_VD)),
        rtol=0,
        atol=1e-8,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_with_all_items_drawn_it_is_the_exact_loss(dtype: torch.dtype, tolerance: float) -> None:
    h_ND, table_VD, targets_N = problem(dtype)
    exact = catalogue_cross_entropy(h_ND, table_VD, targets_N)
    sampled = sampled_cross_entropy(h_ND, table_VD, targets_N, torch.randperm(ITEMS) + 1)
    assert sampled.item() == pytest.approx(exact.item(), rel=tolerance)
    torch.testing.assert_close(
        torch.autograd.grad(sampled, (h_ND, table_VD)),
        torch.autograd.grad(exact, (h_ND, table_VD)),
        rtol=0,
        atol=tolerance,
    )


@pytest.mark.parametrize("drawn", [2, 4, 6])
def test_the_sum_over_the_catalogue_is_right_on_average(drawn: int) -> None:
    """exp(loss) = the sum over exp(s_t): over all draws that there are, its mean is that of the whole catalogue."""
    h_ND, table_VD, targets_N = problem(torch.float64, items=7)
    h_1D, target_1 = h_ND[:1].detach(), targets_N[:1]
    draws = [torch.tensor(draw) for draw in combinations(range(1, 8), drawn)]
    ratios = [sampled_cross_entropy(h_1D, table_VD.detach(), target_1, draw).exp().item() for draw in draws]
    exact = catalogue_cross_entropy(h_1D, table_VD.detach(), target_1).exp().item()
    assert sum(ratios) / len(ratios) == pytest.approx(exact, rel=1e-12)
    assert max(ratios) > 1.1 * exact


def test_the_mean_gradient_approaches_the_exact_one_as_more_is_drawn() -> None:
    """The mean over 1,000 draws of 200 items, by its distance from the exact gradient over the latter's length.

    The bias falls about as 1 / M; the noise that so many draws leave is below half a per cent.
    """
    h_ND, table_VD, targets_N = problem(torch.float64)
    h_ND = (0.3 * h_ND).detach().requires_grad_()
    (exact,) = torch.autograd.grad(catalogue_cross_entropy(h_ND, table_VD, targets_N), h_ND)
    torch.manual_seed(0)
    errors = []
    for items in (5, 20, 80):
        rule, total = SampledSoftmax(above=100, items=items), torch.zeros_like(h_ND)
        for _ in range(1000):
            total += torch.autograd.grad(training_cross_entropy(h_ND, table_VD, targets_N, rule), h_ND)[0]
        errors.append(((total / 1000 - exact).norm() / exact.norm()).item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.01


def test_only_what_was_drawn_and_the_targets_get_a_gradient() -> None:
    h_ND, table_VD, targets_N = problem(torch.float32)
    with torch.no_grad():
        table_VD[0] = 1e6  # padding takes no part
    drawn_M = torch.tensor([3, 150, 8])
    loss = sampled_cross_entropy(h_ND, table_VD, targets_N, drawn_M)
    (grad_VD,) = torch.autograd.grad(loss, table_VD)
    assert grad_VD.abs().sum(1).nonzero()[:, 0].tolist() == sorted({*targets_N.tolist(), *drawn_M.tolist()})
    assert torch.isfinite(loss)


def test_a_frozen_table_gets_no_gradient_and_h_the_same() -> None:
    h_ND, table_VD, targets_N = problem(torch.float64)
    drawn_M = torch.arange(1, 50)
    wanted, _ = torch.autograd.grad(sampled_cross_entropy(h_ND, table_VD, targets_N, drawn_M), (h_ND, table_VD))
    frozen = table_VD.detach()
    sampled_cross_entropy(h_ND, frozen, targets_N, drawn_M).backward()
    assert frozen.grad is None
    torch.testing.assert_close(h_ND.grad, wanted)


def test_bfloat16_is_a_rounding_away_and_autocast_changes_nothing() -> None:
    h_ND, table_VD, targets_N = problem(torch.float32)
    drawn_M = torch.arange(1, 150)
    expected = sampled_cross_entropy(h_ND, table_VD, targets_N, drawn_M)
    rounded = sampled_cross_entropy(h_ND, table_VD, targets_N, drawn_M, precision=torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(expected.item(), rel=0.01)
    for grad, wanted in zip(
        torch.autograd.grad(rounded, (h_ND, table_VD)),
        torch.autograd.grad(expected, (h_ND, table_VD), retain_graph=True),
        strict=True,
    ):
        assert grad.dtype == torch.float32
        assert (grad - wanted).norm() < 0.02 * wanted.norm()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sampled_cross_entropy(h_ND, table_VD, targets_N, drawn_M), expected)


def test_huge_logits_neither_overflow_nor_underflow() -> None:
    h_ND, table_VD, targets_N = problem(torch.float32)
    drawn_M = torch.arange(1, 50)
    loss = sampled_cross_entropy(1000 * h_ND, table_VD, targets_N, drawn_M)
    assert loss.item() > 1000
    assert loss.item() == pytest.approx(
        by_hand(1000 * h_ND.double(), table_VD.double(), targets_N, drawn_M).item(), rel=1e-5
    )


def test_only_catalogues_above_the_size_are_sampled_and_each_step_draws_anew() -> None:
    h_ND, table_VD, targets_N = problem(torch.float64)
    exact = catalogue_cross_entropy(h_ND, table_VD, targets_N)

    def loss(rule: SampledSoftmax | None) -> Tensor:
        return training_cross_entropy(h_ND, table_VD, targets_N, rule)

    assert torch.equal(loss(None), exact)
    assert torch.equal(loss(SampledSoftmax(above=ITEMS, items=10)), exact)
    rule = SampledSoftmax(above=ITEMS - 1, items=10)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = loss(rule), loss(rule)
    assert len({first.item(), second.item(), exact.item()}) == 3
    torch.set_rng_state(state)  # as a resumed training does
    assert torch.equal(loss(rule), first)
    assert torch.equal(loss(rule), second)


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="items must be at least 2, not 1"):
        SampledSoftmax(above=10, items=1)
    with pytest.raises(ValueError, match="11 items wherever a catalogue has more than 10"):
        SampledSoftmax(above=10, items=11)
    drawn_M, nothing = torch.tensor([1, 2]), torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="at least one target"):
        sampled_cross_entropy(torch.zeros(0, D), torch.zeros(9, D), nothing, drawn_M)
    with pytest.raises(ValueError, match="width 4"):
        sampled_cross_entropy(torch.zeros(2, D), torch.zeros(9, 4), torch.tensor([1, 2]), drawn_M)
