from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from models.settings import check_choices, check_range

Colour = Literal["red", "blue"]


@dataclass(frozen=True)
class Paint:
    colour: Colour = "red"
    coats: int | None = 1
    share: float = 0.5
    kind: Literal["oil"] | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        check_range(self, "coats share", least=0, most=3)
        check_range(self, "share", above=0, below=1)


def test_what_is_allowed_stays() -> None:
    assert Paint("blue", None, 0.1, "oil").coats is None
    assert (Paint(coats=0).coats, Paint(coats=3).coats) == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "green"}, r"colour must be red or blue, not 'green' \(Paint\)"),
        ({"coats": -1}, r"coats must be at least 0 and at most 3, not -1 \(Paint\)"),
        ({"coats": 4}, "coats must be at least 0 and at most 3, not 4"),
        ({"share": 0}, "share must be greater than 0 and less than 1, not 0"),
        ({"share": 1}, "share must be greater than 0 and less than 1, not 1"),
        ({"share": float("nan")}, "share must be at least 0 and at most 3, not nan"),
    ],
)
def test_what_is_not_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Paint(**change)
