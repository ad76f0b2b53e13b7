"""What must hold of the data, as Great Expectations suites: a module a suite, and no table is changed here.

How rules are stated and run is `rules.py`'s subject, how results become pages `docs.py`'s. The names of the checks are
constants, so that they can be declared without importing Great Expectations, which takes seconds.
"""

from assets.amazon.validation.docs import add_to_data_docs, read_stages
from assets.amazon.validation.interactions import INTERACTION_CHECKS, check_interactions
from assets.amazon.validation.metadata import ITEM_TEXT_CHECKS, check_item_texts
from assets.amazon.validation.raw import RAW_CHECKS, check_raw
from assets.amazon.validation.rules import Check, Validation
from assets.amazon.validation.sequences import SEQUENCE_CHECKS, check_sequences
from assets.amazon.validation.splits import SPLIT_CHECKS, check_splits
from assets.amazon.validation.statistics import DRIFT_CHECKS, check_drift

__all__ = [
    "DRIFT_CHECKS",
    "INTERACTION_CHECKS",
    "ITEM_TEXT_CHECKS",
    "RAW_CHECKS",
    "SEQUENCE_CHECKS",
    "SPLIT_CHECKS",
    "Check",
    "Validation",
    "add_to_data_docs",
    "check_drift",
    "check_interactions",
    "check_item_texts",
    "check_raw",
    "check_sequences",
    "check_splits",
    "read_stages",
]
