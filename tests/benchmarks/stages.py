"""What each asset of the data stage takes on synthetic domains of several sizes, for the table in docs/scaling.md.

    SLMREC_HOME=folder python -m tests.benchmarks.stages 9000 90000

Each asset is materialised by itself, checks included. The time is that of the processor, all threads together: on a
machine that others use too it says more than the clock. The memory is the resident peak, libraries included.
"""

import json
import os
import sys
import time
from pathlib import Path

from dagster import AssetKey, DagsterInstance

from assets.workspace import home
from evaluation.cost import measured

ASSETS = (
    "raw_reviews", "raw_metadata", "interactions", "item_texts", "sequences", "splits", "dataset_statistics"
)  # fmt: skip
ITEMS_A_USER = 0.31
"""As in the paper's largest domain: 377,000 items, 1.22 million users."""


def measure(users: int, file: Path) -> None:
    """Add a line for each asset: reviews, processor and clock seconds, peak bytes."""
    from orchestration.definitions import DOMAINS, PROFILES, build_definitions

    name = f"synthetic_{users}"
    own = home.home() / f"{name}.yaml"
    own.write_text(
        f"{name}:\n  title: Synthetic\n"
        f"  source: {{kind: synthetic, users: {users}, items: {int(users * ITEMS_A_USER)}, seed: 1}}\n"
        "  filters: {minimum_rating: 3, minimum_user_interactions: 5, minimum_item_interactions: 5}\n"
    )
    definitions = build_definitions([DOMAINS, own], sorted(PROFILES.glob("*.yaml")), "sample")
    job = definitions.resolve_job_def("chain")
    with DagsterInstance.ephemeral() as instance:
        for asset in ASSETS:
            processor = time.process_time()
            with measured() as meter:
                done = job.execute_in_process(partition_key=name, asset_selection=[AssetKey(asset)], instance=instance)
            assert done.success
            row = {
                "users": users,
                "asset": asset,
                "processor_seconds": round(time.process_time() - processor, 1),
                "seconds": round(meter.cost.seconds, 1),
                "peak_bytes": meter.cost.peak_memory_bytes,
            }
            with file.open("a") as rows:
                rows.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("SLMREC_PROFILE", "sample")
    home.prepare_home()
    for count in sys.argv[1:]:
        measure(int(count), home.home() / "stages.jsonl")
