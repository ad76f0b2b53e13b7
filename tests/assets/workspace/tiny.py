"""A tiny domain, and a recipe of every kind on it: what the tests of recipes, checkpoints and evaluations share."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assets.amazon.dataset import SPLIT_TYPE, Dataset
from assets.amazon.reading.raw_files import RawFile
from assets.configuration.domains import Domain
from assets.inputs.corpus import Corpus
from assets.inputs.described_items import DescribedItems
from assets.inputs.training_rows import TrainingRows
from assets.inputs.validated_rows import ValidatedRows
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.recipe import Recipe
from models.backbone.lora import LoraSettings
from models.backbone.sources import fit_backbone
from models.backbone.text_sources import ItemTextSettings, fit_item_texts
from models.baselines import declared
from models.baselines.sasrec import SASRecConfig, SASRecSettings
from models.slmrec.distillation import DistillationConfig
from models.slmrec.item_embeddings import fit_item_embeddings
from models.slmrec.mixed_student import MixedStudentSettings, fit_mixed_student
from models.slmrec.narrow_student import NarrowStudentSettings, fit_narrow_student
from models.slmrec.rankings import fit_teacher_rankings
from models.slmrec.recommender import PROMPT, LLMRecommenderConfig
from models.slmrec.student import OnlineSettings, StudentSettings, fit_online, fit_student
from models.slmrec.teacher import TeacherSettings, fit_teacher
from models.slmrec.teacher_states import fit_teacher_states
from models.training.config import TrainingConfig
from tests.assets import tiny

ITEMS = 20
CLOTH = Domain(name="cloth", title="Clothing", source={"kind": "synthetic", "users": 50, "items": 20, "seed": 0})

TRAINING = TrainingConfig(learning_rate=0.01, max_steps=4, batch_size=16, evaluate_every=2, evaluate_in="steps")
SASREC = SASRecSettings(SASRecConfig(d=8, layers=1, dropout=0.2, max_length=8), TRAINING)
MODEL = LLMRecommenderConfig(
    layers=4, objective="all_positions", max_items=6, tuned=LoraSettings(rank=2, alpha=4, dropout=0.0)
)
STUDENT = StudentSettings(
    replace(MODEL, layers=2), DistillationConfig(blocks=2, lambda_norm=0.01, lambda_ms=0.1, layers="interval"), TRAINING
)
BACKBONE = replace(tiny.BACKBONE, context=128, training=TrainingConfig(learning_rate=0.01, max_steps=2, batch_size=4))


def random_rows(users: int = 30, items: int = ITEMS, seed: int = 0) -> list[list[int]]:
    """Each user's items in time order, 4 to 8 different ones."""
    rng = np.random.default_rng(seed)
    return [(rng.permutation(items)[: rng.integers(4, 9)] + 1).tolist() for _ in range(users)]


def dataset_of(rows: Sequence[Sequence[int]], item_ids: Sequence[str] | None = None) -> Dataset:
    """Leave-one-out splits of these users' items, cut here by hand."""
    ids = item_ids or [f"B{item:03}" for item in range(1, ITEMS + 1)]
    parts = {
        "train": [(user, row[:-3], row[-3]) for user, row in enumerate(rows)],
        "validation": [(user, row[:-2], row[-2]) for user, row in enumerate(rows)],
        "test": [(user, row[:-1], row[-1]) for user, row in enumerate(rows)],
    }
    return Dataset(
        kind="leave_one_out",
        splits=pl.DataFrame(
            [(part, *row) for part, of_part in parts.items() for row in of_part],
            schema={"split": SPLIT_TYPE, "user_id": pl.UInt32, "history": pl.List(pl.UInt32), "target": pl.UInt32},
            orient="row",
        ),
        users=pl.DataFrame(
            {"user_id": range(len(rows)), "reviewer_id": [f"A{user}" for user in range(len(rows))]},
            schema_overrides={"user_id": pl.UInt32},
        ),
        items=pl.DataFrame(
            {"item_id": range(1, len(ids) + 1), "asin": list(ids)}, schema_overrides={"item_id": pl.UInt32}
        ),
    )


ROWS = random_rows()
DATA = dataset_of(ROWS)
OTHER_DATA = dataset_of([*ROWS[:-1], ROWS[-1][::-1]])
"""One user's items in another order."""


def raw_reviews(path: Path, reviews: Sequence[tuple[str, str, str]]) -> RawFile:
    """A raw file of (reviewer, item, text)."""
    lines = [
        {"reviewerID": reviewer, "asin": item, "overall": 5.0, "unixReviewTime": 1, "summary": "", "reviewText": text}
        for reviewer, item, text in reviews
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    digest = sha256(path.read_bytes()).hexdigest()
    return RawFile(
        part="reviews", path=path, bytes=path.stat().st_size, sha256=digest, origin="synthetic", synthetic=True
    )


def corpus(folder: Path, prompt: str = PROMPT) -> Corpus:
    """A text of every item, and a review of every purchase, those that are held out too."""
    bought = [
        (f"A{user}", f"B{item:03}", f"user{user} took item{item}") for user, row in enumerate(ROWS) for item in row
    ]
    items = {"item_id": range(1, ITEMS + 1), "text": [f"the thing number {item}" for item in range(1, ITEMS + 1)]}
    return Corpus(raw_reviews(folder / "reviews.json", bought), pl.DataFrame(items), DATA, prompt)


Recipes = Callable[[str, Mapping[str, Checkpoint], int], Recipe]


def recipes(folder: Path) -> tuple[list[str], Recipes]:
    """Every kind of recipe: the names, each after what it reads; and by name, checkpoints and seed the recipe."""
    rows, judged = TrainingRows(DATA), ValidatedRows(DATA, 10, 3)
    declarations = sorted(declared().values(), key=lambda one: len(one.upstream))
    baselines: dict[str, dict[str, Any]] = {
        one.name: {
            "fit": one.fit,
            "settings": SASREC if one.name == "sasrec" else _of_test_module(one.name),
            "inputs": judged if one.validated else rows,
        }
        for one in declarations
    }
    online = OnlineSettings(STUDENT.model, STUDENT.distillation, TRAINING, teacher=MODEL, detached=False)
    made: dict[str, dict[str, Any]] = {
        "language_backbone": {
            "fit": fit_backbone,
            "settings": BACKBONE,
            "inputs": corpus(folder),
            "writes": True,
        },
        "item_text_embeddings": {
            "fit": fit_item_texts,
            "settings": ItemTextSettings("backbone", tokens=32),
            "inputs": DescribedItems(tiny.item_texts().texts, DATA, reads_backbone=True),
            "writes": True,
        },
        **baselines,
        "item_embeddings": {"fit": fit_item_embeddings, "settings": None, "inputs": rows, "writes": True},
        "teacher": {"fit": fit_teacher, "settings": TeacherSettings(MODEL, TRAINING), "inputs": judged},
        "teacher_states": {
            "fit": fit_teacher_states,
            "settings": STUDENT.kept_states,
            "inputs": rows,
            "writes": True,
        },
        "student": {"fit": fit_student, "settings": STUDENT, "inputs": judged},
        "online": {"fit": fit_online, "settings": online, "inputs": judged},
        "teacher_rankings": {"fit": fit_teacher_rankings, "settings": tiny.RANKINGS, "inputs": rows, "writes": True},
        "narrow_student": {
            "fit": fit_narrow_student,
            "settings": NarrowStudentSettings(replace(SASREC.model, items="ids_and_text"), TRAINING),
            "inputs": judged,
        },
        "mixed_student": {"fit": fit_mixed_student, "settings": MixedStudentSettings(), "inputs": rows},
    }
    stands_on = ("item_embeddings", "language_backbone")
    upstream: dict[str, tuple[str, ...]] = {
        "item_text_embeddings": ("language_backbone",),
        **{one.name: one.upstream for one in declarations},
        "item_embeddings": ("sasrec",),
        "teacher": stands_on,
        "teacher_states": ("teacher",),
        "student": (*stands_on, "teacher", "teacher_states"),
        "online": stands_on,
        "teacher_rankings": ("item_text_embeddings",),
        "narrow_student": ("item_text_embeddings", "teacher_rankings"),
        "mixed_student": ("narrow_student", "text_graph"),
    }

    def recipe(name: str, checkpoints: Mapping[str, Checkpoint], seed: int) -> Recipe:
        read = {one: checkpoints[one] for one in upstream.get(name, ())}
        return Recipe(name=name, seed=seed, upstream=read, **made[name])

    return list(made), recipe


def _of_test_module(name: str) -> Any:
    return importlib.import_module(f"tests.models.baselines.test_{name}").TINY


def sasrec(**change: Any) -> Recipe:
    """A validated SASRec, with some fields changed."""
    from models.baselines.sasrec import fit_sasrec

    return replace(Recipe("sasrec", fit_sasrec, SASREC, 0, ValidatedRows(DATA, 10, 3)), **change)


def popularity(**change: Any) -> Recipe:
    """A count of purchases."""
    from models.baselines.popularity import PopularitySettings, fit_popularity

    return replace(Recipe("popularity", fit_popularity, PopularitySettings(), 0, TrainingRows(DATA)), **change)


def obtain(recipe: Recipe, *callbacks: Any, **runs: Any) -> tuple[Checkpoint, bool]:
    """The recipe's checkpoint in the home that is set, and whether it was made now."""
    return recipe.obtain(CLOTH.name, recipe.provenance(**{"profile": "tiny", **runs}), callbacks)


def make(recipe: Recipe) -> Checkpoint:
    """The recipe's checkpoint, new."""
    checkpoint, made = obtain(recipe)
    assert made
    return checkpoint


def flip_a_byte(path: Path) -> None:
    """Change the byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
