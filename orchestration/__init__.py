"""When and how it runs: definitions, jobs, domains, profiles and the command line."""

import os

from assets.workspace.home import disable_telemetry

# Both are read once, when the libraries are imported.
disable_telemetry()
# So many looks of a waiting thread before it sleeps (GNU OpenMP). By default it looks for milliseconds, and a training
# of small steps takes ten times as long beside another busy process; one that sleeps at once takes three times as long
# on quiet cores (docs/benchmarks.md).
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
