"""When and how it runs: definitions, jobs, domains, profiles and the command line."""

import os

from assets.workspace.home import disable_telemetry

# Both are read once, when the libraries are imported.
disable_telemetry()
# Waiting threads sleep. By default they spin, and a training beside another busy process takes several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
