"""`python -m orchestration run|studies|recommend|promote|…|serve|quarter|ui|prune|synth`: what make calls."""

import argparse
import os
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
    except KeyboardInterrupt:
        sys.stderr.write("\nslmrec: stopped.\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m orchestration", description="SLMRec, operated.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, words in (
        ("run", "materialise the whole chain for one domain"),
        ("studies", "materialise the studies of a domain that the chain has been through"),
    ):
        job = commands.add_parser(name, help=words)
        job.add_argument("--domain", required=True, help="a domain's name (orchestration/domains.yaml, or your own)")
        job.add_argument("--profile", required=True, help="a profile's name, or the path of a YAML file")
        job.add_argument("--as-of", help="a day, 2018-09-26: what came later is left out")
        job.set_defaults(command=_run, job="chain" if name == "run" else "studies")
    _add_serve(commands)
    recommend = commands.add_parser("recommend", help="the champion's best items for every user of a domain")
    recommend.add_argument("--domain", required=True, help="a domain's name")
    recommend.set_defaults(command=_recommend)
    ui = commands.add_parser("ui", help="serve Dagster and MLflow until Ctrl-C")
    ui.add_argument("--dagster-port", type=int, default=3000)
    ui.add_argument("--mlflow-port", type=int, default=5000)
    ui.set_defaults(command=_ui)
    prune = commands.add_parser("prune", help="remove checkpoints, evaluations, versions and files out of use")
    prune.add_argument("--keep", type=int, default=3, help="so many of each name stay, the newest (3)")
    prune.add_argument("--days", type=float, default=30, help="whatever is younger stays (30)")
    prune.add_argument("--dry", action="store_true", help="list, and remove nothing")
    prune.set_defaults(command=_prune)
    _add_review(commands)
    quarter = commands.add_parser("quarter", help="twelve weeks of operation on a made-up shop, in a home of its own")
    quarter.add_argument("--out", type=Path, required=True, help="the folder to write to")
    quarter.add_argument("--seed", type=int, default=0, help="another seed is another shop")
    quarter.set_defaults(command=_quarter)
    synth = commands.add_parser("synth", help="write synthetic reviews and metadata in Amazon's raw format")
    synth.add_argument("--users", type=int, required=True, help="reviewers, each of about eleven reviews")
    synth.add_argument("--items", type=int, required=True, help="products, at most as many as users")
    synth.add_argument("--out", type=Path, required=True, help="the folder to write to")
    synth.add_argument("--seed", type=int, default=0, help="another seed is another world")
    synth.set_defaults(command=_synth)
    return parser


def _add_review(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    promote = commands.add_parser("promote", help="make a version the champion: by default the challenger")
    promote.add_argument("--version", help="its number")
    told = "whose version: by default the one that the domain last delivered"
    promote.add_argument("--recommender", choices=("student", "narrow_student", "mixed_student"), help=told)
    promote.add_argument("--force", action="store_true", help="whatever the gate has said")
    promote.set_defaults(command=_promote)
    rollback = commands.add_parser("rollback", help="make the version before the champion again")
    rollback.set_defaults(command=_rollback)
    promote.add_argument("--reason", required=True, help="why, for the log")
    rollback.add_argument("--reason", default="", help="why, for the log")
    for move in (promote, rollback):
        move.add_argument("--by", default=os.environ.get("USER", ""), help="who, for the log ($USER)")
    history = commands.add_parser("history", help="list who became the champion, when and why")
    history.set_defaults(command=_history)
    for command in (promote, rollback, history):
        command.add_argument("--domain", required=True, help="a domain's name")


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = commands.add_parser("serve", help="answer requests with a domain's champion until Ctrl-C")
    serve.add_argument("--domain", required=True, help="a domain's name")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen at (127.0.0.1: this machine alone)")
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one (8000)")
    serve.set_defaults(command=_serve)


def _run(options: argparse.Namespace) -> int:
    from orchestration.definitions import name_profile
    from orchestration.run import run_job

    own = options.profile.endswith((".yaml", ".yml"))
    profile = name_profile(Path(options.profile)) if own else options.profile
    return run_job(options.job, options.domain, profile, options.as_of)


def _recommend(options: argparse.Namespace) -> int:
    from orchestration.definitions import DEFAULT_PROFILE
    from orchestration.run import run_job

    return run_job("recommend", options.domain, DEFAULT_PROFILE)  # which learns nothing: any profile will do


def _prune(options: argparse.Namespace) -> int:
    from orchestration.prune import prune

    return prune(options.keep, options.days, dry=options.dry)


def _promote(options: argparse.Namespace) -> int:
    from orchestration.review import promote

    return promote(
        options.domain, options.recommender, options.version, options.reason, options.by, force=options.force
    )


def _rollback(options: argparse.Namespace) -> int:
    from orchestration.review import rollback

    return rollback(options.domain, options.reason, options.by)


def _history(options: argparse.Namespace) -> int:
    from orchestration.review import history

    return history(options.domain)


def _serve(options: argparse.Namespace) -> int:
    from orchestration.serving import prepare_process

    prepare_process()
    from orchestration.serving.server import serve

    return serve(options.domain, options.host, options.port)


def _quarter(options: argparse.Namespace) -> int:
    from orchestration.quarter.operating import operate

    return operate(options.out, options.seed)


def _ui(options: argparse.Namespace) -> int:
    from orchestration.ui import serve

    return serve(options.dagster_port, options.mlflow_port)


def _synth(options: argparse.Namespace) -> int:
    from orchestration.synth import make_synthetic

    return make_synthetic(options.users, options.items, options.seed, options.out)


if __name__ == "__main__":
    sys.exit(main())
