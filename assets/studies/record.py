"""What a study leaves for others: its record, and which studies there are.

Belongs here: the record as one asset hands it on and another finds it. Not here: making it (`cells.py`), what its rows
mean (`evaluation/studies.py`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from assets.workspace.home import records_directory

if TYPE_CHECKING:
    from evaluation.studies import StudyRecord

STUDIES = ("ablation_study", "depth_study", "online_distillation_study", "theory_check")
"""Their assets, in the order in which they are shown."""


class Study(BaseModel):
    """What a study came to: `evaluation.studies.StudyRecord` as plain values, which says what they are."""

    name: str
    domain: str
    data_version: str
    profile: str
    notes: str
    tables: dict[str, list[dict[str, Any]]]
    records: list[Path]
    findings: dict[str, list[dict[str, str]]] = {}
    layers: dict[str, Any] | None = None


def read_study(name: str, domain: str) -> "StudyRecord | None":
    """The record that a study left of a domain; None where it was never made.

    Raises:
        ValueError: if it can't be read; says how to make it anew.
    """
    from evaluation.strict import decode, parse_json
    from evaluation.studies import StudyRecord

    path = records_directory() / name / f"{domain}.json"
    try:
        return decode(StudyRecord, parse_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} can't be read as a study: {error}. Materialise {name} again.") from error
