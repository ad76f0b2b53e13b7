"""What frozen dataclasses of settings check alike when they are made.

Belongs here: choices and ranges of single values. Not here: which values exclude each other.
"""

from __future__ import annotations

from collections.abc import Callable
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
