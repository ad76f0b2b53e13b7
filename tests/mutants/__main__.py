"""`make mutants`: plants mistakes in a copy of the source, runs the tests that must notice them, and names the rest.

Two parts. `named`: the mistakes of `edits.py`. `modules`: every small change that Cosmic Ray knows (operators, numbers,
comparisons, breaks) in the modules that a claim rests on; this takes hours.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.mutants.edits import EDITS, Edit

ROOT = Path(__file__).parents[2]
CLAIMS = {
    "evaluation/intervals.py": "tests/evaluation/test_intervals.py",
    "evaluation/metrics.py": "tests/evaluation/test_metrics.py tests/evaluation/test_protocols.py",
    "evaluation/ranking.py": "tests/evaluation/test_ranking.py",
    "evaluation/sampling.py": "tests/evaluation/test_sampling.py",
    "evaluation/significance.py": "tests/evaluation/test_significance.py",
    "models/losses/catalogue.py": "tests/models/losses",
    "models/losses/distillation.py": "tests/models/losses",
    "models/slmrec/distillation.py": "tests/models/slmrec/test_distillation.py",
    "assets/inputs/validated_rows.py": "tests/assets/inputs tests/assets/workspace",
    "assets/workspace/identity.py": "tests/assets/workspace/test_identity.py",
    "assets/delivery.py": "tests/assets/test_delivery.py",
    "assets/registry/gate.py": "tests/assets/test_delivery.py",
    "assets/registry/promotions.py": "tests/assets/registry/test_promotions.py",
    "assets/registry/promotion_log.py": "tests/assets/registry/test_promotions.py",
}
"""Module → the tests that must notice a change in it."""

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".slmrec", "__pycache__", ".*_cache", "*.egg-info")


def main() -> int:
    """Run both parts or one, and print the survivors; 1 if there is any."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="a part of a name or path: `named`, `modules`, `gate`, `metrics`")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "slmrec"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        survivors = [*_named(copy, only), *_modules(copy, only)]
    say(f"\n{len(survivors)} survived" + ":" * bool(survivors))
    for survivor in survivors:
        say(f"  {survivor}")
    return int(bool(survivors))


def say(text: str) -> None:
    """Print at once: the next line may take minutes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _named(copy: Path, only: str) -> Iterator[str]:
    for edit in EDITS:
        if only in ("", "named") or only in f"{edit.name} {edit.path}":
            noticed = _fails(copy, edit)
            say(f"{'noticed' if noticed else 'SURVIVED':<9} {edit.name} ({edit.path})")
            if not noticed:
                yield f"{edit.name} ({edit.path}): {edit.old!r} -> {edit.new!r}"


def _fails(copy: Path, edit: Edit) -> bool:
    """Whether the tests fail on the copy with this edit."""
    path = copy / edit.path
    source = path.read_text(encoding="utf-8")
    assert source.count(edit.old) == 1, f"{edit.path} has {edit.old!r} {source.count(edit.old)} times"
    path.write_text(source.replace(edit.old, edit.new), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *edit.tests.split()]
        return subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode == 1
    finally:
        path.write_text(source, encoding="utf-8")


def _modules(copy: Path, only: str) -> Iterator[str]:
    for module, tests in CLAIMS.items():
        if only in ("", "modules") or only in module:
            command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {tests}"
            (copy / "mutants.toml").write_text(
                f'[cosmic-ray]\nmodule-path = "{module}"\ntimeout = 300.0\nexcluded-modules = []\n'
                f'test-command = "{command}"\n[cosmic-ray.distributor]\nname = "local"\n'
            )
            (copy / "mutants.sqlite").unlink(missing_ok=True)
            for step in ("init", "exec"):
                program = str(Path(sys.executable).with_name("cosmic-ray"))
                subprocess.run([program, step, "mutants.toml", "mutants.sqlite"], cwd=copy, check=True)
            report = [
                str(Path(sys.executable).with_name("cr-report")),
                "--surviving-only",
                "--show-diff",
                "mutants.sqlite",
            ]
            found = subprocess.run(report, cwd=copy, capture_output=True, text=True, check=True).stdout
            say(f"{module}\n{found}")
            yield from (f"{module}: {line}" for line in found.splitlines() if line.startswith(("-", "+")))


if __name__ == "__main__":
    sys.exit(main())
