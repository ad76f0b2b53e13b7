"""One home with one MLflow store for all tests of a session: making its tables takes seconds."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assets.registry.store import connect
from assets.workspace import home

if TYPE_CHECKING:
    from dagster import ExecuteInProcessResult

    from assets.workspace.checkpoints import Checkpoint
    from tests.assets.registry.tiny import Wired

home.disable_telemetry()

MLFLOW_WARNINGS = (
    "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow 3.17's queries, SQLAlchemy 2.1 (November 2026)
    "ignore:.*Any type hint is inferred:UserWarning",  # its own types, when it is imported (November 2026)
    "ignore:Operation with range is deprecated:DeprecationWarning",  # its input examples, pandas 3 (November 2026)
)


def pytest_collection_modifyitems(items):
    """Exempt what libraries warn of, in the tests that write to a store."""
    for item in items:
        if "tracked_home" in getattr(item, "fixturenames", ()):
            for warning in MLFLOW_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def _store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMREC_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        path = home.prepare_home()
        connect(home.mlflow_uri())
        return path


@pytest.fixture(scope="session")
def tiny_chain(_store, tmp_path_factory):
    """The chain up to its main results, run once on the tiny domain (`tiny.Chain`). Not to be changed."""
    from assets import backbone, baselines, llm, texts
    from assets.results import main_results
    from tests.assets import tiny

    folder, rows, store = tmp_path_factory.mktemp("chain"), tiny.bought(), f"sqlite:///{_store / 'mlflow.db'}"
    tiny.write_settings(folder)
    given = tiny.made_by_hand(folder, rows)
    learning = [llm.item_embeddings, llm.teacher, llm.teacher_states, llm.student]
    learning += [llm.teacher_rankings, llm.narrow_student, llm.mixed_student]
    wanted = [backbone.language_backbone, texts.item_text_embeddings, *baselines.ASSETS, *learning, main_results]
    with pytest.MonkeyPatch.context() as patch, tiny.watched() as seen:
        patch.setenv("SLMREC_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", store)
        made = tiny.materialise(wanted, given, folder)
        tiny.materialise(tiny.handed_on("dataset_statistics", given["dataset_statistics"]), {}, folder)
    followed = {one.recipe.name: one.recipe for one in seen}
    return tiny.Chain(folder, folder / "home", store, rows, {**given, **made}, followed)


@pytest.fixture
def own_home(tiny_chain, tmp_path, monkeypatch) -> Path:
    """A home of its own, but for the MLflow store, which is the chain's."""
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tiny_chain.store)
    return tmp_path / "home"


@pytest.fixture
def tracked_home(_store, monkeypatch) -> Path:
    """The home of the session's MLflow store."""
    monkeypatch.setenv("SLMREC_HOME", str(_store))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return _store


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> Path:
    """A home that nothing has been written to; the directory isn't even made."""
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "home"


@dataclass(frozen=True)
class Chain:
    """All recommenders of a domain, trained, judged and registered under the profile `first`. Not to be changed.

    Attributes:
        wired: domain, profiles and resources.
        result: of the run.
        checkpoints: every recommender's, by name.
    """

    wired: "Wired"
    result: "ExecuteInProcessResult"
    checkpoints: "dict[str, Checkpoint]"


@pytest.fixture(scope="session")
def chain(_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Of the domain `chained`, in the session's home; for tests that use `tracked_home` too."""
    import polars as pl

    from assets import backbone, baselines, llm, texts
    from assets.amazon.reading.metadata import METADATA_SCHEMA
    from assets.amazon.reading.raw_files import NO_FILE
    from assets.amazon.text import item_texts
    from assets.data import ItemTexts
    from assets.results import RECOMMENDERS
    from tests.assets.registry.tiny import random_purchases, wired
    from tests.models.recommenders import random_backbone

    folder = tmp_path_factory.mktemp("chain")
    local = random_backbone(folder / "backbone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMREC_HOME", str(_store))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        place = wired(folder, "chained", random_purchases(), f"{{source: local, path: {local}}}")
        told = [(item, f"the thing {item}", "", [], []) for item in place.dataset.item_ids]
        words = item_texts(pl.DataFrame(told, METADATA_SCHEMA, orient="row"), place.dataset.items)
        result = place.materialise(
            *baselines.ASSETS,
            backbone.language_backbone,
            texts.item_text_embeddings,
            llm.item_embeddings,
            llm.teacher,
            llm.teacher_states,
            llm.student,
            llm.teacher_rankings,
            llm.narrow_student,
            llm.mixed_student,
            given={"splits": place.dataset, "raw_reviews": NO_FILE, "item_texts": ItemTexts(texts=words, raw=NO_FILE)},
        )
    return Chain(place, result, {name: result.output_for_node(name) for name in RECOMMENDERS})
