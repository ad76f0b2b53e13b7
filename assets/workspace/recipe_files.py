"""A recipe as files, JSON and Parquet, from which another process of ours makes the same checkpoint.

Belongs here: writing a recipe and reading it again. Not here: what a recipe is (`recipe.py`), and who reads it
(`assets/registry/processes.py`).

The fit, and the types of settings and inputs, are written as import strings such as
`models.baselines.sasrec:fit_sasrec`. Only what is defined in our own packages is accepted, so that no file can have
anything else run.
"""

import importlib
import json
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from assets.workspace.checkpoints import Checkpoint
from assets.workspace.identity import PACKAGES
from assets.workspace.recipe import Recipe

RECIPE = "recipe.json"
FRAME = "parquet"
"""The one key of what stands for a frame: the name of its file."""


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write a recipe to an empty folder: `recipe.json`, and a Parquet file for each frame of its inputs.

    Raises:
        ValueError: if another recipe would be read there: its checkpoint would not be the one that is wanted.
    """
    parts = {
        "name": recipe.name,
        "fit": _import_string(recipe.fit),
        "settings": _written(recipe.settings, folder),
        "seed": recipe.seed,
        "inputs": _written(recipe.inputs, folder),
        "upstream": {name: checkpoint.model_dump(mode="json") for name, checkpoint in recipe.upstream.items()},
        "writes": recipe.writes,
    }
    (folder / RECIPE).write_text(json.dumps(parts, allow_nan=False), encoding="utf-8")
    if _content(read_recipe(folder)) != _content(recipe):
        raise ValueError(
            f"The settings or inputs of {recipe.name} aren't the same when they are read back from JSON: give each "
            "field a value of the type that it declares."
        )


def read_recipe(folder: Path) -> Recipe:
    """The recipe that `write_recipe` has written.

    Raises:
        ValueError: if it names a function or type that is none of ours, or holds a value of another type.
    """

    def framed(found: dict[str, Any]) -> Any:
        return pl.read_parquet(folder / found[FRAME]) if found.keys() == {FRAME} else found

    parts = json.loads((folder / RECIPE).read_text(encoding="utf-8"), object_hook=framed)
    upstream = {name: Checkpoint.model_validate(checkpoint) for name, checkpoint in parts["upstream"].items()}
    read = {name: _read(parts[name]) for name in ("settings", "inputs")}
    return Recipe(
        parts["name"], _imported(parts["fit"]), seed=parts["seed"], upstream=upstream, writes=parts["writes"], **read
    )


def _content(recipe: Recipe) -> tuple[Any, ...]:
    """What the identity depends on besides code and upstream; 2 and 2.0 are the same here."""
    return recipe.settings, recipe.inputs.data_version, recipe.inputs.items_version, recipe.inputs.facts()


def _written(value: Any, folder: Path) -> dict[str, Any] | None:
    """The value in JSON's types, with its type; its frames become files of the folder."""
    if value is None:
        return None

    def frame(found: Any) -> dict[str, str]:
        if not isinstance(found, pl.DataFrame):
            raise ValueError(f"A {type(found).__name__} in {type(value).__name__} can't be written as JSON.")
        file = folder / f"{len(list(folder.iterdir()))}.parquet"
        found.write_parquet(file)
        return {FRAME: file.name}

    told = TypeAdapter(type(value)).dump_python(value, mode="json", fallback=frame, warnings="none")  # it is read back
    return {"type": _import_string(type(value)), "value": told}


def _read(part: dict[str, Any] | None) -> Any:
    return None if part is None else TypeAdapter(_imported(part["type"])).validate_python(part["value"])


def _import_string(found: Callable[..., Any]) -> str:
    return f"{found.__module__}:{found.__qualname__}"


def _imported(text: str) -> Any:
    """What an import string names; ValueError where that is defined in no package of ours."""
    module, _, name = text.partition(":")
    ours = module.partition(".")[0] in PACKAGES
    found = attrgetter(name)(importlib.import_module(module)) if ours else None
    if found is None or _import_string(found) != text:
        raise ValueError(f"{text} is no function or type that is defined in {', '.join(PACKAGES)}.")
    return found
