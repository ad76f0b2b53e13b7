import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.backbone.lora import LoraSettings
from models.losses.sampled import SampledSoftmax
from models.sequences import Sequences
from models.slmrec.distillation import Distillation, DistillationConfig, OnlineDistillation
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, NextItemExamples
from tests.models.recommenders import random_backbone

N_ITEMS = 30
TEACHER = LLMRecommenderConfig(layers=4, max_items=6, tuned=LoraSettings(rank=4, alpha=8, dropout=0.0))
STUDENT = replace(TEACHER, layers=2)
TWO_BLOCKS = DistillationConfig(blocks=2, lambda_norm=0.01, lambda_ms=0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": 0},
        {"lambda_cos": -1.0},
        {"lambda_norm": math.nan},
        {"lambda_ms": -0.1},
        {"lambda_kl": -1.0},
        {"scale": "mine"},
        {"states": "both"},
        {"start": "nowhere"},
        {"layers": "last"},
        {"layers": "interval", "start": "random"},
    ],
)
def test_config_refuses_bad_values(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        DistillationConfig(**change)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_backbone(tmp_path_factory.mktemp("distillation") / "backbone", width=32)


@pytest.fixture(scope="module")
def item_table() -> Tensor:
    table = torch.randn(N_ITEMS + 1, 8, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    """Each user walks up the catalogue one item at a time: the next item follows from the last."""
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, N_ITEMS, 400), rng.integers(3, 8, 400)
    walks = zip(starts, lengths, strict=True)
    return Sequences.from_lists([(start + np.arange(length)) % N_ITEMS + 1 for start, length in walks])


def make(config: LLMRecommenderConfig, backbone: Path, item_table: Tensor, seed: int = 0) -> LLMRecommender:
    """With LoRA already moved, so that depths and seeds differ."""
    recommender = LLMRecommender.from_backbone(config, backbone, item_table, seed=seed)
    torch.manual_seed(seed)
    for name, parameter in recommender.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return recommender


def terms_of(pair: Distillation, sequences: Sequences) -> dict[str, Tensor]:
    return pair(**NextItemExamples(sequences, pair.student.settings).batch(np.arange(8)))


def test_a_copy_of_the_teacher_has_nothing_to_learn_from_it(
    backbone: Path, item_table: Tensor, sequences: Sequences
) -> None:
    teacher = make(TEACHER, backbone, item_table)
    pair = Distillation(copy.deepcopy(teacher), teacher, DistillationConfig(), seed=0)
    terms = terms_of(pair, sequences)
    assert terms["cos"].item() == pytest.approx(1, abs=1e-6)
    assert terms["norm"].item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_the_loss_is_the_papers_sum(backbone: Path, item_table: Tensor, sequences: Sequences, objective: str) -> None:
    """Against states taken one layer at a time, and the formula written out position by position."""
    teacher, student = (
        make(replace(config, objective=objective), backbone, item_table, seed)
        for seed, config in ((0, TEACHER), (1, STUDENT))
    )
    config = DistillationConfig(blocks=2, lambda_cos=0.7, lambda_norm=0.03, lambda_ms=0.5)
    pair = Distillation(student, teacher, config, seed=3)
    batch = NextItemExamples(sequences, student.settings).batch(np.arange(8))
    terms = pair(**batch)

    items, lengths, targets = batch["items"], batch["lengths"], batch["targets"]
    states = [
        (teacher.supervised_states(items, lengths, (t,))[0], student.supervised_states(items, lengths, (s,))[0])
        for t, s in ((2, 1), (4, 2))
    ]
    n = len(targets)
    assert n == (8 if objective == "last" else int(lengths.sum()))
    cos = sum(torch.dot(t[i], s[i]) / (t[i].norm() * s[i].norm()) for t, s in states for i in range(n)) / (2 * n)
    norm = sum((t[i] - s[i]).norm() ** 2 for t, s in states for i in range(n)) / (2 * n)

    def cross_entropy(head: nn.Module, state: Tensor) -> Tensor:
        log_p = torch.log_softmax(head(state) @ item_table[1:].T, dim=1)
        return -sum(log_p[i, targets[i] - 1] for i in range(n)) / n

    ce = cross_entropy(student.output_adapter, states[1][1])
    ms = cross_entropy(pair.heads[0], states[0][1])
    share = 1.0 if objective == "last" else lengths.double().mean() / (sequences.lengths - 1).mean()
    loss = share * (ce + 0.7 * (1 - cos) + 0.03 * norm + 0.5 * ms)
    expected = {"ce": ce, "cos": cos, "norm": norm, "ms": ms, "loss": loss}
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_the_student_learns_and_the_teacher_does_not(backbone: Path, item_table: Tensor, sequences: Sequences) -> None:
    pair = Distillation(make(STUDENT, backbone, item_table), make(TEACHER, backbone, item_table), TWO_BLOCKS, seed=0)
    terms_of(pair, sequences)["loss"].backward()
    learning = {name for name, p in pair.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    trainable = {f"student.{name}" for name, p in pair.student.named_parameters() if p.requires_grad}
    assert learning == trainable | {"heads.0.weight"}
    assert not any(name.startswith("teacher.") for name, p in pair.named_parameters() if p.requires_grad)


def test_the_teacher_stays_in_evaluation_mode(backbone: Path, item_table: Tensor) -> None:
    pair = Distillation(make(STUDENT, backbone, item_table), make(TEACHER, backbone, item_table), TWO_BLOCKS, seed=0)
    pair.train()
    assert pair.student.training
    assert not any(module.training for module in pair.teacher.modules())


@pytest.mark.parametrize("change", [{"blocks": 1}, {"lambda_ms": 0.0}])
def test_without_block_heads_there_is_no_such_term(
    backbone: Path, item_table: Tensor, sequences: Sequences, change: dict
) -> None:
    config = replace(TWO_BLOCKS, **change)
    pair = Distillation(make(STUDENT, backbone, item_table), make(TEACHER, backbone, item_table), config, seed=0)
    assert len(pair.heads) == 0
    assert terms_of(pair, sequences).keys() == {"loss", "ce", "cos", "norm"}


@pytest.mark.parametrize(
    ("change", "items", "message"),
    [
        ({"objective": "all_positions"}, N_ITEMS, "agree in objective"),
        ({"max_items": 3}, N_ITEMS, "agree in max_items"),
        ({}, N_ITEMS - 1, "agree in the number of items"),
        ({"layers": 3}, N_ITEMS, "3 layers can't be cut into 2"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(
    backbone: Path, item_table: Tensor, change: dict, items: int, message: str
) -> None:
    teacher = make(replace(TEACHER, **change), backbone, item_table[: items + 1])
    with pytest.raises(ValueError, match=message):
        Distillation(make(STUDENT, backbone, item_table), teacher, TWO_BLOCKS, seed=0)


def test_another_width_is_refused(backbone: Path, item_table: Tensor, tmp_path: Path) -> None:
    narrow = make(TEACHER, random_backbone(tmp_path / "narrow", width=16), item_table)
    with pytest.raises(ValueError, match="width of the backbone, but the teacher has 16 and the student 32"):
        Distillation(make(STUDENT, backbone, item_table), narrow, TWO_BLOCKS, seed=0)


@pytest.mark.parametrize("states", ["normed", "raw"])
def test_the_released_scale_sums_over_blocks_and_does_not_square(
    backbone: Path, item_table: Tensor, sequences: Sequences, states: str
) -> None:
    """PAPER's defects 6: with B blocks the terms are B times and B - 1 times the averages."""
    teacher, student = make(TEACHER, backbone, item_table, 0), make(STUDENT, backbone, item_table, 1)
    config = replace(TWO_BLOCKS, scale="released", states=states, lambda_cos=0.7, lambda_norm=0.03, lambda_ms=0.5)
    pair = Distillation(student, teacher, config, seed=3)
    batch = NextItemExamples(sequences, student.settings).batch(np.arange(8))
    terms = pair(**batch)
    normed = states == "normed"
    pairs = [
        (
            teacher.supervised_states(batch["items"], batch["lengths"], (t,), normed=normed)[0],
            student.supervised_states(batch["items"], batch["lengths"], (s,), normed=normed)[0],
        )
        for t, s in ((2, 1), (4, 2))
    ]
    cosines = [sum(torch.dot(t[i], s[i]) / (t[i].norm() * s[i].norm()) for i in range(8)) / 8 for t, s in pairs]
    lengths = [sum((t[i] - s[i]).norm() for i in range(8)) / 8 for t, s in pairs]
    loss = terms["ce"] + 0.7 * sum(1 - c for c in cosines) + 0.03 * sum(lengths) + 0.5 * terms["ms"]
    assert terms["loss"].item() == pytest.approx(loss.item(), rel=1e-4)


def test_logit_distillation_adds_the_divergence_of_the_two_predictions(
    backbone: Path, item_table: Tensor, sequences: Sequences
) -> None:
    teacher, student = make(TEACHER, backbone, item_table, 0), make(STUDENT, backbone, item_table, 1)
    config = DistillationConfig(blocks=2, lambda_cos=0, lambda_norm=0, lambda_ms=0, lambda_kl=0.5)
    batch = NextItemExamples(sequences, student.settings).batch(np.arange(8))
    terms = Distillation(student, teacher, config, seed=3)(**batch)
    log_q, log_p = (
        torch.log_softmax(
            model.output_adapter(model.supervised_states(batch["items"], batch["lengths"], (depth,))[0])
            @ item_table[1:].T,
            dim=1,
        )
        for model, depth in ((teacher, 4), (student, 2))
    )
    divergence = (log_q.exp() * (log_q - log_p)).sum(1).mean()
    assert terms["kl"].item() == pytest.approx(divergence.item(), rel=1e-4)
    assert terms["loss"].item() == pytest.approx((terms["ce"] + 0.5 * divergence).item(), rel=1e-4)
    assert "ms" not in terms


def test_without_a_term_that_compares_no_teacher_is_needed(
    backbone: Path, item_table: Tensor, sequences: Sequences
) -> None:
    alone = DistillationConfig(blocks=2, lambda_cos=0, lambda_norm=0, lambda_ms=1)
    terms = terms_of(Distillation(make(STUDENT, backbone, item_table), None, alone, seed=0), sequences)
    assert terms.keys() == {"loss", "ce", "ms"}
    assert Distillation(make(STUDENT, backbone, item_table), None, alone, seed=0).teacher_ends == ()
    with pytest.raises(ValueError, match="compare the student with a teacher"):
        Distillation(make(STUDENT, backbone, item_table), None, TWO_BLOCKS, seed=0)


@pytest.mark.parametrize("detached", [True, False])
def test_online_the_teacher_learns_from_its_own_loss_and_from_the_student_only_where_told_so(
    backbone: Path, item_table: Tensor, sequences: Sequences, detached: bool
) -> None:
    teacher, student = make(TEACHER, backbone, item_table, 0), make(STUDENT, backbone, item_table, 1)
    pair = OnlineDistillation(student, teacher, TWO_BLOCKS, detached=detached, seed=0)
    batch = NextItemExamples(sequences, student.settings).batch(np.arange(8))
    terms = pair(**batch)
    terms["loss"].backward()
    online = teacher.output_adapter.weight.grad.clone(), teacher.input_adapter.weight.grad.clone()
    teacher.zero_grad()
    alone = teacher(**batch)
    alone["loss"].backward()
    assert terms["teacher_ce"].item() == pytest.approx(alone["ce"].item(), rel=1e-5)
    # the output adapter stands behind the states that are compared; the input adapter before them
    torch.testing.assert_close(online[0], teacher.output_adapter.weight.grad)
    assert torch.allclose(online[1], teacher.input_adapter.weight.grad, rtol=1e-4) == detached


def test_above_a_set_size_items_are_drawn(backbone: Path, item_table: Tensor, sequences: Sequences) -> None:
    """For every cross-entropy a draw lies off, the mean of many near the exact one; states compare as ever."""
    torch.manual_seed(0)
    found = []
    for above, steps in ((N_ITEMS, 1), (N_ITEMS - 1, 40)):
        rule = SampledSoftmax(above=above, items=20)
        models = (make(replace(config, sampled_softmax=rule), backbone, item_table) for config in (STUDENT, TEACHER))
        pair = OnlineDistillation(*models, TWO_BLOCKS, detached=True, seed=0)
        batch = NextItemExamples(sequences, STUDENT).batch(np.arange(8))
        found.append([pair(**batch) for _ in range(steps)])
    (exact,), draws = found
    for name in ("ce", "ms", "teacher_ce"):
        values = torch.stack([terms[name].detach() for terms in draws])
        assert values.std() > 0.01
        assert values.mean().item() == pytest.approx(exact[name].item(), rel=0.1)
    assert draws[0]["cos"].item() == pytest.approx(exact["cos"].item(), rel=1e-6)
