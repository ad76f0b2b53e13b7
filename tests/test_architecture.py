"""The floors and their rooms: imports point down, no circle anywhere, and what each floor may be imported with.

And that nothing which lies in a file is run as code.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("orchestration", "assets", "evaluation", "models")
ABOVE = ("dagster", "mlflow", "polars", "pandas", "great_expectations")
DRAWING = ("matplotlib", "jinja2")
WITH_TORCH = ("evaluation.ranking", "evaluation.best_items")
"""They run recommenders; all else of `evaluation` reads what they left."""


@cache
def graph(*, types: bool = False) -> grimp.ImportGraph:
    """Who imports whom when the program runs; with `types` also for annotations alone."""
    return grimp.build_graph(*FLOORS, cache_dir=None, exclude_type_checking_imports=not types)


def modules_of(floor: str) -> list[str]:
    return sorted(name for name in graph().modules if name == floor or name.startswith(f"{floor}."))


def packages() -> list[str]:
    """Every package that holds others: the floors, and what of their rooms has rooms of its own."""
    found = {name.rpartition(".")[0] for name in graph().modules if graph().find_children(name)}
    return [*sorted(found - {""}), ""]


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Nodes that lead back to themselves; [] where there are none."""
    left = {node: set(after) - {node} for node, after in edges.items()}
    while ends := [node for node, after in left.items() if not after & left.keys()]:
        for node in ends:
            del left[node]
    return sorted(left)


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_circle_is_found() -> None:
    """The control of the two tests after this one."""
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "d"]
    assert circle({"a": {"b", "a"}, "b": {"c"}, "c": set()}) == []


def test_imports_keep_the_contracts() -> None:
    """In a process of its own: it switches off every logger that is there."""
    done = run("from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))")
    assert done.returncode == 0, done.stdout


def test_imports_point_down_only() -> None:
    """Of every module of every room, also where no contract names the room."""
    for module in graph().modules:
        floor = FLOORS.index(module.partition(".")[0])
        for imported in graph(types=True).find_modules_directly_imported_by(module):
            assert FLOORS.index(imported.partition(".")[0]) >= floor, f"{module} imports {imported}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle({name: graph().find_modules_directly_imported_by(name) for name in graph().modules}) == []


@pytest.mark.parametrize("package", packages())
def test_no_rooms_import_each_other_in_a_circle(package: str) -> None:
    """Rooms are what a package holds, each with all that is in it."""
    depth = len(package.split(".")) if package else 0

    def room(module: str) -> str:
        return ".".join(module.split(".")[: depth + 1])

    inside = [name for name in graph().modules if name != package and (not package or name.startswith(f"{package}."))]
    edges: dict[str, set[str]] = {room(name): set() for name in inside}
    for name in inside:
        edges[room(name)] |= {room(one) for one in graph().find_modules_directly_imported_by(name) if one in inside}
    assert circle(edges) == []


@pytest.mark.parametrize(
    ("floor", "absent", "without"),
    [
        ("models", (*ABOVE, *DRAWING, "pydantic"), ()),
        ("evaluation", ABOVE, ()),
        ("evaluation", (*ABOVE, *DRAWING, "torch"), (*WITH_TORCH, "evaluation.report")),
    ],
)
def test_a_floor_imports_without_what_is_above_it(
    floor: str, absent: tuple[str, ...], without: tuple[str, ...]
) -> None:
    """`models` runs on a bare GPU machine; records, metrics and studies are read without torch."""
    modules = [name for name in modules_of(floor) if not any(f"{name}.".startswith(f"{one}.") for one in without)]
    assert len(modules) > 10
    done = run(
        "import sys, importlib\n"
        f"for name in {absent!r}: sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_code_location_loads_without_the_heavy_libraries() -> None:
    """What takes seconds to import is imported where it is used; torch comes with what the baselines declare."""
    heavy = {"transformers", "peft", "accelerate", "mlflow", "great_expectations", "pandas", "matplotlib", "scipy"}
    done = run(
        f"import sys, orchestration.definitions\nsys.exit(', '.join(sorted({heavy!r} & set(sys.modules))) or 0)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("floor", ["models", "evaluation"])
def test_no_floor_knows_of_those_above_by_word(floor: str) -> None:
    """Neither their paths nor their commands: a message says what is wrong in the floor's own terms."""
    upwards = re.compile(
        r"materiali[sz]e|make (run|demo|studies|ui)\b|(orchestration|assets)/\w|[^s]\.slmrec|SLMREC_|dagster\."
    )
    said = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / floor).rglob("*"))
        if path.suffix in (".py", ".jinja", ".json")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if upwards.search(line)
    ]
    assert said == []


PICKLES = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
RUN_FILES = ("torch.load", "torch.save", "eval", "exec", "__import__", "yaml.unsafe_load", "yaml.full_load")


def running_files_as_code(tree: ast.AST) -> list[str]:
    """What of a module would read pickles, or other files that can hold code."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
            found += [name for name in names if name.partition(".")[0] in PICKLES]
        if isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords}
            unsafe = given.get("allow_pickle", "False") != "False" or given.get("trust_remote_code", "False") != "False"
            loads_weights = "Model" in name and name.endswith(".from_pretrained")
            if name in RUN_FILES or unsafe or (loads_weights and given.get("use_safetensors") != "True"):
                found.append(name)
    return found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path)",
        "AutoModel.from_pretrained(path, use_safetensors=False)",
        "AutoConfig.from_pretrained(path, trust_remote_code=True)",
        "eval(text)",
    ],
)
def test_a_pickle_is_found(line: str) -> None:
    """The control of the test after this one."""
    assert len(running_files_as_code(ast.parse(line))) == 1


def test_nothing_reads_pickles_or_runs_what_lies_in_a_file() -> None:
    paths = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
    assert len(paths) > 100
    found = {
        str(path.relative_to(ROOT)): running_files_as_code(ast.parse(path.read_text(encoding="utf-8")))
        for path in paths
    }
    assert {path: names for path, names in found.items() if names} == {}
