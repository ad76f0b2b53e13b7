"""Domains: what a run is about. A domain names its source, its filters and its split.

They are read from YAML files: the shipped one, and the user's own. How a domain is learned is the profile's business.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from assets.amazon.download.sources import LocalSource, Source
from assets.amazon.interactions import Filters
from assets.amazon.splits import LeaveOneOut, Split
from assets.configuration.settings import explain, overlay, read_settings


class DriftLimits(BaseModel, extra="forbid", frozen=True):
    """How far a domain's data may move from those that its champion learned from; a check of `drift` has each name.

    Those of the population stability indices are what by custom is worth a look (Siddiqi, Credit Risk Scorecards, 2006:
    from 0.1 to 0.25 some change, above 0.25 one to act on); those of the shares are ours.
    """

    item_popularity_psi: float = Field(0.1, gt=0, strict=True, description="of purchases, over items by popularity")
    history_length_psi: float = Field(0.1, gt=0, strict=True, description="of the training sequences' lengths")
    score_psi: float = Field(0.1, gt=0, strict=True, description="of the champion's best score for a test history")
    new_users: float = Field(0.2, ge=0, le=1, strict=True, description="part of the users")
    new_items: float = Field(0.2, ge=0, le=1, strict=True, description="part of the items")
    interactions_with_new_items: float = Field(0.1, ge=0, le=1, strict=True, description="part of the interactions")


class Domain(BaseModel):
    """One data set, from where it lies to how it is split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    source: Source
    maximum_bad_share: float = Field(
        0.001,
        ge=0,
        le=1,
        strict=True,
        description="the run stops where a larger part of a raw file's lines can't be used (ours)",
    )
    filters: Filters = Filters()
    split: Split = LeaveOneOut()
    drift: DriftLimits = DriftLimits()
    recommended_items: int = Field(
        20, ge=1, le=1000, strict=True, description="how many items the asset recommendations gives each user (ours)"
    )
    retrain: bool = Field(
        False,
        strict=True,
        description="the source grows: it is looked at again, and the weekly schedule takes the domain along (ours)",
    )

    @field_validator("name", mode="before")
    @classmethod
    def _plain(cls, name: Any) -> Any:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                "a domain's name has small letters, digits and _ only, and begins with a letter, such as my_data"
            )
        return name

    @property
    def synthetic(self) -> bool:
        """Whether the data are made by our own generator; shown wherever a number of it shows."""
        return self.source.kind == "synthetic" or (self.source.kind == "local" and self.source.synthetic)

    @model_validator(mode="after")
    def _split_in_time(self) -> "Domain":
        if self.filters.order == "file" and self.split.kind == "temporal":
            raise ValueError(
                "a temporal split needs each user's items by time: set `order: time` in the filters, or split by "
                "leave_one_out"
            )
        return self


def load_domains(files: Sequence[Path]) -> dict[str, Domain]:
    """All domains of these YAML files by name.

    Raises:
        ValueError: names the file, the domain and the field that is wrong, or a name that two files have.
    """
    domains: dict[str, Domain] = {}
    for path in files:
        if not path.is_file():
            raise ValueError(f"There is no file of domains {path}: name one that is there (README, 'Your own data').")
        added = _read(path)
        if taken := sorted(domains.keys() & added.keys()):
            raise ValueError(f"{path}: {', '.join(taken)} is the name of another domain: give yours another name.")
        domains |= added
    return domains


def find_domain(domains: Mapping[str, Domain], name: str, overrides: Mapping[str, Any] | None = None) -> Domain:
    """The domain of that name, with the overrides laid over its settings.

    Raises:
        ValueError: lists the domains there are, or names the setting that is wrong.
    """
    if name not in domains:
        raise ValueError(
            f"There is no domain {name!r}. There are: {', '.join(domains)}. "
            "To add one of your own, name a YAML file of domains in SLMREC_DOMAINS (README, 'Your own data')."
        )
    if not overrides:
        return domains[name]
    try:
        return Domain.model_validate(overlay(domains[name].model_dump(), overrides))
    except ValidationError as error:
        raise ValueError(f"The overrides of domain {name!r}: {explain(error, Domain)}") from error


def _read(path: Path) -> dict[str, Domain]:
    raw = read_settings(path, "a YAML file of domains")
    if not isinstance(raw, dict) or not all(isinstance(fields, dict) for fields in raw.values()):
        raise ValueError(f"{path} must map a domain's name to its fields (title, source, filters, split).")
    domains = {}
    for name, fields in raw.items():
        if "name" in fields:
            raise ValueError(f"{path}, domain {name!r}: remove `name`: what stands before the settings is the name.")
        try:
            domain = Domain.model_validate({**fields, "name": name})
        except ValidationError as error:
            raise ValueError(f"{path}, domain {name!r}: {explain(error, Domain)}") from error
        source = domain.source
        if isinstance(source, LocalSource):  # its paths are relative to the file that names them
            paths = {
                "reviews": path.parent / source.reviews.expanduser(),
                "metadata": source.metadata and path.parent / source.metadata.expanduser(),
            }
            domain = domain.model_copy(update={"source": source.model_copy(update=paths)})
        domains[name] = domain
    return domains
