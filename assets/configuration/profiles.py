"""Profiles: how a domain is learned and judged, at which size. Typed; a default cites the paper or is marked "ours".

A profile is a YAML file, a shipped one or the user's own. What follows from the domain (source, filters, split) is not
here. Importing this module imports torch: the code location does it lazily.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from assets.configuration.settings import explain, overlay, read_settings
from models.backbone.sources import BackboneConfig
from models.backbone.text_sources import ItemTextSettings
from models.baselines import declared
from models.slmrec.mixed_student import MixedStudentSettings
from models.slmrec.narrow_student import NarrowStudentSettings
from models.slmrec.rankings import RankingsSettings
from models.slmrec.student import StudentSettings
from models.slmrec.teacher import TeacherSettings
from models.training.config import TrainingConfig


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ValidationProfile(_Part):
    """The users on whom a training is validated; trainings depend on this, and on nothing of `evaluation`."""

    users: int | None = Field(default=None, ge=1, description="how many, drawn once; all of them if absent (ours)")
    seed: int = Field(default=2024, ge=0, description="of that draw (ours)")


class EvaluationProfile(_Part):
    """What the protocols leave open; no training depends on it."""

    candidates: int = Field(default=999, ge=1, description="sampled negatives a user (paper)")
    sampling: Literal["expected", "drawn"] = Field(
        default="expected",
        description="in closed form, or drawn once as the released code does, but with a seed (ours)",
    )
    seed: int = Field(default=2024, ge=0, description="of drawn candidates, bootstrap and randomisation test (ours)")


class GateProfile(_Part):
    """When a student becomes the challenger (ours); no training and no evaluation depends on it."""

    margin: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="NDCG@10 that it may be worse than the champion, by the lower end of the paired 95 % interval",
    )
    slice_loss: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="the share of the champion's NDCG@10 that no slice may lose, by the upper end of its interval",
    )
    slice_users: int = Field(default=100, ge=1, description="slices of fewer users are shown, and not judged")
    latency_ms: float = Field(default=100, gt=0, description="the median of one request, of one history")
    promote: bool = Field(default=False, description="a student that passes becomes the champion, without a reviewer")


class StudiesProfile(_Part):
    """How large the studies are; the paper shows neither seeds nor spreads (ours)."""

    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2), min_length=1, description="every cell is trained with each of them"
    )
    depths: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="of depth_study; absent: the teacher's, halved down to 1"
    )
    lambda_kl: float = Field(default=1.0, gt=0, description="weight of the logits where they alone are distilled")
    training: TrainingConfig | None = Field(
        default=None, description="of every cell; absent: the student's, in depth_study the teacher's"
    )

    @model_validator(mode="after")
    def _no_cell_twice(self) -> Self:
        for name, values, least in (("seeds", self.seeds, 0), ("depths", self.depths or (1,), 1)):
            if len(set(values)) < len(values) or min(values) < least:
                raise ValueError(f"{name} must be different numbers, each at least {least}, not {values}")
        return self


class ItemEmbeddingsProfile(_Part):
    """What teacher and student know of the items."""

    table: Literal["sasrec", "sasrec_text"] = Field(
        default="sasrec", description="whose item table: SASRec's of the items' numbers (paper), or of their texts too"
    )


class DeliveryProfile(_Part):
    """What is delivered."""

    recommender: Literal["student", "narrow_student", "mixed_student"] = Field(
        default="student", description="whose version may become the challenger (ours)"
    )


def _block(settings: type) -> Any:
    """A baseline's block is optional if all of its settings have defaults."""
    try:
        return settings, settings()
    except TypeError:
        return settings, ...


Baselines = create_model(
    "Baselines", __base__=_Part, **{name: _block(one.settings) for name, one in declared().items()}
)
"""A block a declared baseline, under its name."""


class Profile(_Part):
    """Everything about a run that isn't the data."""

    name: str
    description: str
    seed: int = Field(default=0, ge=0)
    baselines: Baselines
    backbone: BackboneConfig
    item_texts: ItemTextSettings = ItemTextSettings()
    item_embeddings: ItemEmbeddingsProfile = ItemEmbeddingsProfile()
    teacher: TeacherSettings
    student: StudentSettings
    teacher_rankings: RankingsSettings = RankingsSettings()
    narrow_student: NarrowStudentSettings
    mixed_student: MixedStudentSettings = MixedStudentSettings()
    delivery: DeliveryProfile = DeliveryProfile()
    validation: ValidationProfile = ValidationProfile()
    evaluation: EvaluationProfile = EvaluationProfile()
    gate: GateProfile = GateProfile()
    studies: StudiesProfile = StudiesProfile()

    def settings_of(self, recommender: str) -> Any:
        """The block of a declared recommender."""
        return (
            getattr(self, recommender)
            if recommender in ("teacher", "student", "narrow_student", "mixed_student")
            else getattr(self.baselines, recommender)
        )

    @model_validator(mode="after")
    def _depths_fit(self) -> Self:
        teacher, student = self.teacher.model.layers, self.student.model.layers
        if student > teacher:
            raise ValueError(f"the student has {student} layers and its teacher {teacher}: give the student fewer")
        depth = self.backbone.layers  # known before it is loaded only where it is made here
        if depth is not None and teacher > depth:
            raise ValueError(
                f"the teacher wants {teacher} layers of a backbone of {depth}: lower one or raise the other"
            )
        context = self.backbone.context
        if self.item_texts.source == "backbone" and context is not None and self.item_texts.tokens > context:
            raise ValueError(
                f"item_texts wants {self.item_texts.tokens} tokens of a text, and the backbone reads {context}: set "
                f"its tokens to {context} or less"
            )
        deepest = max(self.studies.depths or (0,))
        if depth is not None and deepest > depth:
            raise ValueError(f"depth_study wants {deepest} layers of a backbone of {depth}: ask for fewer")
        blocks = self.student.distillation.blocks
        if teacher % blocks or student % blocks:
            raise ValueError(
                f"{teacher} teacher layers and {student} student layers don't both divide into {blocks} blocks"
            )
        if self.teacher.model.objective != self.student.model.objective:
            raise ValueError(
                "teacher and student must share one objective: their states are compared position by position"
            )
        theirs, own = self.teacher.model.max_items, self.student.model.max_items
        if self.student.looks_at_teacher and theirs != own:
            raise ValueError(
                f"the teacher reads {theirs} items and the student {own}, so their states can't be compared: give both "
                "the same max_items"
            )
        return self


def load_profile(path: Path, domain: str | None = None, overrides: Mapping[str, Any] | None = None) -> Profile:
    """The profile of a YAML file; its values for the domain, then the overrides, are laid over it.

    Raises:
        ValueError: names the file, the field and what is wrong with it.
    """
    raw = read_settings(path, "a YAML file of a profile")
    if not isinstance(raw, dict):
        raise ValueError(f"Profile {path} must map names to values (see the shipped profile sample.yaml).")
    by_domain = raw.pop("domains", {})
    merged = overlay(overlay(raw, by_domain.get(domain, {})), overrides or {})
    try:
        return Profile(name=path.stem, **merged)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"Profile {path.stem} ({path}): {explain(error, Profile)}") from error
