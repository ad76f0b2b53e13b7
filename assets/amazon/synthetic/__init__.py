"""Synthetic Amazon reviews: the true raw format with its warts, and a real sequential structure to learn.

The best guess from the last item alone is far better than popularity, and a model of sequences has something to find
(`purchases.py`). Titles say what an item is and what it is bought with (`products.py`), texts little more
(`reviews.py`); the words of both are data (`words.yaml`). The warts are those of the real files, at the rates of
`Warts`; what was planted where is told by a sidecar, `Truth` (`writing.py`). Nothing here is about real people or
products.
"""

from assets.amazon.synthetic.warts import Warts
from assets.amazon.synthetic.writing import VERSION, Truth, truth_path, write_synthetic

__all__ = ["VERSION", "Truth", "Warts", "truth_path", "write_synthetic"]
