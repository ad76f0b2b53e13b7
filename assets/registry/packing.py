"""A checkpoint as something that can be served: the MLflow model directory, its signature and its card.

Belongs here: what is packed with a recommender and what is said about it. Not here: what it does when called
(`recommender_pyfunc.py`), the run that it is logged to and the registry (`tracking.py`).
"""

import importlib
import json
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from assets.workspace.provenance import MODELS, Provenance

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

PYFUNC = Path(__file__).with_name("recommender_pyfunc.py")
REQUIREMENTS = ("mlflow", "torch", "transformers", "peft", "safetensors", "numpy", "pandas")
"""What loading and calling a recommender needs."""

CARD = "model_card.md"
TRAINING_FACTS = {
    "parameters": "parameters",
    "trainable_parameters": "trainable parameters",
    "train_seconds": "training seconds",
    "taken_layers": "layers that it began as",
    "stopped": "training ended because",
    "best_ndcg_at_10": "NDCG@10 on the validation targets while training",
}
"""What of `training.json` the card tells, and in which words."""


def save_pyfunc(
    directory: Path,
    checkpoint: Path,
    *,
    item_ids: Sequence[str],
    input_example: Sequence[Sequence[str]],
    card: str,
    model: "Model | None" = None,
) -> None:
    """Write the MLflow model that serves a checkpoint, with all the code it needs.

    Args:
        directory: where to; must be empty or not exist.
        checkpoint: the recommender's directory.
        item_ids: the raw ids, item 1's first.
        input_example: histories of raw item ids, as they will come in.
        card: Markdown for the people who will use the model.
        model: MLflow's description to be filled in, if it already has an id and a run.

    Raises:
        ValueError: if the vocabulary hasn't the size of the one that the recommender was trained on.
    """
    pyfunc = _pyfunc()
    _check_vocabulary(checkpoint, item_ids)
    with TemporaryDirectory() as scratch:
        vocabulary = Path(scratch) / "item_ids.json"
        vocabulary.write_text(json.dumps(list(item_ids)), encoding="utf-8")
        card_file = Path(scratch) / CARD
        card_file.write_text(card, encoding="utf-8")
        pyfunc.save_model(
            directory,
            python_model=PYFUNC,
            code_paths=[str(MODELS)],
            artifacts={"checkpoint": str(checkpoint), "item_ids": str(vocabulary), "card": str(card_file)},
            signature=signature(),
            input_example=_example(input_example),
            pip_requirements=requirements(),
            mlflow_model=model,
        )


def signature() -> "ModelSignature":
    """`history` in, `item_ids` and `scores` out, and the parameter `k`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    return ModelSignature(
        inputs=Schema([ColSpec(Array(DataType.string), "history")]),
        outputs=Schema([ColSpec(Array(DataType.string), "item_ids"), ColSpec(Array(DataType.double), "scores")]),
        params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
    )


def requirements() -> list[str]:
    """The installed versions, pinned, without build labels such as `+cpu`, which package indexes don't carry.

    Given to MLflow because it would otherwise load the model in a second process to find out.
    """
    return [f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _readable(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def checkpoint_card(checkpoint: Path, *, recommender: str, domain: str, note: str = "") -> str:
    """Markdown on what a registered version is, where it comes from, and how it is called.

    Args:
        checkpoint: its directory; `training.json` is told of where there is one.
        recommender: the asset that trained it.
        domain: what it was trained on.
        note: what a user must know besides, such as that the data are synthetic.
    """
    config = _read(checkpoint / "config.json")
    provenance = Provenance.model_validate(_read(checkpoint / "provenance.json"))
    training = _read(checkpoint / "training.json") if (checkpoint / "training.json").exists() else {}
    rows = {
        "kind": config["kind"],
        **{label: _readable(training[key]) for key, label in TRAINING_FACTS.items() if training.get(key) is not None},
        "data version": provenance.data_version,
        "code version": provenance.code_version,
        "commit": provenance.commit or "not a git checkout",
        "configuration": provenance.config_hash,
        "seed": provenance.seed,
        "Dagster run": provenance.dagster_run,
        **{f"made from {asset}": identity for asset, identity in provenance.upstream.items()},
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    usage = (
        "Recommends the next item from a user's history. "
        "Input: column `history`, lists of raw item ids in time order; parameter `k`, how many items (10). "
        "Output: `item_ids` and `scores`, best first. Items of the history are left out, unknown ids are "
        "ignored, and a history without any known item gets no recommendation."
    )
    paragraphs = [
        f"# {recommender} for {domain}",
        usage,
        note,
        f"| | |\n|---|---|\n{table}",
    ]
    return "\n\n".join(part for part in paragraphs if part) + "\n"


def _pyfunc() -> Any:
    """`mlflow.pyfunc`, whose first import warns about type hints of its own (MLflow 3.17, November 2026)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred", category=UserWarning)
        return importlib.import_module("mlflow.pyfunc")


def _check_vocabulary(checkpoint: Path, item_ids: Sequence[str]) -> None:
    n_items = _read(checkpoint / "config.json").get("n_items", len(item_ids))
    if n_items != len(item_ids):
        raise ValueError(
            f"{checkpoint} knows {n_items} items and the vocabulary has {len(item_ids)}: "
            "they come from different data. Re-materialise the recommender."
        )


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _example(histories: Sequence[Sequence[str]]) -> Any:
    import pandas as pd

    return pd.DataFrame({"history": [list(history) for history in histories]})
