from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.baselines.bsarec import (
    DECLARATION,
    BSARec,
    BSARecConfig,
    BSARecExamples,
    BSARecSettings,
    fit_bsarec,
    low_pass_matrix,
)
from models.declaration import TrainingData
from models.losses.sampled import SampledSoftmax
from models.sequences import Sequences
from models.training.config import TrainingConfig
from models.training.course import Course

SMALL = BSARecConfig(d=8, layers=2, heads=2, dropout=0.0, max_length=6, alpha=0.6, c=3)
TINY = BSARecSettings(
    BSARecConfig(d=16, layers=1, dropout=0.1, max_length=8),
    TrainingConfig(learning_rate=0.02, epochs=6, batch_size=32),
)
HALF = SampledSoftmax(above=11, items=6)
"""Of the ring's 12 items."""
FULL, PADDED = [2, 9, 1, 4, 4, 7], [0, 0, 0, 5, 2, 8]


def far_from_the_start(config: BSARecConfig) -> BSARec:
    """Weights with which attention and filter both matter."""
    torch.manual_seed(0)
    model = BSARec(9, config).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.weight.data += 1
    return model.eval()


@pytest.fixture
def model() -> BSARec:
    return far_from_the_start(SMALL)


def by_fft(x_LD: Tensor, frequencies: int) -> Tensor:
    """Each column's higher frequencies cut off."""
    spectrum = torch.fft.rfft(x_LD, dim=0, norm="ortho")
    spectrum[frequencies:] = 0
    return torch.fft.irfft(spectrum, n=len(x_LD), dim=0, norm="ortho")


@pytest.mark.parametrize(
    ("length", "frequencies"), [(50, 3), (7, 2), (7, 4), (8, 4), (8, 5), (6, 1), (1, 1), (2, 2), (5, 9)]
)
def test_the_filter_is_what_a_fourier_transform_without_its_higher_frequencies_gives(
    length: int, frequencies: int
) -> None:
    x_LD = torch.randn(length, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    projection_LL = low_pass_matrix(length, frequencies).double()
    torch.testing.assert_close(projection_LL @ x_LD, by_fft(x_LD, frequencies), atol=1e-6, rtol=0)
    torch.testing.assert_close(projection_LL @ projection_LL, projection_LL, atol=1e-6, rtol=0)


def test_c_is_read_as_its_half_and_one() -> None:
    """Of L positions, 2 c // 2 + 1 dimensions pass: the constant, and cosine and sine of each further frequency."""
    for c, passing in ((1, 1), (2, 3), (3, 3), (4, 5), (5, 5), (6, 6), (99, 6)):
        assert BSARec(9, replace(SMALL, c=c)).low_pass.trace().item() == pytest.approx(passing, abs=1e-5)


def norm_by_hand(x_D: Tensor, norm: nn.LayerNorm) -> Tensor:
    spread = ((x_D - x_D.mean()) ** 2).mean() ** 0.5
    return (x_D - x_D.mean()) / spread * norm.weight + norm.bias


def linear_by_hand(x_D: Tensor, linear: nn.Linear) -> Tensor:
    return torch.stack([(row * x_D).sum() for row in linear.weight]) + linear.bias


def block_by_hand(block: Any, x_LD: Tensor, real: list[bool], config: BSARecConfig) -> Tensor:
    """One position after another, one head after another."""
    low_LD = by_fft(x_LD, config.c // 2 + 1)
    filtered_LD = low_LD + block.beta * block.beta * (x_LD - low_LD)
    width, out = config.d // config.heads, []
    keys_values = [linear_by_hand(x_D, block.key_value) for x_D in x_LD]
    for place, x_D in enumerate(x_LD):
        seen = [other for other in range(len(x_LD)) if not real[place] or (real[other] and other <= place)]
        query, mixed = linear_by_hand(x_D, block.query), []
        for start in range(0, config.d, width):
            keys = [keys_values[other][start : start + width] for other in seen]
            values = [keys_values[other][config.d + start : config.d + start + width] for other in seen]
            weights = [math.exp((query[start : start + width] * key).sum() / math.sqrt(width)) for key in keys]
            mixed.append(sum(weight / sum(weights) * value for weight, value in zip(weights, values, strict=True)))
        attended = norm_by_hand(x_D + linear_by_hand(torch.cat(mixed), block.attention_out), block.attention_norm)
        filtered = norm_by_hand(x_D + filtered_LD[place], block.filter_norm)
        y_D = config.alpha * filtered + (1 - config.alpha) * attended
        inner = linear_by_hand(y_D, block.feed_forward[0])
        assert len(inner) == 4 * config.d
        inner = torch.stack([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in inner])
        out.append(norm_by_hand(y_D + linear_by_hand(inner, block.feed_forward[2]), block.feed_forward_norm))
    return torch.stack(out)


@torch.no_grad()
def test_the_encoder_is_what_the_paper_writes(model: BSARec) -> None:
    """Computed once more by hand, for a full history and a padded one; and the last position alone is the same."""
    items_BL = torch.tensor([FULL, PADDED])
    found_BLD = model.encode(items_BL, wanted=6)
    for row, items_L in enumerate(items_BL):
        embedded = model.items.weight[items_L] + model.positions.weight
        x_LD = torch.stack([norm_by_hand(x_D, model.norm) for x_D in embedded])
        for block in model.blocks:
            x_LD = block_by_hand(block, x_LD, [item != 0 for item in items_L.tolist()], SMALL)
        torch.testing.assert_close(found_BLD[row], x_LD, atol=1e-6, rtol=1e-6)
    for wanted in (1, 4):
        torch.testing.assert_close(model.encode(items_BL, wanted), found_BLD[:, -wanted:])


@torch.no_grad()
def test_with_alpha_0_it_is_torchs_own_encoder() -> None:
    model = far_from_the_start(replace(SMALL, alpha=0.0))
    layer = nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, dtype=torch.float64)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    for theirs, ours in zip(encoder.layers, model.blocks, strict=True):
        names = {
            "self_attn.out_proj": ours.attention_out,
            "linear1": ours.feed_forward[0],
            "linear2": ours.feed_forward[2],
            "norm1": ours.attention_norm,
            "norm2": ours.feed_forward_norm,
        }
        state = {f"{name}.{kind}": getattr(part, kind) for name, part in names.items() for kind in ("weight", "bias")}
        for kind in ("weight", "bias"):
            both = [getattr(ours.query, kind), getattr(ours.key_value, kind)]
            state[f"self_attn.in_proj_{kind}"] = torch.cat(both)
        theirs.load_state_dict(state)
    x_BLD = model.norm(model.items.weight[torch.tensor([FULL])] + model.positions.weight)
    mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
    expected = encoder(x_BLD, mask=mask, is_causal=True)
    torch.testing.assert_close(model.encode(torch.tensor([FULL]), wanted=6), expected, atol=1e-4, rtol=1e-4)
    for block in model.blocks:
        block.beta *= 3
    torch.testing.assert_close(model.encode(torch.tensor([FULL]), wanted=6), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_with_alpha_1_there_is_no_attention() -> None:
    model = far_from_the_start(replace(SMALL, alpha=1.0))
    before = model.encode(torch.tensor([FULL, PADDED]))
    for block in model.blocks:
        for part in (block.query, block.key_value, block.attention_out, block.attention_norm):
            nn.init.normal_(part.weight)
    assert torch.equal(model.encode(torch.tensor([FULL, PADDED])), before)
    model.blocks[0].beta += 1
    assert (model.encode(torch.tensor([FULL, PADDED])) - before).abs().amin(2).max() > 0.001


@torch.no_grad()
@pytest.mark.parametrize(("beta", "of_low", "of_high"), [(0.0, 2, 1), (1.0, 2, 2), (-2.0, 2, 5)])
def test_beta_says_what_the_high_frequencies_count(model: BSARec, beta: float, of_low: int, of_high: int) -> None:
    """Seen where filter and residual come together: the residual holds all frequencies once."""
    block, seen = model.blocks[0], []
    block.beta.fill_(beta)
    block.filter_norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x_LD = torch.randn(6, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    block(x_LD[None], model.low_pass, torch.ones(1, 6, 6, dtype=torch.bool))
    low_LD = by_fft(x_LD, 2)
    torch.testing.assert_close(seen[0][0], of_low * low_LD + of_high * (x_LD - low_LD), atol=1e-5, rtol=0)


@torch.no_grad()
def test_through_the_filter_alone_a_later_item_changes_what_stands_before_it(model: BSARec) -> None:
    assert not DECLARATION.causal
    before, after = torch.tensor([FULL]), torch.tensor([[*FULL[:5], 3]])
    change_LD = (model.encode(before, wanted=6) - model.encode(after, wanted=6)).abs()[0]
    assert (change_LD.amax(1) > 0.001).all()
    attention = far_from_the_start(replace(SMALL, alpha=0.0))
    change_LD = (attention.encode(before, wanted=6) - attention.encode(after, wanted=6)).abs()[0]
    assert (change_LD[:5] == 0).all()
    assert change_LD[5].max() > 0.01


@torch.no_grad()
def test_every_item_of_a_history_and_the_positions_before_it_matter(model: BSARec) -> None:
    base = model.represent(Sequences.from_lists([[1, 2, 3]]))
    for place in range(3):
        changed = [1, 2, 3]
        changed[place] = 7
        assert (model.represent(Sequences.from_lists([changed])) - base).abs().max() > 0.001
    model.positions.weight[0] += torch.randn(8, dtype=torch.float64)
    assert (model.represent(Sequences.from_lists([[1, 2, 3]])) - base).abs().max() > 0.001


def test_a_history_stands_at_the_end_and_only_its_most_recent_items_are_read(model: BSARec) -> None:
    histories = [[5, 2, 8], [9, 9, 9, 2, 9, 1, 4, 4, 7], [3]]
    with torch.no_grad():
        expected = model.encode(torch.tensor([PADDED, FULL, [0, 0, 0, 0, 0, 3]]))[:, 0].float()
    torch.testing.assert_close(model.represent(Sequences.from_lists(histories)), expected)


def test_score_is_the_dot_product_with_the_input_table(model: BSARec) -> None:
    histories = Sequences.from_lists([[3, 1], [2]])
    model = model.float()
    scores = model.score(histories)
    assert (scores[:, 0] == -torch.inf).all()
    expected = model.represent(histories) @ model.items.weight.detach().T
    torch.testing.assert_close(scores[:, 1:], expected[:, 1:])


def test_loss_is_the_mean_cross_entropy_of_the_last_positions(model: BSARec) -> None:
    items_BL, targets_B = torch.tensor([FULL, PADDED]), torch.tensor([3, 9])
    with torch.no_grad():
        logits_BV = model.encode(items_BL, wanted=6)[:, -1] @ model.items.weight.T
        log_p = torch.log_softmax(logits_BV[:, 1:], dim=-1)
        terms = model(items_BL, targets_B)
    assert terms["loss"].item() == pytest.approx(-(log_p[0, 2] + log_p[1, 8]).item() / 2)
    assert terms["ce"] == terms["loss"]


@pytest.mark.parametrize("max_length", [1, 3, 12])
def test_the_examples_are_all_prefixes_of_all_sequences(max_length: int) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 99, size).tolist() for size in (5, 1, 0, 2, 9, 1, 3, 0)]
    examples = BSARecExamples(Sequences.from_lists(rows), max_length)
    expected = [
        ([0] * max(0, max_length - end) + row[max(0, end - max_length) : end], row[end])
        for row in rows
        for end in range(1, len(row))
    ]
    assert len(examples) == len(expected) == 4 + 1 + 8 + 2
    order = rng.permutation(len(examples))
    batch = examples.batch(order)
    found = [*zip(batch["items_BL"].tolist(), batch["targets_B"].tolist(), strict=True)]
    assert found == [expected[row] for row in order]
    assert examples.lengths.tolist() == [max_length] * len(expected), "as long as they are padded to"


def fit(ring: Sequences, seed: int = 1, **changes: Any) -> BSARec:
    settings = replace(TINY, model=replace(TINY.model, **changes))
    model = fit_bsarec(TrainingData(ring, 12, ring, {}), settings, Course(seed=seed)).recommender
    assert isinstance(model, BSARec)
    return model


@pytest.mark.parametrize("changes", [{}, {"loss_precision": "bfloat16"}, {"alpha": 1.0}, {"layers": 2}])
def test_learns_the_ring(ring: Sequences, changes: dict[str, Any]) -> None:
    model = fit(ring, **changes)
    scores = model.score(Sequences.from_lists([[4, 5, 6], [12], [9, 10]]))
    assert scores.argmax(1).tolist() == [7, 1, 11]
    assert not model.items.weight[0].any(), "the padding item must stay 0"


def test_with_half_of_the_items_drawn_it_ranks_about_as_with_all(ring: Sequences) -> None:
    """By the mean reciprocal rank of each item's successor among all twelve, where chance is 0.26."""
    histories = Sequences.from_lists([[(n + 11) % 12 + 1, n % 12 + 1] for n in range(12)])
    successors = torch.tensor([[(n + 1) % 12 + 1] for n in range(12)])
    scores = fit(ring, sampled_softmax=HALF).score(histories)
    assert (1 / (scores >= scores.gather(1, successors)).sum(1)).mean() > 0.9


def test_the_seed_fixes_the_model_and_another_gives_another(ring: Sequences) -> None:
    first, again, other = (fit(ring, seed).state_dict() for seed in (1, 1, 2))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        assert not torch.allclose(tensor, other[name], rtol=0.01), name


def test_dropout_falls_on_embeddings_attention_and_all_three_outputs_and_in_training_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = BSARec(9, BSARecConfig(d=8, layers=1, dropout=0.3, max_length=20))
    shares: list[float] = []
    for dropout in (model.dropout, model.blocks[0].dropout):
        dropout.register_forward_hook(lambda _, __, out: shares.append((out == 0).float().mean().item()))
    attend = nn.functional.scaled_dot_product_attention

    def weights(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Attention to one-hot values gives the weights themselves."""
        seen = attend(query, key, torch.eye(20).expand(*key.shape[:-1], -1), **options)
        shares.append((seen[:, :, -1] == 0).float().mean().item())  # the last position sees all of a full history
        return attend(query, key, value, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", weights)
    items_BL = torch.randint(1, 10, (200, 20), generator=torch.Generator().manual_seed(0))
    model.encode(items_BL, wanted=20)
    assert shares == pytest.approx([0.3] * 5, abs=0.03)
    shares.clear()
    model.eval().encode(items_BL, wanted=20)
    assert shares == [0.0] * 5


@pytest.mark.parametrize("sampled", [None, HALF])
def test_config_round_trip(model: BSARec, sampled: SampledSoftmax | None) -> None:
    model.architecture = replace(SMALL, sampled_softmax=sampled)
    config = json.loads(json.dumps(model.to_config()))
    rebuilt = BSARec.from_config(config)
    assert rebuilt.architecture == model.architecture
    assert rebuilt.to_config() == model.to_config()
    rebuilt.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": 0}, "d must be at least 1"),
        ({"heads": 3}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"max_length": 0}, "max_length"),
        ({"alpha": 1.1}, "alpha must be at least 0 and at most 1"),
        ({"c": 0}, "c must be at least 1"),
        ({"loss_precision": "int8"}, "loss_precision"),
    ],
)
def test_bad_architectures_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_bad_histories_are_refused(model: BSARec) -> None:
    with pytest.raises(ValueError, match="empty history"):
        model.score(Sequences.from_lists([[1], []]))
    with pytest.raises(ValueError, match=r"1\.\.9"):
        model.score(Sequences.from_lists([[10]]))


def test_fitting_without_any_target_is_refused() -> None:
    with pytest.raises(ValueError, match="no training examples"):
        fit_bsarec(TrainingData(Sequences.from_lists([[1], [2]]), 2, Sequences.from_lists([]), {}), TINY, Course(0))
