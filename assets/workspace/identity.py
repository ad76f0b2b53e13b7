"""What a checkpoint's numbers depend on, as short hashes: the code that runs, and settings.

Belongs here: hashes of code and of values. Not here: which code and settings a checkpoint has (`recipe.py`).

The code part is the import closure of the modules that run: these modules, and all of ours that they import, near or
far. A module counts by its syntax tree without docstrings, so comments, docstrings and layout change nothing; nor does
its declaration, whose label and colour are for readers, and whose settings are hashed by themselves. Imports under
`TYPE_CHECKING` don't run, and don't count. The versions of libraries are recorded with a checkpoint, but are no part of
its identity: an update of torch retrains nothing.
"""

import ast
import dataclasses
import functools
import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from evaluation.provenance import short_hash

PACKAGES = ("models", "evaluation", "assets")
ROOT = Path(__file__).parents[2]
FOR_READERS, DECLARES = "DECLARATION", "Declaration("


def code_hash(*modules: str) -> str:
    """16 hex digits that stand for what these modules do: for their import closure (see above)."""
    closure = sorted(set(modules).union(*(import_closure(module) for module in modules)))
    return short_hash({module: _source_hash(module) for module in closure})


@functools.cache
def import_closure(module: str) -> frozenset[str]:
    """All of our modules that a module imports, near or far, itself left out; also within its functions."""
    return frozenset(_import_graph().find_upstream_modules(module))


@functools.cache
def _import_graph() -> Any:
    import grimp

    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)


@functools.cache
def _source_hash(module: str) -> str:
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return hashlib.sha256(meaning(path.read_text(encoding="utf-8")).encode()).hexdigest()


def meaning(source: str) -> str:
    """A module's source without what runs nothing: docstrings, comments, layout and the declaration for readers.

    >>> meaning('def f():  # a comment' + chr(10) + '    "What it does."' + chr(10) + '    return   1')
    'def f():\\n    return 1'
    """
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not _is_declaration(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [one for one in node.body if not _is_text(one)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_declaration(node: ast.stmt) -> bool:
    """An assignment to `DECLARATION`, or of a `Declaration(…)` to another name."""
    if not isinstance(node, ast.Assign):
        return False
    names = [ast.unparse(target) for target in node.targets]
    return names == [FOR_READERS] or ast.unparse(node.value).startswith(DECLARES)


def _is_text(node: ast.stmt) -> bool:
    """A docstring, or a text that stands below an attribute to describe it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def plain(value: Any) -> Any:
    """The same value in JSON's types: models, dataclasses and mappings as dicts, sequences as lists, paths as text.

    Raises:
        TypeError: for a value of any other type.
    """
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"A {type(value).__name__} has no place in a setting: use numbers, text, lists and mappings.")


@functools.cache
def git_commit() -> str | None:
    """The commit that is checked out, or None outside a git working tree."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None
    answer = subprocess.run(  # noqa: S603  # fixed arguments
        [git, "rev-parse", "--verify", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None
