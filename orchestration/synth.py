"""The command `synth`: synthetic reviews of any size in a folder of the user's own, and how to run the chain on them.

What is made is `assets/amazon/synthetic`'s subject.
"""

import json
import sys
from pathlib import Path

from tqdm import tqdm

from assets.amazon.synthetic import Truth, truth_path, write_synthetic


def make_synthetic(users: int, items: int, seed: int, folder: Path) -> int:
    """Write `reviews.json.gz`, `metadata.json.gz` and `truth.json`, with a bar where stderr is a terminal.

    Raises:
        ValueError: no data of that size can be made, or the folder holds reviews that are not synthetic.
    """
    reviews, metadata = folder.resolve() / "reviews.json.gz", folder.resolve() / "metadata.json.gz"
    for path in (reviews, metadata):
        if path.exists() and not truth_path(reviews).exists():
            raise ValueError(
                f"{path} is there already, and without {truth_path(reviews).name} beside it it was not made by this "
                "command: give another folder, or move it away."
            )
    with tqdm(desc="reviews", unit=" lines", unit_scale=True, disable=None) as bar:

        def advance(done: int, lines: int) -> None:
            bar.total = lines
            bar.update(done - bar.n)

        write_synthetic(reviews, metadata, users=users, items=items, seed=seed, progress=advance)
    truth = Truth.model_validate_json(truth_path(reviews).read_text())
    sys.stdout.write(_told(truth, reviews, metadata))
    return 0


def _told(truth: Truth, reviews: Path, metadata: Path) -> str:
    made = truth.made_from
    source = (
        f"{{kind: local, reviews: {json.dumps(str(reviews))}, metadata: {json.dumps(str(metadata))}, synthetic: true}}"
    )
    filters = "minimum_rating: 3, minimum_user_interactions: 5, minimum_item_interactions: 5, duplicates: first"
    return (
        f"{truth.lines:,} lines of {made.users:,} users on {made.items:,} items: {truth.reviews:,} reviews and "
        f"{len(truth.bad_lines):,} bad lines. {truth.raw_bytes / 1e6:,.1f} MB, gzipped "
        f"{reviews.stat().st_size / 1e6:,.1f} MB; metadata {metadata.stat().st_size / 1e6:,.1f} MB.\n"
        f"What was planted is told in {truth_path(reviews)}.\n"
        "As a domain, in a YAML file that SLMREC_DOMAINS names:\n\n"
        f"synthetic_{made.users}_{made.items}_{made.seed}:\n"
        "  title: Synthetic (made by this project, not Amazon's)\n"
        f"  source: {source}\n"
        f"  filters: {{{filters}}}\n"
    )
