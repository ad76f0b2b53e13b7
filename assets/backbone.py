"""The language backbone: a decoder and its tokenizer, pretrained here, random, or given by a path, package or hub."""

from dagster import AssetExecutionContext, asset

from assets.amazon.dataset import Dataset
from assets.amazon.reading.raw_files import RawFile
from assets.data import ItemTexts
from assets.registry.trainings import TRAINING_POOL, Trainings
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.presentation import OWNERS


@asset(group_name="backbone", kinds={"huggingface"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def language_backbone(
    context: AssetExecutionContext,
    trainings: Trainings,
    raw_reviews: RawFile,
    item_texts: ItemTexts,
    splits: Dataset,
) -> Checkpoint:
    """The decoder whose first layers teacher and student take. It never sees a review of a held-out purchase."""
    from assets.inputs.corpus import Corpus, GivenModel
    from models.backbone.sources import fit_backbone
    from models.slmrec.recommender import PROMPT, check_fit

    profile = trainings.profile.load(context.partition_key)
    chosen = profile.backbone
    corpus = Corpus(raw_reviews, item_texts.texts, splits, PROMPT)
    inputs = corpus if chosen.reads_texts else GivenModel(chosen.path)
    backbone = trainings.compute(context, fit_backbone, chosen, inputs)
    for model in (profile.teacher.model, profile.student.model):
        check_fit(backbone.directory, model)
    return backbone
