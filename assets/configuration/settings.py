"""YAML files of settings, read so that nothing is lost or guessed, and what is wrong with a setting in plain words.

Not here: which settings there are (`domains.py`, `profiles.py` and the models that they name).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from assets.amazon.download.addresses import shown


class _Loader(yaml.SafeLoader):
    """PyYAML's, but a name written twice is an error, and a date a text: the setting says what a date is."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own way)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if (name := str(key.value)) in lines:
                where = f"lines {lines[name]} and {line}" if lines[name] < line else f"line {line}"
                raise ValueError(f"`{name}` is written twice, in {where}: keep one of them")
            lines[name] = line
        return node


def read_settings(path: Path, what: str) -> Any:
    """What a YAML file holds; `what` it should be is said where it can't be read.

    Raises ValueError with the file, and with both lines of a name that is written twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a safe loader's child)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} can't be read as {what}: {error}") from error


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The base's settings with the other's laid over them, group by group.

    >>> overlay({"student": {"layers": 4, "heads": 2}}, {"student": {"layers": 1}})
    {'student': {'layers': 1, 'heads': 2}}
    """
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = overlay(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return merged


def explain(error: Exception, model: type[BaseModel]) -> str:
    """What is wrong with each setting of a model, and where there is a remedy which; no key of an address is shown."""
    if not isinstance(error, ValidationError):
        return str(error)
    return shown("; ".join(_sentence(detail, model) for detail in error.errors()))


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, given = detail["type"], detail["input"]
    names, above, found = _walk(model, detail["loc"])
    where = ".".join(names) or "the whole"
    kinds = ", ".join(_kind(one) for one in found) if len(found) > 1 else ""
    if kind in ("extra_forbidden", "invalid_key", "unexpected_keyword_argument"):
        known = f"; there are {', '.join(_settings(above))}" if above else ""
        return f"{where}: there is no such setting here{known}"
    if kind == "missing":
        return f"{where}: it is missing"
    if kinds and isinstance(given, Mapping):
        wrong = f"; {given['kind']!r} is none" if "kind" in given else ""
        return f"{where}: it needs a `kind`, one of {kinds}{wrong}"
    if kinds:
        example = given if given in kinds.split(", ") else "…"
        return f"{where}: write it as {{kind: {example}}}, one of {kinds} (given: {given!r:.80})"
    if found and not isinstance(given, Mapping):
        return f"{where}: it needs settings below it, such as {_settings(found)[0]}, or leave it out (given: {given!r})"
    said = detail["msg"].removeprefix("Value error, ").replace("Input should be", "it must be", 1)
    return f"{where}: {said}" + ("" if isinstance(given, Mapping) else f" (given: {given!r:.80})")


def _walk(model: type[BaseModel], place: Sequence[int | str]) -> tuple[list[str], list[type], list[type]]:
    """The names of the settings on the way to a place, and the models that may stand above it and at it.

    Where a setting has several kinds, pydantic puts the kind behind its name; it isn't one of the names.
    """
    names: list[str] = []
    above: list[type[BaseModel]] = []
    found = [model]
    for part in place:
        of_kind = [one for one in found if len(found) > 1 and _kind(one) == part]
        if of_kind:
            found = of_kind
            continue
        names.append(str(part))
        above, fields = found, {name: field for one in found for name, field in one.model_fields.items()}
        found = _models(fields[str(part)].annotation) if part in fields else []
    return names, above, found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _kind(model: type[BaseModel]) -> str:
    return str(model.model_fields["kind"].default)


def _settings(models: Sequence[type[BaseModel]]) -> list[str]:
    """The names that may be written; a `name` is given by what stands before the settings, or by the file."""
    return list(dict.fromkeys(name for model in models for name in model.model_fields if name != "name"))
