"""The code location: every asset by name, the jobs that chain them, and the resources they take."""

import os
from collections.abc import Sequence
from pathlib import Path

from dagster import (
    AssetsDefinition,
    AssetSelection,
    Definitions,
    PartitionsDefinition,
    StaticPartitionsDefinition,
    define_asset_job,
    in_process_executor,
)

from assets import backbone, baselines, data, delivery, drift, llm, recommendations, results, texts
from assets.configuration.domains import load_domains
from assets.configuration.resources import domain_resource, profile_resource
from assets.data_checks import DataChecks
from assets.registry.runs import MLflowTracking
from assets.registry.trainings import Trainings
from assets.studies import ablation, depth, online, report, theory
from assets.workspace.io_managers import ParquetIOManager, RecordIOManager, TablesIOManager
from assets.workspace.resources import Home
from orchestration.console import progress_console
from orchestration.schedules import weekly_retraining
from orchestration.sensors.champion import champion_sensor
from orchestration.sensors.failures import failure_sensor, killed_runs_sensor
from orchestration.sensors.recommendations import RECOMMEND, recommendations_sensor
from orchestration.sensors.sources import sources_sensor

DOMAINS = Path(__file__).with_name("domains.yaml")
PROFILES = Path(__file__).with_name("profiles")
DOMAINS_VARIABLE, PROFILES_VARIABLE, PROFILE_VARIABLE = "SLMREC_DOMAINS", "SLMREC_PROFILES", "SLMREC_PROFILE"
DEFAULT_PROFILE = "sample"
CHAIN = "chain"

ASSETS = [
    data.raw_reviews,
    data.raw_metadata,
    data.interactions,
    data.item_texts,
    data.sequences,
    data.splits,
    data.dataset_statistics,
    drift.drift,
    backbone.language_backbone,
    texts.item_text_embeddings,
    *baselines.ASSETS,
    llm.item_embeddings,
    llm.teacher,
    llm.teacher_states,
    llm.student,
    llm.teacher_rankings,
    llm.narrow_student,
    llm.mixed_student,
    results.main_results,
    results.evaluation_report,
    delivery.challenger,
]
STUDIES = [
    ablation.ablation_study,
    depth.depth_study,
    online.online_distillation_study,
    theory.theory_check,
    report.study_report,
]
DELIVERED = [recommendations.recommendations]
"""What is made by the champion, and so no part of the chain, which ends with a challenger."""


def domain_files() -> list[Path]:
    """The shipped domains, and those of the user's own file."""
    return [DOMAINS, *_named(DOMAINS_VARIABLE)]


def profile_files() -> list[Path]:
    """The shipped profiles, and the user's own files, separated as in PATH; one of a shipped name takes its place."""
    own = _named(PROFILES_VARIABLE)
    names = {path.stem for path in own}
    return [*(path for path in sorted(PROFILES.glob("*.yaml")) if path.stem not in names), *own]


def name_profile(path: Path) -> str:
    """Add a file to the user's own, before one of its name; from then on commands that are printed know it.

    Returns:
        The profile's name.

    Raises:
        ValueError: if there is no such file.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"There is no profile file {path}.")
    others = (str(other) for other in _named(PROFILES_VARIABLE) if other.stem != path.stem)
    os.environ[PROFILES_VARIABLE] = os.pathsep.join([str(path), *others])
    return path.stem


def build_definitions(domains: Sequence[Path], profiles: Sequence[Path], profile: str) -> Definitions:
    """The definitions for these settings.

    Args:
        domains: YAML files of domains; a partition a domain.
        profiles: YAML files of profiles, which the UI offers by name.
        profile: the default one's name.

    Raises:
        ValueError: names the file and the setting that is wrong.
    """
    loaded = load_domains(domains)
    names = list(loaded)
    partitions = StaticPartitionsDefinition(names)
    # Configured at launch, they are the same for `trainings` as for the assets, with the launchpad's overrides.
    home, tracking = Home.configure_at_launch(), MLflowTracking.configure_at_launch()
    every_domain = type(domain_resource(domains)).configure_at_launch()
    chosen = type(profile_resource(profiles, profile)).configure_at_launch()
    return Definitions(
        assets=[
            *(partitioned(asset, partitions) for asset in (*ASSETS, *STUDIES, *DELIVERED)),
            delivery.champion.replace_attributes(partitions_def=partitions),
        ],
        sensors=[
            champion_sensor(names),
            sources_sensor(loaded, CHAIN),
            recommendations_sensor(names),
            failure_sensor,
            killed_runs_sensor(names),
        ],
        schedules=[weekly_retraining(loaded, CHAIN)],
        jobs=[
            define_asset_job(
                CHAIN,
                selection=AssetSelection.all() - AssetSelection.assets(*STUDIES, *DELIVERED),
                description="One domain from nothing to its evaluation report and its challenger.",
            ),
            define_asset_job(
                "studies",
                selection=AssetSelection.assets(*STUDIES),
                description="What each part of the method is worth, on a domain that the chain has been through.",
            ),
            define_asset_job(
                RECOMMEND,
                selection=AssetSelection.assets(*DELIVERED),
                description="The champion's best items for every user of the data that the chain has made.",
            ),
        ],
        # One process a run: a training has all the cores to itself, and the heavy libraries are imported once.
        executor=in_process_executor,
        loggers={"console": progress_console},
        resources={
            "home": home,
            "domains": every_domain,
            "profile": chosen,
            "tracking": tracking,
            "checks": DataChecks(home=home, domains=every_domain, tracking=tracking),
            "trainings": Trainings(home=home, domains=every_domain, profile=chosen, tracking=tracking),
            "frames": ParquetIOManager(),
            "tables": TablesIOManager(),
            "records": RecordIOManager(),
        },
    )


def partitioned(asset: AssetsDefinition, partitions: PartitionsDefinition) -> AssetsDefinition:
    """The asset with a partition a domain; its checks too, so that one domain's failure shows as that domain's.

    Dagster 1.13 maps the specs of assets, and not yet those of checks: they are replaced as it does it itself.
    """
    asset = asset.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=partitions))
    checks = {
        output: spec._replace(partitions_def=partitions)
        for output, spec in asset.node_check_specs_by_output_name.items()
    }
    return AssetsDefinition.dagster_internal_init(
        **{**asset.get_attributes_dict(), "check_specs_by_output_name": checks}
    )


def _named(variable: str) -> list[Path]:
    """The files that an environment variable names, absolute."""
    return [Path(path).expanduser().resolve() for path in os.environ.get(variable, "").split(os.pathsep) if path]


definitions = build_definitions(domain_files(), profile_files(), os.environ.get(PROFILE_VARIABLE) or DEFAULT_PROFILE)
