"""SASRec whose items' vectors are the sum of a learned one and a projection of the item's text.

Belongs here: the declaration. Not here: the recommender and its fit (`sasrec.py`), the sum (`item_table.py`).
"""

from __future__ import annotations

from dataclasses import replace

from models.baselines.sasrec import DECLARATION as SASREC
from models.baselines.sasrec import SASRecSettings, fit_sasrec
from models.declaration import Fitted, TrainingData
from models.training.course import Course


def fit_sasrec_text(data: TrainingData, settings: SASRecSettings, course: Course) -> Fitted:
    """As `fit_sasrec`; `data.upstream` has the checkpoint `item_text_embeddings`.

    Raises:
        ValueError: as of `fit_sasrec`, and where the settings leave the texts out.
    """
    if settings.model.items == "ids":
        raise ValueError("sasrec_text is SASRec with text: set its model.items to ids_and_text, or to text.")
    return fit_sasrec(data, settings, course)


DECLARATION = replace(
    SASREC,
    name="sasrec_text",
    label="SASRec + text",
    colour="#7a4fb5",
    source="SASRec (Kang & McAuley, ICDM 2018) with text vectors added to the items' own (ours)",
    fit=fit_sasrec_text,
    upstream=("item_text_embeddings",),
)
