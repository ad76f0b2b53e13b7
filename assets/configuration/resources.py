"""Domain and profile as Dagster resources: chosen and overridden in the launchpad, by a schedule or a command."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import ConfigurableResource, InitResourceContext
from pydantic import Field, create_model

from assets.configuration.domains import Domain, find_domain, load_domains

if TYPE_CHECKING:
    from assets.configuration.profiles import Profile

PARTITION_TAG = "dagster/partition"
PROFILE_TAG = "slmrec/profile"


def partition_of(context: InitResourceContext) -> str | None:
    """The domain that a run is about; None for a run of assets without partitions."""
    return context.run.tags.get(PARTITION_TAG) if context.run else None


class DomainResource(ConfigurableResource["DomainResource"]):
    """The domains by name."""

    files: list[str] = Field(default=[], description="YAML files of domains; no name may occur twice")
    as_of: str | None = Field(default=None, description="a day, 2018-09-26: what came later is left out of the domain")
    overrides: dict[str, Any] = Field(
        default={}, description='laid over the domain, such as {"filters": {"ties": "asin"}}'
    )

    def load(self, name: str) -> Domain:
        """The domain of that name; ValueError in plain words where it is wrong."""
        day: dict[str, Any] = {"filters": {"as_of": self.as_of}} if self.as_of else {}
        found = find_domain(load_domains([Path(file) for file in self.files]), name, self.overrides)
        return find_domain({name: found}, name, day)

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Refuse a wrong domain before anything has started."""
        if domain := partition_of(context):
            self.load(domain)


def domain_resource(files: Sequence[Path]) -> DomainResource:
    """The resource for the domains of these YAML files."""
    paths = Field(default=[str(path) for path in files], description="YAML files of domains")
    return create_model("DomainResource", __base__=DomainResource, files=(list[str], paths))()


class ProfileResource(ConfigurableResource[Any]):
    """A profile by name, and values laid over it; `profile_resource` adds the choice among those there are."""

    files: list[str] = Field(default=[], description="the profiles' YAML files")
    overrides: dict[str, Any] = Field(
        default={}, description='laid over the profile, such as {"student": {"training": {"epochs": 2}}}'
    )

    @property
    def name(self) -> str:
        """The chosen profile's."""
        chosen = self.profile  # type: ignore[attr-defined]  # of the child that `profile_resource` makes
        return str(chosen.value if isinstance(chosen, Enum) else chosen)

    def load(self, domain: str) -> "Profile":
        """The validated profile for a domain; ValueError in plain words where it is wrong."""
        from assets.configuration.profiles import load_profile

        (path,) = (Path(file) for file in self.files if Path(file).stem == self.name)
        return load_profile(path, domain, self.overrides)

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Refuse a wrong profile before anything has started, and let the run say which it is."""
        if domain := partition_of(context):
            self.load(domain)
        if context.instance and context.run:
            context.instance.add_run_tags(context.run.run_id, {PROFILE_TAG: self.name})


def profile_resource(files: Sequence[Path], default: str) -> ProfileResource:
    """The resource whose `profile` is one of these files' names; the UI offers them.

    Raises:
        ValueError: if two have one name, or the default is none of them.
    """
    known = [path.stem for path in files]
    if doubled := [str(path) for path in files if known.count(path.stem) > 1]:
        raise ValueError(f"Profiles need different names, but {' and '.join(doubled)} have one: rename a file.")
    if default not in known:
        raise ValueError(f"There is no profile {default!r}. There are: {', '.join(known)}; or give a YAML file's path.")
    names = Enum("ProfileName", {name: name for name in known})  # type: ignore[misc]
    chosen = Field(default=names[default], description="how the domain is learned and judged")
    paths = Field(default=[str(path) for path in files], description="the profiles' YAML files")
    return create_model(
        "ProfileResource", __base__=ProfileResource, profile=(names, chosen), files=(list[str], paths)
    )()
