"""The weeks: each tick of the schedule, the run that it asks for, the review, and what the champion is then worth.

Belongs here: what Dagster's daemon and a reviewer do otherwise, done in this process at made-up dates. Not here: what
is planted (`shop.py`), the reviewer's rules, the table.
"""

import datetime as dt
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from dagster import (
    DagsterInstance,
    Definitions,
    RunRequest,
    build_run_status_sensor_context,
    build_schedule_context,
)

from assets.amazon.dataset import Dataset
from assets.configuration.resources import domain_resource, profile_resource
from assets.data import DatasetStatistics
from assets.delivery import read_decision
from assets.drift import CHECKS, Drift
from assets.registry.champion import champion_of, judge_version
from assets.registry.gate import headline
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from models.files import write_file
from orchestration.quarter import outcome
from orchestration.quarter.outcome import Week
from orchestration.quarter.reviewer import review
from orchestration.quarter.shop import Plan, Shop

DOMAIN = "shop"
PROFILE = Path(__file__).with_name("quarter.yaml")
USERS, ITEMS = 800, 120
POPULARITY_LIMIT = 0.005
"""Of `item_popularity_psi`: all purchases against all, a tenth of them new, are below 0.002 in a usual week (ours)."""
RUINED = {"narrow_student": {"training": {"learning_rate": 0.000008}}}
"""As somebody writes it who is off by three zeros."""
HERE_ONLY = (
    "DAGSTER_POSTGRES_URL",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_TRACKING_URI",
    "SLMREC_SCHEDULE",
    "SLMREC_TIME_ZONE",
    "SLMREC_WEBHOOK",
)
"""Variables that would lead out of the quarter, or move its ticks."""


def operate(folder: Path, seed: int, plan: Plan | None = None) -> int:
    """Operate the shop for a quarter, in a home of its own below the folder.

    Returns:
        0 if all that was planted was seen, else 1.

    Raises:
        ValueError: if a quarter lies in the folder already.
    """
    plan, folder = plan or Plan(), folder.resolve()
    if (folder / "home").exists():
        raise ValueError(f"{folder} holds a quarter already: remove it, or give another folder (OUT=…).")
    for name in HERE_ONLY:
        os.environ.pop(name, None)
    os.environ |= {home.HOME_VARIABLE: str(folder / "home"), "DAGSTER_HOME": str(folder / "home" / "dagster")}
    home.prepare_home()
    shop = Shop(folder, plan, USERS, ITEMS, seed)
    with DagsterInstance.get() as instance:
        quarter = Quarter(folder, shop, plan, seed, instance)
        weeks: list[Week] = []
        for number in range(1, plan.weeks + 1):
            weeks.append(quarter.week(number))
            sys.stderr.write(f"\n{outcome.table(weeks)}\n")
    unseen = outcome.missing(weeks, plan)
    write_file(folder / "quarter.png", outcome.chart(weeks, plan))
    write_file(folder / "quarter.md", outcome.page(weeks, plan, unseen).encode())
    sys.stdout.write(f"\n{outcome.table(weeks)}\n\nPage:   {folder / 'quarter.md'}\nChart:  {folder / 'quarter.png'}\n")
    sys.stdout.write(
        f"To look at its runs and versions:  make ui SLMREC_HOME={folder / 'home'} DOMAINS={quarter.domains} "
        f"PROFILES={quarter.profile}\n"
    )
    for words in unseen:
        sys.stderr.write(f"slmrec: {words}\n")
    return 1 if unseen else 0


class Quarter:
    """The shop in operation.

    Attributes:
        domains, profile: the YAML files of its one domain, and of the shipped profile with the quarter's seed.
    """

    def __init__(self, folder: Path, shop: Shop, plan: Plan, seed: int, instance: DagsterInstance) -> None:
        """Write domain and profile, and define jobs and schedule for them."""
        from orchestration.definitions import build_definitions
        from orchestration.run import open_pool

        self.domains, self.profile = folder / "shop.yaml", folder / PROFILE.name
        self.domains.write_text(yaml.safe_dump(domain_of(shop)), encoding="utf-8")
        settings = {**yaml.safe_load(PROFILE.read_text(encoding="utf-8")), "seed": seed}
        self.profile.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self._shop, self._plan, self._seed, self._instance = shop, plan, seed, instance
        self._definitions = build_definitions([self.domains], [self.profile], PROFILE.stem)
        self._rules = profile_resource([self.profile], PROFILE.stem).load(DOMAIN).evaluation
        self._first: RegisteredVersion | None = None
        open_pool(instance)

    def week(self, number: int) -> Week:
        """One tick, from the new raw file to the review."""
        day = self._plan.day(number)
        sys.stderr.write(f"\nWeek {number} of {self._plan.weeks}, {day}\n")
        self._shop.publish(number)
        served = champion_of(DOMAIN)
        (asked,) = ask(self._definitions, day)
        ruined = {"profile": {"config": {"overrides": RUINED}}} if number == self._plan.ruined else {}
        failed = self._run(asked, ruined)
        if failed:
            return Week(
                number=number, day=day, review="failed", why=failed[0], page=failed[1], champion=_number(served)
            )
        decision, data = read_decision(DOMAIN), self._load("dataset_statistics", DatasetStatistics)
        drift, splits = self._load("drift", Drift), self._load("splits", Dataset)
        domain = type(domain_resource([self.domains]))(as_of=day.isoformat()).load(DOMAIN)

        def judged(version: RegisteredVersion) -> np.ndarray:
            return headline(judge_version(version, "champion", splits, domain, self._rules))

        found = review(DOMAIN, decision, judged, self._seed)
        self._first = self._first or champion_of(DOMAIN)
        quality = {version: float(judged(version).mean()) for version in (served, self._first) if version}
        return Week(
            number=number,
            day=day,
            interactions=data.values["interactions"],
            launched=len(self._shop.launched.intersection(splits.item_ids)),
            trained=_number(decision.model),
            drift=[name for name in CHECKS if not drift.passed(name)],
            gate="passed" if decision.accepted else "failed",
            review=found.verdict,
            why=found.why,
            served=_number(served),
            champion=_number(champion_of(DOMAIN)),
            quality=quality.get(served) if served else None,
            first_quality=quality.get(self._first) if self._first else None,
        )

    def _run(self, asked: RunRequest, resources: Mapping[str, Any]) -> tuple[str, Path] | None:
        """Do what the schedule asks for; why it failed and its page, if it did."""
        from orchestration.reasons import reasons
        from orchestration.run import execute

        assert asked.partition_key == DOMAIN
        config = {"resources": {**asked.run_config["resources"], **resources}}
        success, events = execute(self._definitions, self._instance, "chain", DOMAIN, config)
        if success:
            return None
        (run,) = self._instance.get_runs(limit=1)
        (event,) = [event for event in events if event.is_job_failure]
        sensor = self._definitions.get_repository_def().get_sensor_def("failure_sensor")
        with build_run_status_sensor_context("failure_sensor", event, self._instance, run) as context:
            sensor(context.for_run_failure())
        return "; ".join(reasons(events, DOMAIN)), home.failures_directory() / f"{DOMAIN}-{run.run_id}.md"

    def _load(self, asset: str, kind: type[Any]) -> Any:
        """What the asset handed on last."""
        return self._definitions.load_asset_value(
            asset, python_type=kind, instance=self._instance, partition_key=DOMAIN
        )


def domain_of(shop: Shop) -> dict[str, Any]:
    """The settings of the shop's domain, as a YAML file of domains has them."""
    files = {"reviews": str(shop.reviews), "metadata": str(shop.metadata)}
    return {
        DOMAIN: {
            "title": "A shop that grows (made by this project, not Amazon's)",
            "source": {"kind": "local", **files, "synthetic": True},
            "filters": {"minimum_rating": 3, "minimum_user_interactions": 5, "minimum_item_interactions": 5},
            "drift": {"item_popularity_psi": POPULARITY_LIMIT},
            "retrain": True,
        }
    }


def ask(definitions: Definitions, day: dt.date) -> list[RunRequest]:
    """What the schedule asks for when it ticks on that day, as the daemon would launch it."""
    moment = dt.datetime.combine(day, dt.time(3), dt.UTC)
    repository = definitions.get_repository_def()
    context = build_schedule_context(scheduled_execution_time=moment, repository_def=repository)
    return list(repository.get_schedule_def("weekly_retraining").evaluate_tick(context).run_requests or ())


def _number(version: RegisteredVersion | None) -> str | None:
    return version.version if version else None
