"""`theory_check`: how far one layer of the trained teacher does the work of many, which the propositions say it can."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from dagster import AssetExecutionContext, asset

from assets.amazon.dataset import Dataset
from assets.registry.trainings import TRAINING_POOL, Trainings
from assets.studies.cells import GROUP, study_run
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.presentation import OWNERS
from evaluation.studies import LayerFindings, Row, StudyRecord

if TYPE_CHECKING:
    import torch

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
    layers: LayerFindings
    step: "torch.Tensor"
    matrix: "torch.Tensor"


@asset(group_name=GROUP, kinds={"pytorch", "json"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def theory_check(
    context: AssetExecutionContext, trainings: Trainings, splits: Dataset, teacher: Checkpoint
) -> StudyRecord:
    """One layer in the place of K, numerically, on the trained teacher. Read its limits in the notes first."""
    from evaluation.report.study_figures import theory_chart
    from models.slmrec.teacher import load_teacher

    teacher.require_data(splits.version)
    with study_run(context, trainings, splits) as study:
        deep = load_teacher(teacher.verified())
        found = measure(deep, splits.histories("validation"), study.profile.evaluation.seed)
        step, matrix = (
            tuple(map(tuple, np.atleast_2d(one.double().numpy()).tolist())) for one in (found.step, found.matrix)
        )
        for name, label, make in (
            ("whole", f"the teacher, {deep.settings.layers} layers", functools.partial(read_out_after, layers=None)),
            ("one_layer", "its first layer", functools.partial(read_out_after, layers=1)),
            ("one_step", "its first layer, stretched by a step", functools.partial(stretch, step=step)),
            ("one_matrix", "its first layer, stretched by a matrix", functools.partial(stretch, step=matrix)),
        ):
            study.judge(Row(name, label, None if name == "whole" else "whole"), teacher, make)
        rows = {"one layer for K": cells_of(found)}
        return study.conclude("One layer for many", {"theory": theory_chart(found.layers)}, NOTES, rows, found.layers)


def read_out_after(checkpoint: Path, layers: int | None) -> "LLMRecommender":
    """The teacher's first layers, all of them for None."""
    from models.slmrec.layers import read_out
    from models.slmrec.teacher import load_teacher

    teacher = load_teacher(checkpoint)
    return read_out(teacher, layers or teacher.settings.layers, normed=True)


def stretch(checkpoint: Path, step: tuple[tuple[float, ...], ...]) -> "LLMRecommender":
    """The teacher's first layer with a step, a number or a matrix, in the place of the layers behind it."""
    import torch

    from models.slmrec.teacher import load_teacher
    from models.slmrec.theory import stretched

    fitted = torch.tensor(step)
    return stretched(load_teacher(checkpoint), fitted.squeeze() if fitted.numel() == 1 else fitted)


def measure(deep: "LLMRecommender", validation: "Sequences", seed: int) -> Findings:
    """Fit on some validation users, and measure on others.

    Args:
        deep: the trained teacher.
        validation: histories of validation users, at least two.
        seed: of the draw.

    Raises:
        ValueError: if there are fewer than two.
    """
    from models.slmrec.layers import layer_influence
    from models.slmrec.theory import fit_steps, layer_similarity, linear_step, scalar_step, states_of

    if len(validation) < 2:
        raise ValueError("theory_check fits to one validation user and measures on another: the domain has too few.")
    drawn = np.random.default_rng(seed).permutation(len(validation))[: 2 * USERS]
    fitted_users, held_users = (validation.take(part) for part in np.array_split(drawn, 2))
    fitted, held_out = states_of(deep, fitted_users), states_of(deep, held_users)
    first, update = fitted[1] - fitted[0], fitted[-1] - fitted[0]
    fits = fit_steps(fitted, held_out)
    layers = LayerFindings(
        errors={
            "step": tuple(fit.step_error for fit in fits),
            "matrix": tuple(fit.map_error for fit in fits),
            "mean alone": tuple(fit.mean_error for fit in fits),
        },
        similarity=tuple(map(tuple, layer_similarity(held_out))),
        influence=tuple(layer_influence(deep, held_users)),
    )
    return Findings(fits, layers, step=scalar_step(first, update), matrix=linear_step(first, update))


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
            "cosine to the layer before": f"{found.layers.similarity[fit.layers][fit.layers - 1]:.3f}",
            "cosine to the last layer": f"{found.layers.similarity[fit.layers][-1]:.3f}",
        }
        for fit, influence in zip(found.fits, found.layers.influence, strict=True)
    ]
