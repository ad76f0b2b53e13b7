"""A checkpoint as something that can be served: the MLflow model directory, its code, its signature and its card.

Belongs here: what is packed with a recommender and what is said about it. Not here: what it does when called
(`recommender_pyfunc.py`), the registry (`versions.py`).

MLflow puts a model's code on `sys.path`, so two versions that ship a package of one name would share whichever was
imported first. Each therefore ships its code under a name of its own, `slmrec_<hash of the code>`: the modules that the
recommender runs, and no others.
"""

import importlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from assets.amazon.dataset import Dataset
from assets.registry.training_data import TRAINING_DATA, summarise
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.identity import ROOT, code_hash, import_closure

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import Model, ModelSignature

PYFUNC = Path(__file__).with_name("recommender_pyfunc.py")
REQUIREMENTS = ("mlflow", "torch", "transformers", "peft", "safetensors", "numpy", "pandas")
"""What loading and calling a recommender needs."""

CARD, CATALOGUE = "model_card.md", "catalogue.json"
_OF_MODELS = re.compile(r"^(\s*(?:from|import) )models(?=[. ])", re.MULTILINE)


def save_pyfunc(
    directory: Path, checkpoint: Path, dataset: Dataset, *, card: str, model: "Model | None" = None
) -> None:
    """Write the MLflow model that serves a checkpoint, with all the code it needs.

    Args:
        directory: where to; must be empty or not exist.
        checkpoint: the recommender's directory.
        dataset: what it was trained on: raw item ids, how often each was bought, example histories, and a summary to
            tell later data's drift from.
        card: Markdown for the people who will use the model.
        model: MLflow's description to be filled in, if it already has an id and a run.

    Raises:
        ValueError: if the vocabulary hasn't the size of the one that the recommender was trained on.
    """
    from models.files import load_recommender

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    if config["n_items"] != dataset.n_items:
        raise ValueError(
            f"{checkpoint} knows {config['n_items']} items and the vocabulary has {dataset.n_items}: they come from "
            "different data. Materialise the recommender again."
        )
    with TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / name for name in (CATALOGUE, CARD, TRAINING_DATA)}
        catalogue = {"items": dataset.item_ids, "purchases": dataset.purchases()[1:].tolist()}
        files[CATALOGUE].write_text(json.dumps(catalogue), encoding="utf-8")
        files[CARD].write_text(card, encoding="utf-8")
        files[TRAINING_DATA].write_bytes(summarise(dataset, load_recommender(checkpoint).for_inference()).to_json())
        package = pack_code(Path(scratch), *modules_of(config))
        _pyfunc().save_model(
            directory,
            python_model=PYFUNC,
            code_paths=[str(package)],
            artifacts={
                "checkpoint": str(checkpoint),
                "catalogue": str(files[CATALOGUE]),
                "card": str(files[CARD]),
                "training_data": str(files[TRAINING_DATA]),
            },
            model_config={"package": package.name},
            signature=signature(),
            input_example=example_input(dataset),
            pip_requirements=requirements(),
            mlflow_model=model,
        )


def modules_of(config: Mapping[str, Any]) -> list[str]:
    """The modules of a recommender's class and of its parts', below `models`, such as "baselines.sasrec"."""
    parts = [one for part in config.values() if isinstance(part, dict) and "class" in part for one in modules_of(part)]
    return sorted({str(config["class"]).partition(":")[0], *parts})


def pack_code(folder: Path, *modules: str) -> Path:
    """The code of a recommender in a package of its own name.

    Args:
        folder: where to put the package.
        modules: the recommender's and its parts', as of `modules_of`.

    Returns:
        The package's directory.
    """
    named = {"models.files", *(f"models.{module}" for module in modules)}
    needed = {"models", "models.recommender", *named}
    needed |= {one for name in needed - {"models"} for one in import_closure(name) if one.startswith("models.")}
    needed |= {name.rpartition(".")[0] for name in needed if name != "models"}  # the packages that hold them
    package = folder / f"slmrec_{code_hash(*named)}"
    for name in needed:
        source = ROOT.joinpath(*name.split("."))
        source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        copy = package / source.relative_to(ROOT / "models")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_OF_MODELS.sub(rf"\g<1>{package.name}", source.read_text(encoding="utf-8")), encoding="utf-8")
    return package


def signature() -> "ModelSignature":
    """`history` in; `item_ids`, `scores` and `answered_by` out; and the parameter `k`.

    The ids of a history may be anything to MLflow, and the model itself refuses what is no text: as texts, MLflow 3.17
    would cut all ids of a history with a null to their first letter.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    return ModelSignature(
        inputs=Schema([ColSpec(Array(AnyType()), "history")]),  # type: ignore[no-untyped-call]  # MLflow's
        outputs=Schema(
            [
                ColSpec(Array(DataType.string), "item_ids"),
                ColSpec(Array(DataType.double), "scores"),
                ColSpec(DataType.string, "answered_by"),
            ]
        ),
        params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
    )


def requirements() -> list[str]:
    """The installed versions, pinned, without build labels such as `+cpu`, which package indexes don't carry.

    Given to MLflow because it would otherwise load the model in a second process to find out.
    """
    return [f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS]


def model_card(checkpoint: Checkpoint, *, label: str, note: str = "") -> str:
    """Markdown on what a registered version is, where it comes from, and how it is called.

    Args:
        checkpoint: with its training record.
        label: the recommender's name for readers.
        note: what a user must know besides, such as that the data are synthetic.
    """
    made, training = checkpoint.provenance, checkpoint.training()
    validated = [stage.best_ndcg_at_10 for stage in training.stages.values() if stage.best_ndcg_at_10 is not None]
    rows: Mapping[str, Any] = {
        "profile": training.profile,
        "language model": training.backbone,
        "objective": training.objective,
        "numbers that a prediction reads": f"{training.parameters:,}",
        "trained numbers": f"{training.trainable_parameters:,}",
        "training seconds": f"{training.cost.seconds:.1f}",
        "NDCG@10 on the validation targets": f"{validated[-1]:.4f}" if validated else None,
        **{name.replace("_", " "): value for name, value in training.notes.items()},
        "data version": made.data_version,
        "code": made.code,
        "commit": made.commit or "not a git checkout",
        "settings": made.settings_hash,
        "seed": made.seed,
        "identity": checkpoint.identity,
        "Dagster run": made.dagster_run,
        **{f"made from {asset}": identity for asset, identity in made.upstream.items()},
    }
    table = markdown_table(["", ""], [[name, str(value)] for name, value in rows.items() if value is not None])
    usage = (
        "Recommends the next item from a user's history. Input: column `history`, lists of raw item ids, oldest first; "
        "parameter `k`, how many items (10). Output: `item_ids` and `scores`, best first, without the history's items, "
        "and `answered_by`: `model`, or `popularity` for a history without any known item. Unknown ids are ignored."
    )
    parts = [f"# {label} for {checkpoint.domain}", usage, note, table]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as Markdown.

    MLflow sets no space between columns: the longest cell of each but the last brings some.
    """
    lines = [list(head), *map(list, rows)]
    for column in range(len(head) - 1):
        length = max(len(line[column]) for line in lines)
        next(line for line in lines if len(line[column]) == length)[column] += "&emsp;"
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _pyfunc() -> Any:
    """`mlflow.pyfunc`, whose first import warns about type hints of its own (MLflow 3.17, November 2026)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred", category=UserWarning)
        return importlib.import_module("mlflow.pyfunc")


def example_input(dataset: Dataset, users: int = 2) -> "pd.DataFrame":
    """What the model is called with: a few test histories in raw item ids."""
    import pandas as pd

    histories, raw_ids = dataset.histories("test"), dataset.item_ids
    rows = (histories.values[histories.offsets[row] : histories.offsets[row + 1]] for row in range(users))
    return pd.DataFrame({"history": [[raw_ids[item - 1] for item in row] for row in rows]})
