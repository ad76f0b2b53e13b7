"""What frozen dataclasses of settings check alike when they are made.

Belongs here: choices, ranges and forms of single values, and which of them a source uses. Not here: which other values
exclude each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any, Literal, get_args, get_origin, get_type_hints


def check_choices(settings: Any) -> None:
    """ValueError for a field that is annotated as a Literal and holds none of its values."""
    for name, kind in get_type_hints(type(settings)).items():
        value, allowed = getattr(settings, name), get_args(kind)
        if get_origin(kind) is Literal and value not in allowed:
            raise ValueError(f"{name} must be {' or '.join(allowed)}, not {value!r} ({type(settings).__name__}).")


def check_range(settings: Any, names: str, **bounds: float) -> None:
    """ValueError for a field that is out of range or not a number; one that is None may stay so.

    Args:
        settings: the dataclass.
        names: of its fields, blanks between.
        bounds: `least` and `most` may be reached, `above` and `below` may not.
    """
    holds: dict[str, Callable[[float, float], bool]] = {"least": ge, "most": le, "above": gt, "below": lt}
    words = {"least": "at least", "most": "at most", "above": "greater than", "below": "less than"}
    for name in names.split():
        value = getattr(settings, name)
        if value is not None and not all(holds[kind](value, bound) for kind, bound in bounds.items()):
            wanted = " and ".join(f"{words[kind]} {bound}" for kind, bound in bounds.items())
            raise ValueError(f"{name} must be {wanted}, not {value} ({type(settings).__name__}).")


def check_source(settings: Any, what: str, uses: Mapping[str, Sequence[str]]) -> None:
    """ValueError unless `source` is one of those in `uses`, and exactly the fields are given that it uses.

    A field that no source uses is left alone; `what` is the thing with its article, such as "a backbone".
    """
    if settings.source not in uses:
        raise ValueError(f"The source of {what} must be one of {', '.join(uses)}, not {settings.source!r}.")
    used, named = uses[settings.source], f"{what.capitalize()} from {settings.source!r}"
    for name in dict.fromkeys(name for names in uses.values() for name in names):
        given = getattr(settings, name) is not None
        if given and name not in used:
            raise ValueError(f"{named} does not use {name}; leave it out.")
        if not given and name in used:
            raise ValueError(f"{named} needs {name}; give it.")


def check_forms(settings: Any, forms: Mapping[str, tuple[str, str]]) -> None:
    """ValueError for a text that isn't of its form; `forms` has by field a pattern, and the same in words."""
    for name, (pattern, wanted) in forms.items():
        value = getattr(settings, name)
        if value is not None and not re.fullmatch(pattern, value):
            raise ValueError(f"{name} must {wanted}, not {value!r}.")
