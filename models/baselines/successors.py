"""How often an item came soon after another: what the graphs of successors count alike.

Belongs here: the count. Not here: what the graphs make of it (`successor_graph.py`, `text_graph.py`). This module
declares no recommender.

    c_ij = sum over all i ... j in a sequence  decay^(distance - 1)

where j comes at most `window` steps after i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from models.sequences import Sequences


def count_successors(sequences: Sequences, n_items: int, window: int, decay: float, backward: float) -> csr_array:
    """[V + 1, V + 1], from the row's item to the column's: c_ij + backward c_ji; V is `n_items`."""
    from scipy.sparse import coo_array

    items, user = sequences.values, np.repeat(np.arange(len(sequences)), sequences.lengths)
    before, after, weights = [], [], []
    for distance in range(1, window + 1):
        together = user[:-distance] == user[distance:]
        before.append(items[:-distance][together])
        after.append(items[distance:][together])
        weights.append(np.full(int(together.sum()), decay ** (distance - 1)))
    places = np.concatenate(before), np.concatenate(after)
    counts_VV = coo_array((np.concatenate(weights), places), shape=(n_items + 1,) * 2).tocsr()
    return (counts_VV + backward * counts_VV.T).tocsr() if backward else counts_VV
