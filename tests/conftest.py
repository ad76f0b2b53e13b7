"""The tests know nothing of the settings of whoever runs them: a shell's, or those that make exports."""

import os

for name in [name for name in os.environ if name.startswith(("SLMREC_", "MLFLOW_", "DAGSTER_"))]:
    del os.environ[name]
