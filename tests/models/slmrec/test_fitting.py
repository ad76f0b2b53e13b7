from dataclasses import replace

import numpy as np
import pytest
import torch

from models.backbone.sources import BackboneConfig, build_backbone
from models.sequences import Sequences
from models.slmrec.distillation import DistillationConfig
from models.slmrec.fitting import Course, Ingredients, fit_online, fit_student
from models.slmrec.layer_choice import block_influence, choose_layers
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, LoraSettings
from models.training.run import TrainingConfig

N_ITEMS = 20
STUDENT = LLMRecommenderConfig(layers=2, max_items=5, tuned=LoraSettings(rank=2, alpha=4, dropout=0.0))
TEACHER = replace(STUDENT, layers=4)
ONE_STEP = TrainingConfig(learning_rate=0.001, max_steps=1, batch_size=8)
MAP = "self_attn.q_proj"


@pytest.fixture(scope="module")
def ingredients(tmp_path_factory: pytest.TempPathFactory) -> Ingredients:
    directory = tmp_path_factory.mktemp("fitting") / "backbone"
    config = BackboneConfig(source="scratch", width=16, layers=4, heads=2, intermediate=24, vocabulary=400, context=128)
    build_backbone(config, list, directory, seed=0)
    rng = np.random.default_rng(0)
    sequences = Sequences.from_lists([rng.integers(1, N_ITEMS + 1, 6).tolist() for _ in range(16)])
    table = torch.randn(N_ITEMS + 1, 6, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return Ingredients(sequences, N_ITEMS, table, directory, histories=sequences)


def maps(recommender: LLMRecommender) -> list[torch.Tensor]:
    """The query map of each layer, which no LoRA lies beside."""
    return [layer.get_submodule(MAP).weight for layer in recommender.decoder.layers]


@pytest.mark.parametrize("start", ["backbone", "teacher"])
@pytest.mark.parametrize(("rule", "expected"), [("first", (1, 2)), ("interval", (1, 4)), ("influence", None)])
def test_the_outcome_names_the_layers_that_were_taken(
    ingredients: Ingredients, start: str, rule: str, expected: tuple[int, ...] | None, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = LLMRecommender.from_backbone(TEACHER, ingredients.backbone, ingredients.item_table, seed=0)
    if expected is None:
        expected = choose_layers("influence", 4, 2, block_influence(teacher, ingredients.sequences))
    given = maps(teacher)  # untrained, they are the backbone's
    distillation = DistillationConfig(blocks=2, start=start, layers=rule)
    with caplog.at_level("INFO", "slmrec.fitting"):
        student, outcome = fit_student(
            ingredients, STUDENT, ONE_STEP, Course(seed=0), distillation=distillation, teacher=teacher
        )
    assert outcome.taken_layers == expected
    assert f"begins as layers {expected[0]}, {expected[1]} of the {start}" in caplog.text
    for mine, number in zip(maps(student), expected, strict=True):
        torch.testing.assert_close(mine.cpu(), given[number - 1].cpu())


def test_random_layers_were_taken_from_nowhere_and_without_a_teacher_they_are_the_first(
    ingredients: Ingredients,
) -> None:
    alone = DistillationConfig(blocks=2, lambda_cos=0.0, lambda_norm=0.0)
    for start, expected in (("random", None), ("backbone", (1, 2))):
        _, outcome = fit_student(
            ingredients, STUDENT, ONE_STEP, Course(seed=0), distillation=replace(alone, start=start), teacher=None
        )
        assert outcome.taken_layers == expected


def test_online_they_are_named_too(ingredients: Ingredients) -> None:
    _, outcome = fit_online(
        ingredients,
        STUDENT,
        ONE_STEP,
        Course(seed=0),
        distillation=DistillationConfig(blocks=2, layers="interval"),
        teacher_config=TEACHER,
        detached=True,
    )
    assert outcome.taken_layers == (1, 4)
