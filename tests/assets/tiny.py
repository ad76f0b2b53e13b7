"""A domain of forty users, its profile in seconds, and assets materialised on it, with all that they hand on.

What the tests expect is written here a second time, by hand: the rows of each part, the settings, the recipes.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dagster import AssetsDefinition, DagsterInstance, StaticPartitionsDefinition, asset, materialize
from pydantic import BaseModel
from transformers import TrainerCallback

from assets.amazon.dataset import Dataset
from assets.amazon.reading.metadata import METADATA_SCHEMA
from assets.amazon.reading.raw_files import RawFile
from assets.amazon.splits import leave_one_out
from assets.amazon.text import item_texts as join_texts
from assets.data import DatasetStatistics, ItemTexts
from assets.inputs.corpus import Corpus
from assets.inputs.described_items import DescribedItems
from assets.inputs.training_rows import TrainingRows
from assets.inputs.validated_rows import ValidatedRows
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.recipe import Recipe
from models.backbone.sources import BackboneConfig, fit_backbone
from models.backbone.text_sources import ItemTextSettings, fit_item_texts
from models.baselines.sasrec import SASRecConfig, SASRecSettings, fit_sasrec
from models.baselines.sasrec_text import fit_sasrec_text
from models.baselines.text_graph import TextGraphSettings
from models.files import file_digest
from models.slmrec.distillation import DistillationConfig
from models.slmrec.item_embeddings import fit_item_embeddings
from models.slmrec.mixed_student import MixedStudentSettings, fit_mixed_student
from models.slmrec.narrow_student import NarrowStudentSettings, fit_narrow_student
from models.slmrec.rankings import RankingsOf, RankingsSettings, fit_teacher_rankings
from models.slmrec.recommender import PROMPT, LLMRecommenderConfig
from models.slmrec.student import StudentSettings, fit_student
from models.slmrec.teacher import TeacherSettings, fit_teacher
from models.slmrec.teacher_states import StatesSettings, fit_teacher_states
from models.training.config import TrainingConfig
from orchestration.definitions import build_definitions, partitioned

DOMAIN, ITEMS, USERS, SEED = "tiny", 30, 40, 7
DOMAINS = """
tiny:
  title: Tiny domain
  source: {kind: synthetic, users: 50, items: 50, seed: 3}
"""
PROFILE = """
description: seconds, for the tests
seed: 3
baselines:
  sasrec:
    model: {d: 8, layers: 1}
    training: {learning_rate: 0.01, max_steps: 4, batch_size: 32}
  sasrec_text:
    model: {d: 8, layers: 1, items: ids_and_text}
    training: {learning_rate: 0.01, max_steps: 4, batch_size: 32}
  bsarec:
    model: {d: 8, layers: 1}
    training: {learning_rate: 0.01, max_steps: 2}
backbone:
  source: pretrain
  width: 16
  layers: 4
  heads: 2
  intermediate: 24
  vocabulary: 400
  context: 256
  training: {learning_rate: 0.1, max_steps: 10, batch_size: 4}
item_texts: {source: backbone, tokens: 32, standardise: whitened}
teacher:
  model: {layers: 4, objective: all_positions, max_items: 6}
  training: {learning_rate: 0.01, max_steps: 4, batch_size: 32}
student:
  model: {layers: 2, objective: all_positions, max_items: 6}
  distillation: {blocks: 2, lambda_cos: 2.0, lambda_norm: 0.3, lambda_ms: 0.5}
  training: {learning_rate: 0.01, max_steps: 4, batch_size: 32, evaluate_every: 2, evaluate_in: steps}
teacher_rankings: {folds: 3, items: 4}
narrow_student:
  model: {d: 8, layers: 1, items: ids_and_text}
  training: {learning_rate: 0.01, max_steps: 4, batch_size: 32}
  weight: 0.3
mixed_student: {weight: 0.7}
validation: {users: 15, seed: 5}
evaluation: {candidates: 3, seed: 11}
studies: {seeds: [7, 8], depths: [1, 4], lambda_kl: 1.5}
domains:
  tiny: {seed: 7}
"""
BACKBONE = BackboneConfig(
    source="pretrain",
    width=16,
    layers=4,
    heads=2,
    intermediate=24,
    vocabulary=400,
    context=256,
    training=TrainingConfig(learning_rate=0.1, max_steps=10, batch_size=4),
)
TEXTS = ItemTextSettings("backbone", tokens=32, standardise="whitened")
SASREC = SASRecSettings(
    model=SASRecConfig(d=8, layers=1), training=TrainingConfig(learning_rate=0.01, max_steps=4, batch_size=32)
)
SASREC_TEXT = replace(SASREC, model=SASRecConfig(d=8, layers=1, items="ids_and_text"))
TEACHER = TeacherSettings(
    model=LLMRecommenderConfig(layers=4, objective="all_positions", max_items=6),
    training=TrainingConfig(learning_rate=0.01, max_steps=4, batch_size=32),
)
STUDENT = StudentSettings(
    model=LLMRecommenderConfig(layers=2, objective="all_positions", max_items=6),
    distillation=DistillationConfig(blocks=2, lambda_cos=2.0, lambda_norm=0.3, lambda_ms=0.5),
    training=TrainingConfig(learning_rate=0.01, max_steps=4, batch_size=32, evaluate_every=2.0, evaluate_in="steps"),
)
RANKINGS = RankingsOf(RankingsSettings("text_graph", folds=3, items=4), TextGraphSettings())
NARROW_STUDENT = NarrowStudentSettings(
    model=SASRecConfig(d=8, layers=1, items="ids_and_text"),
    training=TrainingConfig(learning_rate=0.01, max_steps=4, batch_size=32),
    weight=0.3,
)
STATISTICS = {
    "history_length_histogram": {"5": 4, "6": 2},
    "popularity_curve": {"0.1": 0.4, "1": 1.0},
    "interactions_a_month": {"2014-01": 3, "2014-02": 4},
    "rating_histogram": {"4": 2, "5": 5},
}
IDENTIFYING = {"data_version", "code", "settings_hash", "seed", "upstream"}
"""What an identity is a hash of."""


def bought(seed: int = 0) -> list[list[int]]:
    """Each user's items in time order: 4 to 8 different ones, drawn."""
    drawn = np.random.default_rng(seed)
    return [(drawn.permutation(ITEMS)[: 4 + user % 5] + 1).tolist() for user in range(USERS)]


def dataset_of(rows: list[list[int]]) -> Dataset:
    """These users' splits, and the vocabularies."""
    frame = pl.DataFrame(
        {"user_id": range(len(rows)), "items": rows}, schema={"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}
    )
    return Dataset(
        kind="leave_one_out",
        splits=leave_one_out(frame),
        users=pl.DataFrame(
            {"user_id": range(len(rows)), "reviewer_id": [f"U{user:02}" for user in range(len(rows))]},
            schema_overrides={"user_id": pl.UInt32},
        ),
        items=pl.DataFrame(
            {"item_id": range(1, ITEMS + 1), "asin": [f"B{item:03}" for item in range(1, ITEMS + 1)]},
            schema_overrides={"item_id": pl.UInt32},
        ),
    )


def held_in(rows: list[list[int]]) -> list[list[int]]:
    """What is learnt from: all but each user's last two items."""
    return [row[:-2] for row in rows]


def review_text(user: int | str, item: int) -> str:
    """What a user wrote of an item; no two reviews are alike."""
    return f"item {item} as user {user} found it\nit does what it should, said user {user} of item {item}"


def write_reviews(path: Path, rows: list[list[int]]) -> RawFile:
    """Everybody's reviews, the held-out ones among them, and one of somebody who is no user."""
    users = [*((f"U{user:02}", user, item) for user, row in enumerate(rows) for item in row), ("GUEST", "guest", 1)]
    with path.open("w") as file:
        for reviewer, user, item in users:
            title, text = review_text(user, item).split("\n")
            line = {"reviewerID": reviewer, "asin": f"B{item:03}", "overall": 5.0, "unixReviewTime": 1}
            file.write(json.dumps({**line, "summary": title, "reviewText": text}) + "\n")
    size = path.stat().st_size
    return RawFile(part="reviews", path=path, bytes=size, sha256=file_digest(path), origin="tests", synthetic=True)


def item_texts(word: str = "thing") -> ItemTexts:
    """A line an item, its title."""
    numbers = range(1, ITEMS + 1)
    metadata = pl.DataFrame(
        {
            "asin": [f"B{item:03}" for item in numbers],
            "title": [f"{word} {item}" for item in numbers],
            "brand": [""] * ITEMS,
            "category": [[]] * ITEMS,
            "description": [[]] * ITEMS,
        },
        schema=METADATA_SCHEMA,
    )
    texts = join_texts(metadata, metadata.select("asin", item_id=pl.int_range(1, ITEMS + 1)))
    raw = RawFile(part="metadata", path=None, bytes=0, sha256="", origin="tests", synthetic=True)
    return ItemTexts(texts=texts, raw=raw)


def write_settings(folder: Path) -> None:
    """The domain and the profile, as a user's files."""
    (folder / "domains.yaml").write_text(DOMAINS)
    (folder / "tiny.yaml").write_text(PROFILE)


def made_by_hand(folder: Path, rows: list[list[int]]) -> dict[str, BaseModel]:
    """What the data stage hands on."""
    dataset = dataset_of(rows)
    statistics = DatasetStatistics(
        data_version=dataset.version, synthetic=True, raw=[], lines=0, quarantined={}, steps=[], values=STATISTICS
    )
    return {
        "raw_reviews": write_reviews(folder / "reviews.jsonl", rows),
        "item_texts": item_texts(),
        "splits": dataset,
        "dataset_statistics": statistics,
    }


def handed_on(name: str, value: BaseModel) -> AssetsDefinition:
    """An asset that was made before."""
    tables = any(isinstance(getattr(value, field), pl.DataFrame) for field in type(value).model_fields)

    @asset(name=name, io_manager_key="tables" if tables else "records")
    def made() -> type(value):
        return value

    return made


def materialise(
    wanted: AssetsDefinition | list[AssetsDefinition],
    given: Mapping[str, BaseModel],
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
) -> Any:
    """The value of an asset, or those of several by name, made in `$SLMREC_HOME` from what is given.

    Args:
        wanted: real assets; what they read of each other isn't given.
        given: by asset; what isn't read is left out.
        folder: of `write_settings`.
        overrides: laid over the profile.
    """
    several = wanted if isinstance(wanted, list) else [wanted]
    names = [one.key.to_user_string() for one in several]
    read = {key.to_user_string() for one in several for key in one.keys_by_input_name.values()} - set(names)
    definitions = build_definitions([folder / "domains.yaml"], [folder / "tiny.yaml"], "tiny")
    partitions = StaticPartitionsDefinition([DOMAIN])
    assets = [*(handed_on(name, given[name]) for name in sorted(read)), *several]
    with DagsterInstance.ephemeral() as instance:
        result = materialize(
            [partitioned(one, partitions) for one in assets],
            partition_key=DOMAIN,
            resources=dict(definitions.resources),
            run_config={"resources": {"profile": {"config": {"overrides": dict(overrides or {})}}}},
            instance=instance,
        )
    values = {name: result.output_for_node(name) for name in names}
    return values if isinstance(wanted, list) else values[names[0]]


@dataclass
class Followed:
    """A recipe that was really followed.

    Attributes:
        recipe: it.
        resumed: whether an earlier training had left its state.
        steps: stage -> optimiser steps that were taken now.
    """

    recipe: Recipe
    resumed: bool
    steps: Counter = field(default_factory=Counter)


class _Counting(TrainerCallback):
    def __init__(self, steps: Counter) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.steps[args.run_name] += 1


@contextmanager
def watched() -> Iterator[list[Followed]]:
    """Every recipe that is followed meanwhile, in order."""
    follow, seen = Recipe.follow, []

    def watch(recipe: Recipe, directory: Path, callbacks: list[TrainerCallback], state: Path, **ways: Any) -> Any:
        seen.append(Followed(recipe, state.exists()))
        return follow(recipe, directory, [*callbacks, _Counting(seen[-1].steps)], state, **ways)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "follow", watch)
        yield seen


@dataclass(frozen=True)
class Chain:
    """The chain up to its main results, run once on the tiny domain. Not to be changed.

    Attributes:
        folder: of the settings and the raw file.
        home: `$SLMREC_HOME` of that run.
        store: its MLflow store's URI.
        rows: `bought()`.
        values: what each asset handed on.
        followed: recipe by asset, as it was followed.
    """

    folder: Path
    home: Path
    store: str
    rows: list[list[int]]
    values: dict[str, Any]
    followed: dict[str, Recipe]

    @property
    def dataset(self) -> Dataset:
        return self.values["splits"]

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """Those of the chain by asset, `teacher_states` included."""
        found = {name: value for name, value in self.values.items() if isinstance(value, Checkpoint)}
        return {**found, "teacher_states": self.values["teacher_states"].kept}

    def expected(self) -> dict[str, Recipe]:
        """How the checkpoints of the learning assets should be made, put together by hand."""
        made, dataset = self.checkpoints, self.dataset
        validated, plain = ValidatedRows(dataset, 15, 5), TrainingRows(dataset)
        corpus = Corpus(self.values["raw_reviews"], self.values["item_texts"].texts, dataset, PROMPT)
        described = DescribedItems(self.values["item_texts"].texts, dataset, reads_backbone=True)
        backbone = {"language_backbone": made["language_backbone"]}
        texts = {"item_text_embeddings": made["item_text_embeddings"]}
        upstream = {name: made[name] for name in ("item_embeddings", "language_backbone")}
        taught = {**upstream, "teacher": made["teacher"], "teacher_states": made["teacher_states"]}
        of_teacher = {"teacher": made["teacher"]}
        ranked = {**texts, "teacher_rankings": made["teacher_rankings"]}
        mixed = {name: made[name] for name in ("narrow_student", "text_graph")}
        states = StatesSettings(2, "normed", "float32")
        recipes = [
            Recipe("language_backbone", fit_backbone, BACKBONE, SEED, corpus, {}, writes=True),
            Recipe("item_text_embeddings", fit_item_texts, TEXTS, SEED, described, backbone, writes=True),
            Recipe("sasrec", fit_sasrec, SASREC, SEED, validated),
            Recipe("sasrec_text", fit_sasrec_text, SASREC_TEXT, SEED, validated, texts),
            Recipe("item_embeddings", fit_item_embeddings, None, SEED, plain, {"sasrec": made["sasrec"]}, writes=True),
            Recipe("teacher", fit_teacher, TEACHER, SEED, validated, upstream),
            Recipe("teacher_states", fit_teacher_states, states, SEED, plain, of_teacher, writes=True),
            Recipe("student", fit_student, STUDENT, SEED, validated, taught),
            Recipe("teacher_rankings", fit_teacher_rankings, RANKINGS, SEED, plain, texts, writes=True),
            Recipe("narrow_student", fit_narrow_student, NARROW_STUDENT, SEED, validated, ranked),
            Recipe("mixed_student", fit_mixed_student, MixedStudentSettings(0.7), SEED, plain, mixed),
        ]
        return {recipe.name: recipe for recipe in recipes}


def identifying(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint's identity is a hash of."""
    return checkpoint.provenance.model_dump(include=IDENTIFYING)


def would_be(recipe: Recipe) -> dict[str, Any]:
    """The same of the checkpoint that a recipe makes."""
    return recipe.provenance().model_dump(include=IDENTIFYING)
