import json
import math
from typing import Any
from unittest import mock

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.amazon.reading import json_fields
from assets.amazon.reading.json_fields import NOT_AN_OBJECT, Fields, decode_fields, not_a_string, parse_object

FIELDS: Fields = {"a": pl.String, "b": pl.String, "c": pl.List(pl.String)}


def decode(lines: list[str]) -> pl.DataFrame:
    frame = pl.DataFrame({"line": lines}, schema={"line": pl.String}).with_row_index("line_number", 1)
    return decode_fields(frame.with_columns(pl.lit(None, pl.String).alias("problem")), FIELDS)


def decode_one(line: str, company: list[str]) -> tuple[Any, ...]:
    """Problem and fields of a line among others, whose number decides which road it takes."""
    decoded = decode([*company, line])
    return decoded.filter(pl.col("line_number") == len(company) + 1).select("problem", *FIELDS).row(0)


@pytest.mark.parametrize(
    "company", [[], ['{"a": "sound"}'] * 100, ['{"a": ["not quick"]}']], ids=["alone", "many", "slow"]
)
@pytest.mark.parametrize(
    ("line", "a"),
    [
        ('{"a": "x"}', "x"),
        ('{"a": "5.0"}', "5.0"),
        ('{"a": 5.0}', "5"),
        ('{"a": 0.1}', "0.1"),
        ('{"a": -12}', "-12"),
        ('{"a": 1e22}', "10000000000000000000000"),
        ('{"a": 123456789012345678901234567890}', "123456789012345678901234567890"),
        (f'{{"a": {"9" * 60}}}', "9" * 60),
        ('{"a": 1e999}', "inf"),
        ('{"a": true}', "true"),
        ('{"a": null}', None),
        ('{"b": 1}', None),
        ("{}", None),
        ('{"a": ["x", 1]}', '["x", 1]'),
        ('{"a": {"b": null}}', '{"b": null}'),
        ('{"a": "first", "a": "second"}', "first"),
        ('{"\\u0061": "escaped"}', "escaped"),
        ('{"a": "\\ud83d\\ude00 😀"}', "😀 😀"),
        ('{"a": "half \\ud83d!"}', "half ?!"),
        ('{"a": "half \\ude00"}', "half ?"),
        ('{"a": "half \\ud83d\\u0041"}', "half ?A"),
        ('{"a": "no half \\\\ud83d!"}', "no half \\ud83d!"),
        ('{"a": "nul \\u0000"}', "nul \0"),
        (' \t{"a": "blanks"} \r', "blanks"),
        ('\ufeff{"a": "byte order mark"}', "byte order mark"),
        ('{"a": "a brace},{ inside"}', "a brace},{ inside"),
        ("{'a': 'loose', 'z': [None, True, (1, 2)]}", "loose"),
        ("{u'a': u'loose', 'a\"': \"it's\"}", "loose"),
        ("{'a': {'b': {1, 2}, (3, 4): b'x'}}", '{"b": "{1, 2}"}'),
    ],
)
def test_a_field_is_the_same_text_on_both_roads(line: str, a: str | None, company: list[str]) -> None:
    assert decode_one(line, company) == (None, a, None if '"b"' not in line or "{" in line[1:] else "1", None)


@pytest.mark.parametrize("company", [[], ['{"a": "sound"}'] * 100], ids=["alone", "many"])
@pytest.mark.parametrize(
    "line",
    [
        '{"a": "cut',
        '{"a": "cut behind a }',
        '{"a": {"b": 1}',
        '{"a": "x"} {"a": "y"}',
        '{"a": "x"},{"a": "y"}',
        '{"a": "x"} , {"a": "y"}',
        '{"a": "x"},null,{}',
        '{"a": "x"}}',
        '{"a": NaN}',
        '{"z": -Infinity}',
        '{"a": 01}',
        '{"a": "\\x"}',
        '{"a": "a\ttab"}',
        '{"a": "x",}',
        "{a: 1}",
        "[]",
        '[{"a": 1}]',
        "null",
        "12",
        '"a"',
        "<tr>503</tr>",
        "{'a': __import__('os')}",
        "{'a': 'x'",
        "{'a', 'b'}",
        "{'a': 1, [2]: 3}",
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "{'a': " + "[" * 5000 + "]" * 5000 + "}",
        '{"c": ' + "[" * 700 + "]" * 700 + ', "z": "\\ud83d"}',
    ],
    ids=lambda line: line[:25],
)
def test_what_is_no_object_says_so_and_does_not_touch_its_neighbours(line: str, company: list[str]) -> None:
    decoded = decode([*company, line, *company]).sort("line_number")
    assert decoded["problem"].to_list() == [None] * len(company) + [NOT_AN_OBJECT] + [None] * len(company)
    assert decoded["a"].to_list() == ["sound"] * len(company) + [None] + ["sound"] * len(company)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (["x", "y"], ["x", "y"]),
        ([["x", "y"], [], ["z", [1, None]]], ["x", "y", "z", "1"]),
        ("one", ["one"]),
        (2.5, ["2.5"]),
        ([], []),
        ({"k": 1}, ['{"k": 1}']),
        ([{"k": 1}, "x"], ['{"k": 1}', "x"]),
        (None, None),
    ],
)
def test_lists_of_texts(value: object, texts: list[str] | None) -> None:
    assert decode_one(json.dumps({"c": value}), [])[3] == texts


def others(lines: list[str]) -> list[bool | None]:
    return decode(lines).sort("line_number").select(not_a_string("a")).to_series().to_list()


OTHER = [True, False, 0, 7, -7, 12.5, 0.1, -0.0, 1e-7, 1e22, 10**30, [], [1], {}, {"k": 1}]
STRINGS = [
    "A1",
    "B000123456",
    "0005019281",
    "1234567890",
    "6305171769",
    "7",
    "-1.5",
    "0",
    "1e5",
    "true",
    "false",
    "inf",
]
STRINGS += ["[deleted]", "{x}", "[1]", '{"k": 1}', "[é]", '["\\"]', " 7", "null", "", "-", "nan"]


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":"), (" ,", " : ")], ids=["usual", "compact", "odd"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_strings_are_told_from_what_is_decoded_alike(separators: tuple[str, str], ascii_only: bool) -> None:
    values = [*OTHER, *STRINGS, None]
    lines = [json.dumps({"b": "x", "a": value}, separators=separators, ensure_ascii=ascii_only) for value in values]
    told = others([*lines, '{"b": "no a"}', '{"a": 1e999}', "{'a': 7}", "{'a': '7'}", '{"a": cut'])
    assert told[: len(OTHER)] == [True] * len(OTHER)
    assert not any(told[len(OTHER) : len(values)])
    assert [bool(other) for other in told[len(values) :]] == [False, True, True, False, False]


def test_another_fields_text_does_not_make_a_string_of_a_number() -> None:
    assert others(['{"a": 7, "b": "\\"a\\": \\"7\\""}', '{"aa": "7", "a": 7}', '{"a": "7", "aa": 7}']) == [
        True,
        True,
        False,
    ]


def test_usual_lines_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = decode([json.dumps({"a": value}) for value in [*STRINGS[:13], "[deleted]"]] + ['{"a":"1234567890"}'])
    monkeypatch.setattr(json_fields, "parse_object", None)
    assert not lines.select(not_a_string("a")).to_series().any()


def test_blank_lines_are_none_and_numbers_are_kept() -> None:
    decoded = decode(['{"a": "x"}', "", " \r", '{"a": ["y"]}', '{"a": "z"}'])
    assert decoded.select("line_number", "a").rows() == [(1, "x"), (4, '["y"]'), (5, "z")]
    assert decode([]).is_empty()
    assert decode([""]).is_empty()


def test_lines_with_a_problem_keep_it_and_are_not_read() -> None:
    lines = pl.DataFrame({"line_number": [1, 2], "line": ['{"a": "x"}', ""], "problem": ["not UTF-8 text", "broken"]})
    decoded = decode_fields(lines, FIELDS)
    assert decoded.select("problem", "a").rows() == [("not UTF-8 text", None), ("broken", None)]


# Another road: Python's own parser, line by line

texts = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2))
objects = st.fixed_dictionaries({}, optional={"a": values, "b": scalars, "c": values, "image": values})
sound_lines = st.builds(json.dumps, objects, ensure_ascii=st.booleans())
halves = st.sampled_from(
    ["\\ud83d", "\\udc00", "\\u0000", '"', "}", "{", ",", "},{", "}{", "[", "]", "\\", "null", ":", "e"]
)


@st.composite
def damaged_lines(draw: st.DrawFn) -> str:
    line = draw(sound_lines)
    start = draw(st.integers(0, len(line)))
    end = draw(st.sampled_from([start, start + 1, len(line)]))
    return line[:start] + draw(halves | texts) + line[end:]


def by_python(line: str) -> dict[str, Any] | None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            found.setdefault(key, value)
        return found

    try:
        value = json.loads(line, parse_constant=refuse, object_pairs_hook=first)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def same(text: str | None, value: Any) -> bool:
    """Whether the text stands for the JSON value; a half of a surrogate pair stands as a question mark."""
    if isinstance(value, str):
        return text == value.encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return text is not None and (float(text) == value or (math.isinf(value) and text in {"inf", "-inf"}))
    return text == (None if value is None else json.dumps(value))


def flat(value: Any) -> list[Any]:
    return [inner for each in value for inner in flat(each)] if isinstance(value, list) else [value]


@settings(max_examples=120, deadline=None)
@given(lines=st.lists(sound_lines | sound_lines | sound_lines | damaged_lines(), max_size=60))
def test_both_roads_agree_with_python(lines: list[str]) -> None:
    with mock.patch.object(json_fields, "_PIECES", (16, 4)):
        decoded = {row["line_number"]: row for row in decode(lines).iter_rows(named=True)}
    for number, line in enumerate(lines, start=1):
        if not line.strip(json_fields.WHITE_SPACE):
            assert number not in decoded
            continue
        wanted = by_python(line.strip(json_fields.WHITE_SPACE))
        assert decoded[number]["problem"] == (None if wanted is not None else NOT_AN_OBJECT)
        if wanted is not None:
            assert same(decoded[number]["a"], wanted.get("a"))
            assert same(decoded[number]["b"], wanted.get("b"))
            listed = [each for each in flat(wanted.get("c")) if each is not None]
            found = [each for each in decoded[number]["c"] or [] if each is not None]
            assert len(found) == len(listed)
            assert all(map(same, found, listed))


def test_sound_lines_do_not_take_the_slow_road(monkeypatch: pytest.MonkeyPatch) -> None:
    """One damaged line among thousands costs a hundred lines in Python, not the batch."""
    read: list[str] = []

    def counting(line: str) -> dict[str, Any] | None:
        read.append(line)
        return parse_object(line)

    monkeypatch.setattr(json_fields, "parse_object", counting)
    lines = [json.dumps({"a": f"A{i}", "c": ["x"]}) for i in range(5000)]
    assert decode(lines)["a"].to_list() == [f"A{i}" for i in range(5000)]
    assert read == []
    lines[1234] = '{"a": ["no text"]}'
    lines[3456] = '{"a": "cut'
    decoded = decode(lines)
    assert decoded.height == 5000
    assert decoded.filter(pl.col("problem").is_null())["line_number"].is_sorted()
    assert len(read) <= 1 + json_fields._PIECES[-1]
