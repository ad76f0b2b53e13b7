"""The baselines: an asset for each recommender that `models/baselines/` declares.

A new one needs nothing here: its file declares name, settings, fit and what it reads (`models/declaration.py`).
"""

from dagster import AssetExecutionContext, AssetIn, AssetsDefinition, asset

from assets.amazon.dataset import Dataset
from assets.registry.trainings import TRAINING_POOL, Trainings
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.presentation import OWNERS
from models.baselines import declared
from models.declaration import Declaration


def baseline(declaration: Declaration) -> AssetsDefinition:
    """The asset of one recommender."""

    @asset(
        name=declaration.name,
        description=f"{declaration.label}: {declaration.source}",
        group_name="baselines",
        kinds={"pytorch"},
        owners=OWNERS,
        io_manager_key="records",
        pool=TRAINING_POOL,
        ins={name: AssetIn(dagster_type=Checkpoint) for name in declaration.upstream},
    )
    def trained(
        context: AssetExecutionContext, trainings: Trainings, splits: Dataset, **upstream: Checkpoint
    ) -> Checkpoint:
        return trainings.train(context, declaration, splits, upstream)

    return trained


ASSETS = [baseline(declaration) for declaration in declared().values()]
