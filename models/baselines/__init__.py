"""The baselines: one file each, from top to bottom. A module that has a `DECLARATION` is a recommender; no list of them
is kept."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.declaration import Declaration


def declared() -> dict[str, Declaration]:
    """Every recommender of this folder by its name, ordered by year and then by name."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    found = [module.DECLARATION for module in modules if hasattr(module, "DECLARATION")]
    return {one.name: one for one in sorted(found, key=lambda one: (one.year, one.name))}
