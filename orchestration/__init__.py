"""When and how it runs: definitions, jobs, domains, profiles and the command line."""

from assets.workspace.home import disable_telemetry

disable_telemetry()  # read once, when the libraries are imported
