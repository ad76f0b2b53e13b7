"""`python -m orchestration run|ui`: what the make targets call."""

import argparse
import sys


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
    run.add_argument(
        "--domain",
        required=True,
        help="a domain's name (orchestration/domains.yaml, or your own in SLMREC_DOMAINS)",
    )
    run.add_argument("--profile", required=True, help="a profile's name, or the path of a YAML file")
    run.set_defaults(command=_run)
    ui = commands.add_parser("ui", help="serve Dagster and MLflow until Ctrl-C")
    ui.add_argument("--dagster-port", type=int, default=3000)
    ui.add_argument("--mlflow-port", type=int, default=5000)
    ui.set_defaults(command=_ui)
    return parser


def _run(options: argparse.Namespace) -> int:
    from orchestration.run import run_chain

    return run_chain(options.domain, options.profile)


def _ui(options: argparse.Namespace) -> int:
    from orchestration.ui import serve

    return serve(options.dagster_port, options.mlflow_port)


if __name__ == "__main__":
    sys.exit(main())
