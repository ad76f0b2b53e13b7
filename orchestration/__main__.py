"""`python -m orchestration run|studies|synth|ui`: what the make targets call."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it; the exit code. A user's mistake becomes one message on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"slmrec: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m orchestration", description="SLMRec, operated.")
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="materialise the whole chain for one domain")
    run.set_defaults(command=_run)
    studies = commands.add_parser("studies", help="materialise the studies of a domain that the chain has been through")
    studies.set_defaults(command=_studies)
    for job in (run, studies):
        job.add_argument(
            "--domain",
            required=True,
            help="a domain's name (orchestration/domains.yaml, or your own in SLMREC_DOMAINS)",
        )
        job.add_argument("--profile", required=True, help="a profile's name, or the path of a YAML file")
    ui = commands.add_parser("ui", help="serve Dagster and MLflow until Ctrl-C")
    ui.add_argument("--dagster-port", type=int, default=3000)
    ui.add_argument("--mlflow-port", type=int, default=5000)
    ui.set_defaults(command=_ui)
    synth = commands.add_parser("synth", help="write synthetic reviews and metadata in Amazon's raw format")
    synth.add_argument("--users", type=int, required=True, help="reviewers, each of about eleven reviews")
    synth.add_argument("--items", type=int, required=True, help="products, at most as many as users")
    synth.add_argument("--out", type=Path, required=True, help="the folder to write to")
    synth.add_argument("--seed", type=int, default=0, help="another seed is another world")
    synth.set_defaults(command=_synth)
    return parser


def _run(options: argparse.Namespace) -> int:
    from orchestration.run import run_chain

    return run_chain(options.domain, options.profile)


def _studies(options: argparse.Namespace) -> int:
    from orchestration.run import run_studies

    return run_studies(options.domain, options.profile)


def _ui(options: argparse.Namespace) -> int:
    from orchestration.ui import serve

    return serve(options.dagster_port, options.mlflow_port)


def _synth(options: argparse.Namespace) -> int:
    from orchestration.synth import make_synthetic

    return make_synthetic(options.users, options.items, options.seed, options.out)


if __name__ == "__main__":
    sys.exit(main())
