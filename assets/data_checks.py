"""What becomes of the checks' outcomes: Dagster asset checks, Data Docs, metrics in MLflow, and what is refused.

Not here: what is checked, and how (`assets/amazon/validation/`).
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import polars as pl
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetRecordsFilter,
    AssetsDefinition,
    ConfigurableResource,
    Failure,
    MetadataValue,
    Output,
    ResourceDependency,
    asset,
)
from pydantic import BaseModel, ValidationError

from assets.amazon.validation.docs import add_to_data_docs
from assets.amazon.validation.rules import Check, Validation
from assets.configuration.domains import Domain
from assets.configuration.resources import DomainResource
from assets.registry.runs import MLflowTracking
from assets.workspace import home as homes
from assets.workspace.presentation import OWNERS
from assets.workspace.resources import Home
from models.files import write_file

GROUP = "data"

Record = TypeVar("Record", bound=BaseModel)


def checked(
    name: str, checks: Sequence[Check], io_manager: str = "tables"
) -> Callable[[Callable[..., Any]], AssetsDefinition]:
    """The decorator of a checked asset of the data stage; only a critical check keeps what follows from running."""
    return asset(
        name=name,
        group_name=GROUP,
        kinds={"polars"},
        owners=OWNERS,
        io_manager_key=io_manager,
        check_specs=[
            AssetCheckSpec(check.name, asset=name, description=check.description, blocking=check.critical)
            for check in checks
        ],
    )


class DataChecks(ConfigurableResource[Any]):
    """Which domain the data assets are about, and what becomes of their checks."""

    home: ResourceDependency[Home]
    domains: ResourceDependency[DomainResource]
    tracking: ResourceDependency[MLflowTracking]

    def domain(self, context: AssetExecutionContext) -> Domain:
        """The run's."""
        return self.domains.load(context.partition_key)

    def report(
        self,
        context: AssetExecutionContext,
        validation: Validation,
        *,
        output: Output[Any] | None = None,
        settings: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        quarantine: pl.DataFrame | None = None,
    ) -> Iterator[Output[Any] | AssetCheckResult]:
        """Tell the outcomes to Dagster, to the domain's Data Docs and to an MLflow run of the asset's name.

        Dagster stops a step with a failed blocking check at the step's end only, when everything it gave is stored. So
        what was checked is given here, and only if it passed: what is refused doesn't take the place of what was good.

        Args:
            context: the asset's.
            validation: what was found.
            output: what to store if no critical check failed.
            settings: what the asset was made by, for the run's parameters.
            metrics: what else to log of it.
            quarantine: lines that could not be used; kept beside the Data Docs, whatever the checks found.

        Raises:
            Failure: a critical check failed; once all outcomes are told.
        """
        domain, name = self.domain(context), validation.stage
        with self.tracking.run(context, domain=domain.name, parameters=settings, asset=name) as run:
            outcomes = {f"checks/{result.name}": float(result.passed) for result in validation.results}
            run.log_metrics({**outcomes, **(metrics or {})})
            directory = homes.data_docs_directory(domain.name)
            index = add_to_data_docs(directory, validation, domain=domain.name, synthetic=domain.synthetic)
            run.log_artifact(directory / f"{validation.stage}.json")
            links = {"data_docs": MetadataValue.path(index), **run.links()}
            if quarantine is not None:
                path = directory / f"{name}_quarantine.parquet"
                with io.BytesIO() as buffer:
                    quarantine.write_parquet(buffer, compression="zstd")
                    write_file(path, buffer.getvalue())
                links["quarantine"] = MetadataValue.path(path)
        if validation.passed and output is not None:
            yield output
        for result in validation.results:
            yield AssetCheckResult(
                asset_key=context.asset_key,
                check_name=result.name,
                passed=result.passed,
                severity=AssetCheckSeverity.ERROR if result.critical else AssetCheckSeverity.WARN,
                metadata={"observed": result.observed, **links},
            )
        if not validation.passed:
            failed = [result.name for result in validation.results if result.critical and not result.passed]
            raise Failure(
                f"{context.asset_key.to_user_string()} failed {', '.join(failed)}: the step stops here, and what it "
                "would have replaced from here on stays as it was.",
                metadata=links,
            )


def last_record(context: AssetExecutionContext, kind: type[Record]) -> Record | None:
    """What this asset gave for this partition when it was last materialised, from Dagster's own log; None if never."""
    found = context.instance.fetch_materializations(
        AssetRecordsFilter(AssetKey(context.asset_key.path), asset_partitions=[context.partition_key]), limit=1
    ).records
    materialisation = found[0].asset_materialization if found else None
    record = materialisation.metadata.get("record") if materialisation else None
    try:
        return kind.model_validate(record.value) if record else None
    except ValidationError:
        context.log.warning(f"The last {kind.__name__} is of another version: there is nothing to compare with.")
        return None
