"""Domains: what a run is about. A domain names its source, its filters and its split.

They are read from `orchestration/domains.yaml` and from a YAML file of the user's own, named by `SLMREC_DOMAINS`.
How a domain is learned is the profile's business, not the domain's.
"""

import os
import re
from pathlib import Path
from typing import Any

from dagster import StaticPartitionsDefinition
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from assets.amazon.download.sources import LocalSource, Source
from assets.amazon.interactions import Filters
from assets.amazon.splits import LeaveOneOut, Split
from assets.configuration.settings import explain, read_settings

SHIPPED = Path(__file__).parents[2] / "orchestration" / "domains.yaml"
VARIABLE = "SLMREC_DOMAINS"


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


def load_domains() -> dict[str, Domain]:
    """All domains by name: the shipped ones, then the user's, which may not take a shipped name.

    Raises ValueError with the file, the domain and the field that is wrong.
    """
    domains = _read(SHIPPED)
    own = os.environ.get(VARIABLE)
    if own:
        path = Path(own).expanduser().resolve()
        if not path.is_file():
            raise ValueError(
                f"{VARIABLE} names {path}, and there is no such file: give the path of a YAML file of domains."
            )
        added = _read(path)
        if taken := sorted(domains.keys() & added.keys()):
            raise ValueError(f"{path}: {', '.join(taken)} is the name of a shipped domain: give yours another name.")
        domains |= added
    return domains


def find_domain(name: str) -> Domain:
    """The domain of that name, or ValueError listing those there are."""
    domains = load_domains()
    if name not in domains:
        raise ValueError(
            f"There is no domain {name!r}. There are: {', '.join(domains)}. "
            f"To add one of your own, name a YAML file of domains in {VARIABLE} (README, 'Your own data')."
        )
    return domains[name]


def domain_partitions() -> StaticPartitionsDefinition:
    """One Dagster partition a domain."""
    return StaticPartitionsDefinition(list(load_domains()))


def _read(path: Path) -> dict[str, Domain]:
    raw = read_settings(path, "a YAML file of domains")
    if not isinstance(raw, dict) or not all(isinstance(fields, dict) for fields in raw.values()):
        raise ValueError(f"{path} must map a domain's name to its fields (title, source, filters, split).")
    return {name: _parse(path, name, fields) for name, fields in raw.items()}


def _parse(path: Path, name: str, fields: dict[str, Any]) -> Domain:
    if "name" in fields:
        raise ValueError(f"{path}, domain {name!r}: remove `name`: what stands before the settings is the name.")
    try:
        domain = Domain.model_validate({**fields, "name": name})
    except ValidationError as error:
        raise ValueError(f"{path}, domain {name!r}: {explain(error, Domain)}") from error
    return _anchored(domain, path.parent)


def _anchored(domain: Domain, folder: Path) -> Domain:
    """Local paths are relative to the YAML file that names them."""
    if not isinstance(domain.source, LocalSource):
        return domain
    reviews = folder / domain.source.reviews.expanduser()
    metadata = domain.source.metadata and folder / domain.source.metadata.expanduser()
    return domain.model_copy(
        update={"source": domain.source.model_copy(update={"reviews": reviews, "metadata": metadata})}
    )
