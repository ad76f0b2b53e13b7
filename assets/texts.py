"""The items' texts as vectors, for recommenders that read them."""

from typing import Any

from dagster import AssetExecutionContext, MarkdownMetadataValue, MetadataValue, asset

from assets.amazon.dataset import Dataset
from assets.data import ItemTexts
from assets.registry.trainings import TRAINING_POOL, Trainings
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.presentation import OWNERS

SHOWN, NEIGHBOURS, LONGEST_TITLE = 5, 3, 60
"""Items whose neighbours are shown, how many of each, and characters of a title."""


@asset(group_name="backbone", kinds={"huggingface"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def item_text_embeddings(
    context: AssetExecutionContext,
    trainings: Trainings,
    item_texts: ItemTexts,
    splits: Dataset,
    language_backbone: Checkpoint,
) -> Checkpoint:
    """A vector of each item's title, brand, categories and description; 0 where it has none. No review is read.

    The language backbone is read only where the profile says so (`item_texts: {source: backbone}`).
    """
    from assets.inputs.described_items import BACKBONE, DescribedItems
    from models.backbone.text_sources import fit_item_texts

    settings = trainings.profile.load(context.partition_key).item_texts
    reads_backbone = settings.source == "backbone"
    inputs = DescribedItems(item_texts.texts, splits, settings.path, reads_backbone)
    upstream = {BACKBONE: language_backbone} if reads_backbone else {}
    table = trainings.compute(context, fit_item_texts, settings, inputs, upstream)
    context.add_output_metadata({"neighbours": neighbours_by_text(table, inputs.texts)})
    return table


def neighbours_by_text(table: Checkpoint, texts: list[str]) -> MarkdownMetadataValue:
    """A few items, from all over the catalogue, each with those whose vectors point most nearly the same way."""
    import torch

    from models.item_texts import load_item_texts

    vectors_VT = torch.nn.functional.normalize(load_item_texts(table.directory), dim=1)
    described = vectors_VT.any(1).nonzero()[:, 0].tolist()
    lines = ["| item | nearest by text, with the cosine |", "|---|---|"]
    for item in described[:: max(1, len(described) // SHOWN)][:SHOWN]:
        cosine_V = vectors_VT @ vectors_VT[item]
        cosine_V[[0, item]] = -torch.inf
        cosine_V[~vectors_VT.any(1)] = -torch.inf
        best = cosine_V.topk(min(NEIGHBOURS, len(described) - 1))
        near = [f"{_shown(texts[one - 1])} ({cosine:.2f})" for cosine, one in zip(*map(_list, best), strict=True)]
        lines.append(f"| {_shown(texts[item - 1])} | {'<br>'.join(near)} |")
    return MetadataValue.md("\n".join(lines) if described else "No item has a text.")


def _list(values: Any) -> list[Any]:
    return list(values.tolist())


def _shown(text: str) -> str:
    """The beginning of a text, as a cell of a table."""
    plain = text.replace("|", "/").replace("\n", " ")
    return plain if len(plain) <= LONGEST_TITLE else f"{plain[:LONGEST_TITLE]}…"
