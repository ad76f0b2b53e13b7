"""Synthetic Amazon reviews: the true raw format with its warts, and a real sequential structure to learn.

A user has a few interests among latent categories, some of which have a season. The next purchase follows the last one
along a graph of likely successors, or comes out of an interest, or out of what is popular (Zipf). So the best guess
from the last item alone is far better than popularity, and a model of sequences has something to find. Nothing here
is about real people or products.

The warts are those of the real files, at the rates of `Warts`; what was planted where is told by a sidecar, `Truth`.

| module | what it answers |
|---|---|
| `world`, `purchases` | what there is to buy; who buys what, and when |
| `words`, `sentences` | what the products are called; what the reviews say |
| `warts`, `rows`, `draws` | what is wrong, in which rows; chance that belongs to a review |
| `review_lines`, `metadata_lines` | how a row, a product is written |
| `writing`, `truth` | the files; the sidecar |
"""

from assets.amazon.synthetic.truth import Truth, truth_path
from assets.amazon.synthetic.warts import Warts
from assets.amazon.synthetic.writing import VERSION, write_synthetic

__all__ = ["VERSION", "Truth", "Warts", "truth_path", "write_synthetic"]
