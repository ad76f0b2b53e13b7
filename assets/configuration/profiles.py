"""Profiles: how a domain is learned and judged, at which size. Typed; a default cites the paper or is marked "ours".

A profile is a YAML file in `orchestration/profiles/`, or one of the user's own, named by its path. What follows from
the domain (source, filters, split) is not here. Importing this module imports torch: the code location does it lazily.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from assets.configuration.settings import explain, read_settings
from evaluation.studies import MOST_SEEDS
from models.backbone.sources import BackboneConfig
from models.baselines.sasrec import SASRecConfig
from models.slmrec.distillation import DistillationConfig
from models.slmrec.recommender import LLMRecommenderConfig
from models.training.run import TrainingConfig

SHIPPED = Path(__file__).parents[2] / "orchestration" / "profiles"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SASRecProfile(_Part):
    """The sequential baseline, whose item table the language models read."""

    model: SASRecConfig
    training: TrainingConfig


class TeacherProfile(_Part):
    """The first M layers of the backbone as a recommender."""

    model: LLMRecommenderConfig
    training: TrainingConfig


class StudentProfile(_Part):
    """The first N layers, distilled from the teacher."""

    model: LLMRecommenderConfig
    distillation: DistillationConfig
    training: TrainingConfig
    teacher_states: Literal["cached", "live"] = Field(
        default="cached",
        description="keep the teacher's answers on disk, in bfloat16, or run the teacher at each step (ours)",
    )

    @property
    def looks_at_teacher(self) -> bool:
        """Whether anything of the teacher is used: its answers, or its layers."""
        ways = self.distillation
        return ways.follows_teacher or ways.start == "teacher" or ways.layers != "first"

    @property
    def keeps_states(self) -> bool:
        """Whether the teacher's answers are used, and read from disk."""
        return self.distillation.follows_teacher and self.teacher_states == "cached"


class EvaluationProfile(_Part):
    """What the protocols leave open."""

    candidates: int = Field(default=999, ge=1, description="sampled negatives a user (paper)")
    seed: int = Field(default=2024, ge=0, description="of the candidates and of the bootstrap (ours)")
    validation_users: int | None = Field(
        default=None,
        ge=1,
        description="users ranked at each validation while training; all of them if absent (ours)",
    )


class StudiesProfile(_Part):
    """How large the studies are; the paper shows neither seeds nor spreads (ours)."""

    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2), min_length=1, max_length=MOST_SEEDS, description="every cell is trained with each of them"
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


class Profile(_Part):
    """Everything about a run that isn't the data."""

    name: str
    description: str
    seed: int = Field(default=0, ge=0)
    sasrec: SASRecProfile
    backbone: BackboneConfig
    teacher: TeacherProfile
    student: StudentProfile
    evaluation: EvaluationProfile = EvaluationProfile()
    studies: StudiesProfile = StudiesProfile()

    def backbone_words(self) -> str:
        """Where the language model comes from, for tables and reports."""
        words = {
            "pretrain": "small LLaMA-architecture model pretrained here on the domain's own text",
            "scratch": "random LLaMA-architecture model (control)",
            "local": f"local model {self.backbone.path}",
            "hub": f"{self.backbone.repository} at {self.backbone.revision}",
        }
        return words[self.backbone.source]

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


def profile_names() -> list[str]:
    """The shipped profiles' names."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_profile(name: str, domain: str | None = None, overrides: Mapping[str, Any] | None = None) -> Profile:
    """The profile of that name (or YAML path); its values for the domain, then the overrides, are laid over it.

    Raises ValueError with the file, the field and what is wrong with it.
    """
    path = _find(name)
    raw = read_settings(path, "a YAML file of a profile")
    if not isinstance(raw, dict):
        raise ValueError(f"Profile {path} must map names to values (see orchestration/profiles/sample.yaml).")
    by_domain = raw.pop("domains", {})
    merged = _overlay(raw, by_domain.get(domain, {}))
    merged = _overlay(merged, overrides or {})
    try:
        return Profile(name=path.stem, **merged)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"Profile {path.stem} ({path}): {explain(error, Profile)}") from error


def _find(name: str) -> Path:
    own = Path(name).expanduser()
    if own.suffix in (".yaml", ".yml"):
        if own.is_file():
            return own
        raise ValueError(f"There is no profile file {own.resolve()}.")
    if name not in profile_names():
        raise ValueError(
            f"There is no profile {name!r}. There are: {', '.join(profile_names())}; or give the path of a YAML file."
        )
    return SHIPPED / f"{name}.yaml"


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _overlay(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return merged
