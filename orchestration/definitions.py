"""The code location: every asset by name, the job that chains them, and the resources they take."""

import os

from dagster import AssetSelection, Definitions, define_asset_job, in_process_executor

from assets import backbone, baselines, data, delivery, llm, results
from assets.registry.runs import MLflowTracking
from assets.studies import ablation, depth, online, theory
from assets.workspace.io_managers import ParquetIOManager, RecordIOManager
from assets.workspace.resources import Home, ProfileResource
from orchestration.console import progress_console

PROFILE_VARIABLE = "SLMREC_PROFILE"
DEFAULT_PROFILE = "sample"

STUDIES = [ablation.ablation_study, depth.depth_study, online.online_distillation_study, theory.theory_check]

chain = define_asset_job(
    "chain",
    selection=AssetSelection.all() - AssetSelection.assets(*STUDIES),
    description="One domain from nothing to its evaluation report and its challenger.",
)
studies = define_asset_job(
    "studies",
    selection=AssetSelection.assets(*STUDIES, results.evaluation_report),
    description="What each part of the method is worth, on a domain that the chain has been through; then its report.",
)

definitions = Definitions(
    assets=[
        data.raw_reviews,
        data.raw_metadata,
        data.interactions,
        data.item_texts,
        data.sequences,
        data.splits,
        data.dataset_statistics,
        backbone.language_backbone,
        baselines.popularity,
        baselines.sasrec,
        llm.item_embeddings,
        llm.teacher,
        llm.teacher_states,
        llm.student,
        results.main_results,
        results.evaluation_report,
        delivery.challenger,
        *STUDIES,
    ],
    jobs=[chain, studies],
    # One process a run: a training has all the cores to itself, and the heavy libraries are imported once.
    executor=in_process_executor,
    loggers={"console": progress_console},
    resources={
        "home": Home(),
        "profile": ProfileResource(profile=os.environ.get(PROFILE_VARIABLE) or DEFAULT_PROFILE),
        "tracking": MLflowTracking(),
        "tables": ParquetIOManager(),
        "records": RecordIOManager(),
    },
)
