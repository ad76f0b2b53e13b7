"""Delivery: a student that passes its gate gets the alias `challenger`, for a reviewer to judge."""

from typing import TYPE_CHECKING

from dagster import AssetExecutionContext, MetadataValue, asset
from pydantic import BaseModel

from assets.amazon.dataset import Dataset
from assets.configuration.resources import DomainResource, ProfileResource
from assets.registry import versions
from assets.registry.champion import judge_champion
from assets.registry.store import model_name, model_url
from assets.results import Results
from assets.workspace import home as homes
from assets.workspace.checkpoints import Checkpoint, RegisteredVersion
from assets.workspace.presentation import OWNERS
from assets.workspace.resources import Home

if TYPE_CHECKING:
    from assets.workspace.evaluations import Evaluation

CHALLENGER, CHAMPION = "challenger", "champion"
FLOOR = "popularity"


class Decision(BaseModel):
    """Whether this student became the challenger, and why."""

    model: RegisteredVersion
    accepted: bool
    reasons: list[str]

    def words(self) -> str:
        """One line for the terminal."""
        verdict = f"version {self.model.version} is the challenger" if self.accepted else "held back"
        return f"{self.model.name}: {verdict} ({'; '.join(self.reasons)})"


@asset(group_name="delivery", kinds={"mlflow"}, owners=OWNERS, io_manager_key="records")
def challenger(
    context: AssetExecutionContext,
    home: Home,  # noqa: ARG001  # holds the domain
    domains: DomainResource,
    profile: ProfileResource,
    splits: Dataset,
    student: Checkpoint,
    narrow_student: Checkpoint,
    main_results: Results,
) -> Decision:
    """The version of the student that the profile delivers: `challenger` if it was judged itself and beats popularity.

    Where the registry has a champion, it is judged on these splits too, whatever data it was trained on.
    """
    domain, chosen = domains.load(context.partition_key), profile.load(context.partition_key)
    rules, delivered = chosen.evaluation, {"student": student, "narrow_student": narrow_student}
    student = delivered[chosen.delivery.recommender]
    if main_results.data_version != splits.version:
        raise ValueError(
            f"main_results was measured on data version {main_results.data_version}, but the splits are now "
            f"{splits.version}, so the champion would be compared on other users: materialise main_results again for "
            f"domain {domain.name!r}."
        )
    evaluations = main_results.evaluations()
    champion = judge_champion(model_name(domain.name, student.name), CHAMPION, splits, domain, rules)
    decision = decide(student, main_results, evaluations, champion, rules.seed)
    if decision.accepted:
        versions.set_alias(decision.model, CHALLENGER)
    else:
        context.log.warning(f"{decision.words()}")
    context.add_output_metadata(
        {
            "decision": CHALLENGER if decision.accepted else "held back",
            "reasons": MetadataValue.md("\n".join(f"- {reason}" for reason in decision.reasons)),
            "model": MetadataValue.url(model_url(decision.model)),
        }
    )
    return decision


def decide(
    student: Checkpoint,
    results: Results,
    evaluations: "dict[str, Evaluation]",
    champion: "Evaluation | None",
    seed: int,
) -> Decision:
    """The gate: the results are of this very student, and it is better than popularity over the full catalogue.

    The champion, if there is one, is evidence for the reviewer, and no part of the gate.

    Raises:
        ValueError: if the student was not registered.
    """
    from evaluation.metrics import HEADLINE
    from evaluation.significance import compare, number

    if student.model is None:
        raise ValueError(
            f"The {student.name} of domain {student.domain!r} is not registered: materialise {student.name} again."
        )
    judged = results.judged[student.name].identity
    same = judged == student.identity
    reasons = ["judged itself" if same else f"main_results judged {judged}, and this student is {student.identity}"]
    values = {
        name: evaluation.records[0].protocol.values(evaluation.ranks)[HEADLINE]
        for name, evaluation in {**evaluations, **({CHAMPION: champion} if champion else {})}.items()
        if name in (student.name, FLOOR, CHAMPION)
    }
    ours, floor = values[student.name], values[FLOOR]
    assert ours is not None
    assert floor is not None
    reasons.append(f"NDCG@10 over the full catalogue {number(ours.mean())}, popularity {number(floor.mean())}")
    if champion and (theirs := values[CHAMPION]) is not None:
        difference = compare(ours, theirs, seed=seed)
        record = champion.records[0]
        reasons.append(
            f"champion (trained on data {record.provenance.data_version}) on the same users {number(theirs.mean())}, "
            f"difference {number(difference.mean, '+')} ({number(difference.low, '+')} to "
            f"{number(difference.high, '+')}); it doesn't know {record.unknown.targets:.1%} of the targets"
        )
    return Decision(model=student.model, accepted=bool(same and ours.mean() > floor.mean()), reasons=reasons)


def read_decision(domain: str) -> Decision:
    """The last decision on a domain's student; FileNotFoundError where there is none."""
    path = homes.records_directory() / "challenger" / f"{domain}.json"
    return Decision.model_validate_json(path.read_bytes())
