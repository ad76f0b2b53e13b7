"""The floors: imports point down only, and what each floor may be imported with."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
ORCHESTRATORS = ("dagster", "mlflow", "polars", "pandas", "great_expectations", "pydantic", "matplotlib", "jinja2")


def test_imports_point_down_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


@pytest.mark.parametrize("floor", ["models", "evaluation"])
def test_floor_imports_without_the_orchestrators(floor: str) -> None:
    """A bare GPU machine has torch, transformers, peft, accelerate, safetensors and numpy."""
    modules = [
        f"{floor}.{path.stem}"
        for path in sorted((ROOT / floor).glob("*.py"))
        if path.stem not in ("__init__", "figures", "report", "study_figures")
    ]
    script = (
        "import sys, importlib\n"
        f"for name in {ORCHESTRATORS!r}: sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_code_location_loads_without_the_heavy_libraries() -> None:
    """What takes seconds to import is imported where it is used."""
    script = (
        "import sys, orchestration.definitions\n"
        "heavy = {'torch', 'transformers', 'peft', 'mlflow', 'great_expectations', 'pandas', 'matplotlib'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
