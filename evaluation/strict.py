"""Strict reading of JSON into frozen dataclasses: nothing unknown, nothing missing, nothing of another type.

Belongs here: the decoder. Not here: what the dataclasses mean and which values they allow (`records.py`).
"""

import json
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parse_json(text: str) -> Any:
    """Parse JSON; NaN and Infinity, which JSON doesn't know but Python would accept, are refused.

    Raises:
        ValueError: if the text isn't JSON.
    """
    return json.loads(text, parse_constant=_refuse_constant)


def decode(cls: type[T], values: Any, where: str = "") -> T:
    """Build the dataclass `cls` from a JSON object.

    Args:
        cls: a dataclass of str, bool, int, float, Any, T | None, tuple[T, ...], dict[str, T] and dataclasses.
        values: what `parse_json` gave.
        where: path of the value inside the file, for messages.

    Raises:
        ValueError: naming the field that is unknown, missing or of another type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where or 'the file'} must be an object with fields, not {_kind(values)}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # T is a dataclass
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown field {_join(where, unknown[0])}")
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise ValueError(f"missing field {_join(where, missing[0])}")
    hints = get_type_hints(cls)
    return cls(**{name: _value(hints[name], value, _join(where, name)) for name, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that the annotation asks for."""
    arguments = get_args(hint)
    if get_origin(hint) in (types.UnionType, Union):
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _value(inner, value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, not {_kind(value)}")
        return tuple(_value(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(value))
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be an object, not {_kind(value)}")
        return {key: _value(arguments[1], item, _join(where, key)) for key, item in value.items()}
    if is_dataclass(hint):
        return decode(hint, value, where)  # type: ignore[arg-type]  # a class, as get_type_hints gives it
    return value if hint is Any else _plain(hint, value, where)


def _plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if type(value) is not hint or hint is float:
        raise ValueError(f"{where} must be {_NAMES[hint]}, not {_kind(value)}")
    return value


_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a finite number"}


def _kind(value: Any) -> str:
    return "null" if value is None else f"{value!r} ({type(value).__name__})"


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
