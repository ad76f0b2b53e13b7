"""Python imports this when it starts with this folder on its path: rank 1 is killed once, in its 4th step of SASRec.

That is after the first validation, with which the training's state is kept.
"""

import os
import signal
from pathlib import Path
from typing import Any

DIED = "SLMREC_TEST_DIED"
"""The file that says that it has happened."""
FINGERPRINT, STEPS = 2, 4
"""How many batches are made for the state's fingerprint, and then one a step."""

if os.environ.get("RANK") == "1" and not Path(os.environ[DIED]).exists():
    from models.baselines.sasrec import SASRecExamples

    batch, left = SASRecExamples.batch, [FINGERPRINT + STEPS]

    def dying(examples: SASRecExamples, rows: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            Path(os.environ[DIED]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(examples, rows)

    SASRecExamples.batch = dying  # type: ignore[method-assign]
