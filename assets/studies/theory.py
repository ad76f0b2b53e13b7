"""`theory_check`: how far one layer of the trained teacher does the work of many, which the propositions say it can."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from dagster import AssetExecutionContext, asset

from assets.amazon.splits import histories
from assets.data import DatasetStatistics
from assets.llm import load_teacher
from assets.registry.runs import MLflowTracking
from assets.studies.cells import GROUP, StudyRun
from assets.studies.record import Study
from assets.workspace.conventions import DOMAINS, OWNERS
from assets.workspace.provenance import Checkpoint
from assets.workspace.resources import Home, ProfileResource

if TYPE_CHECKING:
    import torch

    from evaluation.studies import LayerFindings
    from models.sequences import Sequences
    from models.slmrec.recommender import LLMRecommender
    from models.slmrec.theory import StepFit

USERS = 500
"""Validation users to fit to, and as many others to measure on: thousands of tokens for a width of hundreds (ours)."""
NOTES = """\
The paper's propositions: attention layers act like steps of gradient descent on an energy, and one layer with a
larger step reproduces K of them. They are proved for linear attention, without softmax, norms and MLPs, and say that
such a step exists; it may be another one for each input.

Shown here is another thing: in the trained teacher, which has softmax, norms and MLPs, how near the first layer's
update h_1 - h_0, times one step fitted for all tokens, comes to the update h_K - h_0 of K layers. A large error
doesn't refute the propositions, and a small one doesn't prove them; neither says how a shallow model trains.

Relative error: the length of what is left over, by that of the update (0: exact; 1: no better than no update), on
tokens of validation users to whom nothing was fitted. The mean alone looks at no layer: a fit that is no better than
it has learnt nothing from the first one. States are the residual stream, at the users' own tokens.

In the tables of results the step and the matrix of K = M stand in for layers 2 to M, with the teacher's norm and
head.
"""


class Findings(NamedTuple):
    """What was measured on the teacher; the steps are those of K = M."""

    fits: "list[StepFit]"
    similarity: list[list[float]]
    influence: list[float]
    step: "torch.Tensor"
    matrix: "torch.Tensor"


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"pytorch", "json"},
    owners=OWNERS,
    io_manager_key="records",
)
def theory_check(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    profile: ProfileResource,
    splits: pl.DataFrame,
    items: pl.DataFrame,
    dataset_statistics: DatasetStatistics,
    teacher: Checkpoint,
) -> Study:
    """One layer in the place of K, numerically, on the trained teacher. Read its limits in the notes first."""
    from evaluation.report.study_figures import theory_chart
    from models.slmrec.read_out import read_out
    from models.slmrec.theory import stretched

    chosen = profile.load(context.partition_key)
    parameters = {"profile": chosen.name, "users": USERS}
    with tracking.run(context, domain=context.partition_key, parameters=parameters) as run:
        study = StudyRun(context, home, tracking, chosen, splits, items, dataset_statistics, run)
        deep = load_teacher(teacher)
        found = measure(deep, histories(splits.filter(pl.col("split") == "validation")), chosen.evaluation.seed)
        seeded = chosen.model_copy(update={"seed": teacher.provenance.seed})
        depth = deep.settings.layers
        for name, label, recommender in (
            ("whole", f"the teacher, {depth} layers", read_out(deep, depth, normed=True)),
            ("one_layer", "its first layer", read_out(deep, 1, normed=True)),
            ("one_step", "its first layer, stretched by a step", stretched(deep, found.step)),
            ("one_matrix", "its first layer, stretched by a matrix", stretched(deep, found.matrix)),
        ):
            reference = None if name == "whole" else "whole"
            study.judge(name, label, teacher, seeded, recommender=recommender, reference=reference)
        layers = to_draw(found)
        return study.conclude({"theory": theory_chart(layers)}, NOTES, {"one layer for K": cells_of(found)}, layers)


def measure(deep: "LLMRecommender", validation: "Sequences", seed: int) -> Findings:
    """Fit on some validation users, and measure on others.

    Args:
        deep: the trained teacher.
        validation: histories of validation users, at least two.
        seed: of the draw.

    Raises:
        ValueError: if there are fewer than two.
    """
    from models.slmrec.layer_choice import block_influence
    from models.slmrec.theory import fit_steps, layer_similarity, linear_step, scalar_step, states_of

    if len(validation) < 2:
        raise ValueError("theory_check fits to one validation user and measures on another: the domain has too few.")
    drawn = np.random.default_rng(seed).permutation(len(validation))[: 2 * USERS]
    fitted_users, held_users = (validation.take(part) for part in np.array_split(drawn, 2))
    fitted, held_out = states_of(deep, fitted_users), states_of(deep, held_users)
    first, update = fitted[1] - fitted[0], fitted[-1] - fitted[0]
    return Findings(
        fits=fit_steps(fitted, held_out),
        similarity=layer_similarity(held_out),
        influence=block_influence(deep, held_users),
        step=scalar_step(first, update),
        matrix=linear_step(first, update),
    )


def to_draw(found: Findings) -> "LayerFindings":
    """The findings as the figure shows them."""
    from evaluation.studies import LayerFindings

    return LayerFindings(
        errors={
            "step": tuple(fit.step_error for fit in found.fits),
            "matrix": tuple(fit.map_error for fit in found.fits),
            "mean alone": tuple(fit.mean_error for fit in found.fits),
        },
        similarity=tuple(map(tuple, found.similarity)),
        influence=tuple(found.influence),
    )


def cells_of(found: Findings) -> list[dict[str, str]]:
    """The findings as a table, a row a K."""
    return [
        {
            "K": str(fit.layers),
            "step": f"{fit.step:.3f}",
            "error, step": f"{fit.step_error:.3f}",
            "error, matrix": f"{fit.map_error:.3f}",
            "error, mean alone": f"{fit.mean_error:.3f}",
            "influence of layer K": f"{influence:.3f}",
            "cosine to the layer before": f"{found.similarity[fit.layers][fit.layers - 1]:.3f}",
            "cosine to the last layer": f"{found.similarity[fit.layers][-1]:.3f}",
        }
        for fit, influence in zip(found.fits, found.influence, strict=True)
    ]
