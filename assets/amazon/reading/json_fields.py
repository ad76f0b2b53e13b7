"""The fields of JSON lines, as text: a quick road for nearly all lines and an exact one for the rest.

The quick road decodes a batch at once and fails as a whole where one line is bad; what failed is cut into pieces,
and a small piece that fails is read line by line in Python, which also mends what can be mended. Both roads give the
same fields for the same line. Which fields a review needs is `formats.py`'s subject; what is wrong with their values,
that of `reviews.py` and `metadata.py`.
"""

import ast
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

import polars as pl

Fields = Mapping[str, type[pl.String] | pl.List]

NOT_AN_OBJECT = "not a JSON object"
WHITE_SPACE = " \t\r\n\ufeff"
# Python literals that are dictionaries with a text as first key: the metadata of 2014
LOOSE_STARTS = ("{'", "{u'")
# Lines that the quick decoder would misread without complaint, so that it never gets them:
# two objects on a line. It puts the batch between brackets and commas; since every line it gets starts with {", ends
# with }, and has no comma between } and { or null, as many objects as lines are these lines' own;
# half a surrogate pair, such as \ud83d alone, which it reads as \u0000.
_MISREAD = r"\}\s*,?\s*[{n]|\\u[dD][89abAB][[:xdigit:]]{2}(?:[^\\]|\\[^u])"
# Texts that values of other kinds are decoded to as well: [1], {"k": 1}, true, 12.5. 0005019281 is no JSON number.
_AMBIGUOUS = r"^(?:[\[{]|-?(?:[1-9]|0(?:$|[.eE])|inf$)|true$|false$)"
# how many lines the pieces have into which a batch is cut that the quick decoder refused, and then such a piece
_PIECES = (1024, 128, 16)
# from here on integers are handed over as text, which the quick decoder never refuses
_LARGE_INTEGER = 1 << 63


def decode_fields(lines: pl.DataFrame, fields: Fields) -> pl.DataFrame:
    """The fields of a batch of lines; blank lines are left out.

    Args:
        lines: `line_number`, `line`, `problem` (null where the line is sound so far).
        fields: name -> String or List(String). Of a key that a line has twice the first counts.

    Returns:
        The rows with a new column a field: null where it is missing or null. As String, other values are JSON text;
        as List(String), nested lists are flattened and a single value is a list of one. `problem` is filled where the
        line is no object. The rows are in their order, but those with a problem may stand anywhere.
    """
    line, kind = pl.col("line"), pl.Struct(dict(fields))
    easy = lines.select(
        pl.col("problem").is_null()
        & line.str.starts_with('{"')
        & line.str.ends_with("}")
        & ~line.str.contains(_MISREAD)
    ).to_series()
    hard_lines = lines.filter(~easy).with_columns(line.str.strip_chars(WHITE_SPACE))
    hard_lines = hard_lines.filter((line != "") | pl.col("problem").is_not_null())
    quick, exact = _decode(lines.filter(easy), kind, _PIECES), _read_one_by_one(hard_lines, kind)
    both = pl.concat([*quick, exact])
    return both if exact["problem"].is_not_null().all() else both.sort("line_number")


def not_a_string(name: str) -> pl.Expr:
    """Whether a field of decoded lines holds something else than a string: bool, null where it is missing.

    7 and "7" are decoded alike, and so are [1] and a string that spells it out. Which it was the line tells; it is read
    again only if it does not hold the field with this text in one of the usual two ways to write it.
    """

    def unlike_a_string(fields: pl.Series) -> pl.Series:
        rows = fields.struct.unnest()
        unsure = rows[name].str.contains(_AMBIGUOUS)
        for start in (f'"{name}": "', f'"{name}":"'):
            if unsure.any():
                usual = pl.concat_str(pl.lit(start), pl.col(name), pl.lit('"'))
                unsure &= ~rows.select(pl.col("line").str.contains(usual, literal=True)).to_series()
        places = unsure.arg_true()
        objects = zip(places, map(parse_object, rows["line"].gather(places)), strict=True)
        strings = [place for place, found in objects if found and isinstance(found.get(name), str)]
        return unsure.scatter(strings, values=False) if strings else unsure

    return pl.struct(name, "line").map_batches(unlike_a_string, return_dtype=pl.Boolean)


def parse_object(line: str) -> dict[str, Any] | None:
    """The object that a line holds, as strict JSON or as a Python dictionary literal; None where it holds none.

    Of a key that JSON gives twice the first counts.
    """
    value = None
    try:
        value = _STRICT.decode(line)
    except (ValueError, RecursionError):
        if line.startswith(LOOSE_STARTS):
            with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                value = ast.literal_eval(line)
    return value if isinstance(value, dict) else None


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_first_of_each, parse_constant=_refuse)


def _decode(lines: pl.DataFrame, kind: pl.Struct, pieces: tuple[int, ...]) -> list[pl.DataFrame]:
    """The quick road over lines that look like objects, or where that fails the exact one: consecutive pieces."""
    if lines.is_empty():
        return []
    with suppress(pl.exceptions.ComputeError):  # one of them is not what it looks like
        # select, unlike the same method of a series, decodes on one of Polars's threads, which keep their memory
        objects = lines.select(pl.col("line").str.json_decode(kind))
        if objects.height == lines.height:
            return [lines.hstack(objects.unnest("line"))]
    if not pieces:
        return [_read_one_by_one(lines, kind)]
    return [decoded for piece in lines.iter_slices(pieces[0]) for decoded in _decode(piece, kind, pieces[1:])]


def _read_one_by_one(lines: pl.DataFrame, kind: pl.Struct) -> pl.DataFrame:
    """The exact road: each line is read in Python and written again in the form that the quick decoder reads."""
    forms = {field.name: _plain if field.dtype == pl.String else _flat for field in kind.fields}

    def written_again(line: str) -> str | None:
        value = parse_object(line)
        with suppress(RecursionError):
            if value is not None:
                plain = {name: form(value.get(name)) for name, form in forms.items()}
                return json.dumps(plain, ensure_ascii=False)
        return None

    rows = lines.select("line", "problem").iter_rows()
    objects = pl.Series([None if problem else written_again(line) for line, problem in rows], dtype=pl.String)
    problem = pl.when(objects.is_null() & pl.col("problem").is_null()).then(pl.lit(NOT_AN_OBJECT)).otherwise("problem")
    return lines.with_columns(problem.alias("problem")).hstack(objects.str.json_decode(kind).struct.unnest())


def _flat(value: Any) -> list[Any] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return [inner for each in value for inner in _flat(each) or []]
    return [_plain(value)]


def _plain(value: Any) -> str | float | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < _LARGE_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = value if isinstance(value, str) else json.dumps(value, default=repr, skipkeys=True)
    return text.encode("utf-8", "replace").decode()
