"""Which edits retrain what: each is made on a copy of the tree, and held against the table in docs/retraining.md."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from pydantic import BaseModel

from assets.workspace.identity import ROOT, code_hash, git_commit, import_closure, meaning, plain, short_hash
from models.baselines import declared
from tests.assets.workspace.tiny import recipes

SASREC = "models/baselines/sasrec.py"
EDITS = {
    "a comment or a docstring": (SASREC, '"""SASRec: ', '"""The model SASRec: # '),
    "the layout of a line": (
        SASREC,
        "    torch.manual_seed(course.seed)\n",
        "    torch.manual_seed(  # first weights\n        course.seed\n    )\n",
    ),
    "a label or a colour": (SASREC, 'colour="#2b7bba"', 'colour="#000000"'),
    "a student's label": ("models/slmrec/narrow_student.py", 'label="Narrow student"', 'label="Another"'),
    "a new baseline": ("models/baselines/brand_new.py", "", "import models.training.run\n"),
    "SASRec": (SASREC, "dropout: float = 0.6", "dropout: float = 0.5"),
    "popularity": ("models/baselines/popularity.py", "scores_V[0] = -torch.inf", "scores_V[0] = 0"),
    "how the weights of neighbours are summed": ("models/baselines/item_to_item.py", "", "X = 1\n"),
    "how successors are counted": ("models/baselines/successors.py", "", "X = 1\n"),
    "how successors are spread over texts": ("models/baselines/text_graph.py", "", "X = 1\n"),
    "how rankings are cross-fitted": ("models/slmrec/rankings.py", "", "X = 1\n"),
    "what the narrow student learns from rankings": ("models/slmrec/narrow_student.py", "", "X = 1\n"),
    "how the student and the counts are mixed": ("models/slmrec/mixed_student.py", "", "X = 1\n"),
    "the training loop": ("models/training/loop.py", "", "X = 1\n"),
    "the cross-entropy over the catalogue": ("models/losses/catalogue.py", "", "X = 1\n"),
    "the distillation terms": ("models/losses/distillation.py", "", "X = 1\n"),
    "which layers a student takes": ("models/slmrec/layers.py", "", "X = 1\n"),
    "the prompt": ("models/slmrec/recommender.py", "", "X = 1\n"),
    "how the backbone's layers run": ("models/backbone/layer_stack.py", "", "X = 1\n"),
    "the language model's tokens": ("models/backbone/language_model.py", "", "X = 1\n"),
    "which reviews a language model may read": ("assets/amazon/text.py", "", "X = 1\n"),
    "the cleaning of texts": ("assets/amazon/reading/metadata.py", "", "X = 1\n"),
    "how an item is put in words": ("assets/amazon/descriptions.py", "", "X = 1\n"),
    "how texts become vectors": ("models/backbone/text_encoder.py", "", "X = 1\n"),
    "the making of training sequences": (
        "assets/amazon/dataset.py",
        'pl.concat_list("history", "target")',
        'pl.concat_list("target", "history")',
    ),
    "the histories that reach a fit": ("assets/inputs/training_rows.py", '"validation"', '"train"'),
    "on which part a training is validated": (
        "assets/inputs/validated_rows.py",
        'self.dataset.targets("validation")',
        'self.dataset.targets("test")',
    ),
    "the ranking of targets": ("evaluation/ranking.py", "", "X = 1\n"),
    "head, middle and tail": ("evaluation/slices.py", "", "X = 1\n"),
    "the filters and the splitting of the data": ("assets/amazon/splits.py", "", "X = 1\n"),
    "paired tests": ("evaluation/significance.py", "", "X = 1\n"),
    "what a result's record holds": ("evaluation/records.py", "", "X = 1\n"),
    "the report": ("evaluation/report/page.py", "", "X = 1\n"),
    "the registry and serving": ("assets/registry/packing.py", "", "X = 1\n"),
    "the assets": ("assets/llm.py", "", "X = 1\n"),
    "how checkpoints are kept": ("assets/workspace/recipe.py", "", "X = 1\n"),
}
"""What is edited -> the file, a text in it and what takes its place; "" adds to the end."""

HASHES = """
import json, sys
from pathlib import Path
from assets.workspace import identity
edits, modules = json.load(sys.stdin)
root = identity.ROOT

def hashes():
    for cached in (identity.import_closure, identity._import_graph, identity._source_hash):
        cached.cache_clear()
    return {name: identity.code_hash(*of) for name, of in modules.items()}

before, changed = hashes(), {}
for what, (file, old, new) in edits.items():
    path = root / file
    text = path.read_text() if path.exists() else None
    if text is not None:
        assert old in text, f"{old!r} is not in {file}"
    path.write_text((text or "") + new if not old else text.replace(old, new, 1))
    changed[what] = sorted(name for name, hashed in hashes().items() if hashed != before[name])
    path.unlink() if text is None else path.write_text(text)
assert hashes() == before
print(json.dumps(changed))
"""


EVALUATIONS = ["evaluation.ranking", "evaluation.slices"]
NOT_OURS = {"dagster", "mlflow"}
OWN = {
    "sasrec_text": {"sasrec_text", "sasrec"},
    "narrow_student": {"sasrec"},
    "teacher_rankings": {"text_graph", "successor_graph"},
}
"""Whose recommender is another's with more to read or to learn from, or asks others."""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Checkpoint -> the modules that its recipe names, those of its fit and of its inputs; and the evaluations'."""
    names, recipe = recipes(tmp_path_factory.mktemp("corpus"))
    nothing = dict.fromkeys(names, None)
    made = {name: recipe(name, nothing, 0) for name in names}  # type: ignore[arg-type]
    of_recipes = {name: [one.fit.__module__, type(one.inputs).__module__] for name, one in made.items()}
    return {**of_recipes, "evaluations": EVALUATIONS}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory, modules: dict[str, list[str]]) -> dict[str, set[str]]:
    """What each edit makes again, by code alone (not by what is upstream)."""
    copy = tmp_path_factory.mktemp("tree")
    for package in ("models", "evaluation", "assets"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", HASHES],
        input=json.dumps([EDITS, modules]),
        cwd=copy,
        env={"PYTHONPATH": str(copy), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {what: set(names) for what, names in json.loads(done.stdout).items()}


def documented() -> dict[str, set[str]]:
    """The table of docs/retraining.md."""
    rows = re.findall(r"^\| ([^|]+?) \|([^|]*)\|$", (ROOT / "docs/retraining.md").read_text(), re.MULTILINE)
    return {what: set(re.findall(r"`(\w+)`", names)) for what, names in rows if what in EDITS}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_retrains_what_the_table_says(changed: dict[str, set[str]], what: str) -> None:
    assert changed[what] == documented()[what]


def test_the_table_lists_every_edit() -> None:
    assert documented().keys() == EDITS.keys()


def closures(modules: dict[str, list[str]]) -> dict[str, set[str]]:
    return {name: set(of).union(*map(import_closure, of)) for name, of in modules.items()}


def test_no_recipe_holds_another_recommender(modules: dict[str, list[str]]) -> None:
    recommenders = {f"models.baselines.{name}" for name in declared()}
    for name, closure in closures(modules).items():
        own = OWN.get(name, {name})
        assert closure & recommenders == recommenders & {f"models.baselines.{one}" for one in own}
        assert ("models.slmrec.student" in closure) == (name in ("student", "online"))


def test_what_is_not_trained_by_steps_knows_nothing_of_training(modules: dict[str, list[str]]) -> None:
    """That what is trained by steps holds the training loop is proved where every recipe is followed."""
    found = closures(modules)
    for name in (
        "popularity",
        "item_knn",
        "successor_graph",
        "item_text_embeddings",
        "item_embeddings",
        "teacher_states",
        "text_graph",
        "teacher_rankings",
        "mixed_student",
    ):
        assert "models.training.loop" not in found[name], name
    assert found["popularity"] == {
        "models.baselines.popularity",
        *("models.declaration", "models.recommender", "models.sequences"),
        *("assets.inputs.training_rows", "assets.amazon.dataset"),
    }


def test_no_recipe_holds_report_registry_or_wiring(modules: dict[str, list[str]]) -> None:
    """Nor a module of ours that imports Dagster or MLflow."""
    graph = grimp.build_graph("models", "evaluation", "assets", include_external_packages=True, cache_dir=None)
    wired = set().union(*map(graph.find_modules_that_directly_import, NOT_OURS))
    assert {"assets.llm", "assets.registry.runs"} <= wired
    rooms = ("assets.registry", "assets.workspace", "assets.configuration", "assets.studies", "evaluation.report")
    for name, closure in closures(modules).items():
        assert not closure & wired, name
        assert not {module for module in closure if module.startswith(rooms)}, name


def test_the_code_of_packages_is_in_their_modules(modules: dict[str, list[str]]) -> None:
    """A package's own file runs too when one of its modules is imported, and is in no closure: it holds nothing."""
    inside = {module.rpartition(".")[0] for closure in closures(modules).values() for module in closure}
    for package in inside - {"models.baselines"}:  # it finds recommenders, for the floors above
        path = ROOT.joinpath(*package.split("."), "__init__.py")
        assert meaning(path.read_text()) == "pass", package


def test_only_what_runs_is_hashed() -> None:
    plainly = "def f(x):\n    return x + 1"
    told = '"""A module."""\n\n\ndef f(x):  # adds\n    """One more."""\n    return (x\n  + 1)\n\nDECLARATION = f(2)\n'
    assert meaning(told) == meaning(plainly)
    assert meaning(plainly) != meaning(plainly.replace("1", "2"))
    assert meaning("class A:\n    'What it is.'") == "class A:\n    pass"


def test_code_hashes_differ_between_modules_and_stay() -> None:
    assert code_hash("models.sequences") == code_hash("models.sequences") != code_hash("models.recommender")


class Settings(BaseModel):
    rate: float
    folder: Path


def test_values_are_hashed_by_content() -> None:
    given = Settings(rate=0.5, folder=Path("a/b"))
    assert plain({"own": given, 1: (2, None)}) == {"own": {"rate": 0.5, "folder": "a/b"}, "1": [2, None]}
    assert short_hash({"a": 1, "b": [2]}) == short_hash({"b": [2], "a": 1}) != short_hash({"a": 1, "b": [3]})
    with pytest.raises(TypeError, match="A set has no place in a setting"):
        plain({1, 2})
    with pytest.raises(ValueError, match="JSON"):
        short_hash(float("nan"))


def test_commit_is_the_one_checked_out() -> None:
    git_commit.cache_clear()
    if not (ROOT / ".git").exists():
        assert git_commit() is None
        return
    log = subprocess.run(["git", "log", "-1", "--format=%H"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert git_commit() == log.stdout.strip()
