"""`study_report`: the evaluation report with all studies in it."""

from dagster import AssetExecutionContext, asset

from assets.data import DatasetStatistics
from assets.registry.runs import MLflowTracking
from assets.results import Report, Results, write_report
from assets.studies.cells import GROUP
from assets.workspace.presentation import OWNERS
from assets.workspace.resources import Home
from evaluation.studies import StudyRecord


@asset(group_name=GROUP, kinds={"html"}, owners=OWNERS, io_manager_key="records")
def study_report(
    context: AssetExecutionContext,
    home: Home,  # noqa: ARG001  # holds the domain
    tracking: MLflowTracking,
    main_results: Results,
    dataset_statistics: DatasetStatistics,
    ablation_study: StudyRecord,
    depth_study: StudyRecord,
    online_distillation_study: StudyRecord,
    theory_check: StudyRecord,
) -> Report:
    """The evaluation report, and what each part of the method is worth."""
    studies = (ablation_study, depth_study, online_distillation_study, theory_check)
    for study in studies:
        if study.data_version != main_results.data_version:
            raise ValueError(
                f"{study.name} was made on data version {study.data_version}, main_results on "
                f"{main_results.data_version}: materialise {study.name} again for domain {study.domain!r}."
            )
    return write_report(context, tracking, main_results, dataset_statistics, "studies.html", studies)
