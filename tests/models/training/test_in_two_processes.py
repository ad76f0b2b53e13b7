"""Two processes under `accelerate launch` come to what one comes to. This file is also the script that is launched.

`accelerate launch --cpu` starts one process, whatever `--num_processes` says, unless MPI starts the others; so the
launcher for several devices is used, and the devices are CPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from models.baselines.sasrec import SASRec, SASRecConfig, SASRecExamples
from models.sequences import Sequences
from models.slmrec.distillation import Distillation, DistillationConfig, OnlineDistillation
from models.slmrec.recommender import LLMRecommender, NextItemExamples
from models.slmrec.teacher_states import DistilledExamples, TeacherStates, write_teacher_states
from models.training.config import Examples, TrainingConfig
from models.training.run import train
from tests.models.recommenders import HISTORIES, N_ITEMS, exact_norms, random_backbone, recommender_on

ROOT = Path(__file__).parents[3]
TOLERANCE = 1e-10
"""The order in which gradients are summed makes 1e-16 in float64; Adam magnifies it where the gradient is all but 0."""


class Doubles(SASRecExamples):
    """SASRec's examples with their share in float64, whose rounding would else be the largest difference.

    Args:
        fails_at: the batch, counted from 1, at which this process breaks off; 0 for none.
    """

    def __init__(self, sequences: Sequences, max_length: int, fails_at: int = 0) -> None:
        super().__init__(sequences, max_length)
        self.left = fails_at

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        self.left -= 1
        if self.left == 0:
            raise InterruptedError
        batch = super().batch(rows)
        share = (self.lengths[rows] - 1).mean() / (self.lengths - 1).mean()
        return batch | {"share": torch.tensor(share, dtype=torch.float64)}


def sequences() -> Sequences:
    """63 users of unlike lengths: batches of 6, and 3 rows that remain, of which one process gets 2 and the other 1."""
    rng = np.random.default_rng(5)
    return Sequences.from_lists([rng.integers(1, 13, length).tolist() for length in rng.integers(2, 10, 63)])


def validate(model: nn.Module) -> dict[str, float]:
    """Falls as a bias grows from 0, so that the first validation is the best; the main process alone is asked."""
    assert int(os.environ.get("RANK", "0")) == 0
    assert isinstance(model, SASRec)
    return {"ndcg_at_10": 1 / float(model.layers[0].attention_out.bias.detach().square().sum())}


def trained(
    state: Path, dropout: float = 0.0, fails_at: int = 0, **changes: Any
) -> tuple[dict[str, Any], dict[str, Tensor], int]:
    """A small float64 SASRec: the outcome, the weights, and how many batches were made."""
    torch.manual_seed(0)
    settings = SASRecConfig(d=8, dropout=dropout, max_length=9)
    model = SASRec(12, settings).double()
    given = {"learning_rate": 0.01, "max_steps": 20, "batch_size": 6, "evaluate_every": 4, "evaluate_in": "steps"}
    config = TrainingConfig(**(given | {"averaging": 0.9} | changes))
    examples = Doubles(sequences(), settings.max_length, fails_at)
    outcome = train(model, examples, config, validate=validate, seed=1, state=state)
    return (
        asdict(outcome),
        {name: weights.detach().clone() for name, weights in model.named_parameters()},
        -examples.left,
    )


WAYS = ("cached", "online")


class InFull:
    """A distillation's examples with their share in float64, as above."""

    def __init__(self, examples: Examples, targets: np.ndarray) -> None:
        self.examples, self.lengths, self.mean_targets = examples, examples.lengths, targets.mean()

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        batch = self.examples.batch(rows)
        share = len(batch["targets"]) / (len(rows) * self.mean_targets)
        return batch | {"share": torch.tensor(share, dtype=torch.float64)}


def distilled(directory: Path, way: str, *, in_shards: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A float64 student taught by states on disk, or together with its teacher: the outcome and the weights."""
    backbone, path = directory / "backbone", directory / "states"
    if not backbone.exists():
        random_backbone(backbone)
    teacher, student = (recommender_on(backbone, layers=n, objective="all_positions").double() for n in (4, 2))
    rng = np.random.default_rng(5)
    rows = [rng.integers(1, N_ITEMS + 1, length).tolist() for length in rng.integers(2, 10, 63)]
    examples: Any = NextItemExamples(Sequences.from_lists(rows), student.settings)
    targets, pair = examples.lengths, None
    config = DistillationConfig(blocks=2, lambda_kl=0.1)
    if way == "online":
        pair = OnlineDistillation(student, teacher, config, detached=False, seed=0)
    else:
        pair = Distillation(student, teacher, config, seed=0, cached=True)
        kept = {"normed": True, "autocast": False, "progress": lambda *_: None}
        if not path.exists():
            write_teacher_states(teacher, examples, pair.teacher_ends, path, **kept)
        examples = DistilledExamples(examples, TeacherStates.open(path), pair.teacher_ends, normed=True)
    with pytest.MonkeyPatch.context() as patch:
        exact_norms(patch)
        training = TrainingConfig(learning_rate=0.01, max_steps=14, batch_size=6)
        outcome = train(pair, InFull(examples, targets), training, seed=1, in_shards=in_shards)
    return asdict(outcome), {name: p.detach().clone() for name, p in pair.named_parameters() if p.requires_grad}


CASES: dict[str, dict[str, Any]] = {
    "as by default": {"objective": "all_positions"},
    "prompt and response": {"objective": "last"},
    "a prompt for each user": {"objective": "all_positions", "shared_prompt": False},
    "states computed anew": {"objective": "all_positions", "gradient_checkpointing": True},
    "in bfloat16": {"objective": "all_positions"},
}


def tuned(directory: Path, case: str, state: str, *, in_shards: bool = False, fails_at: int = 0) -> dict[str, Any]:
    """A recommender with LoRA: its weights, its curve, and what was here of frozen layers at each validation."""
    recommender, held = recommender_on(directory / "backbone", layers=4, **CASES[case]), list[int]()
    precision = "bfloat16" if case == "in bfloat16" else "float32"
    if precision == "bfloat16":
        recommender.decoder.hold_in_bfloat16()
    rng = np.random.default_rng(5)
    rows = [rng.integers(1, N_ITEMS + 1, length).tolist() for length in rng.integers(2, 10, 63)]
    examples = NextItemExamples(Sequences.from_lists(rows), recommender.settings)
    batch, left = examples.batch, [fails_at]

    def counted(rows: np.ndarray) -> dict[str, Tensor]:
        left[0] -= 1
        if left[0] == 0:
            raise InterruptedError
        return batch(rows)

    def judge(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, LLMRecommender)
        layers = [weights for name, weights in model.decoder.named_parameters() if not weights.requires_grad]
        held.append(sum((w.to_local() if isinstance(w, DTensor) else w).numel() for w in layers))
        return {"ndcg_at_10": float(model.score(HISTORIES)[:, 1:].softmax(1)[:, 0].mean())}

    given = {"learning_rate": 0.01, "max_steps": 14, "batch_size": 6, "evaluate_every": 4, "evaluate_in": "steps"}
    training = TrainingConfig(**given, averaging=0.9, precision=precision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "batch", counted)
        outcome = train(
            recommender,
            examples,
            training,
            validate=judge,
            seed=1,
            state=directory / "tuned" / state,
            in_shards=in_shards,
        )
    curve = [{name: value for name, value in point.items() if name != "seconds"} for point in outcome.curve]
    return {"weights": dict(recommender.named_parameters()), "curve": curve, "held": held}


def whole_and_in_shards(directory: Path, case: str) -> dict[str, Any]:
    """What a case comes to in shards, compared with the same in whole: both in two processes."""
    whole = tuned(directory, case, f"{case}, whole")
    if case == "as by default":  # killed once
        with pytest.raises(InterruptedError):
            tuned(directory, case, f"{case}, shards", in_shards=True, fails_at=13)
    shards = tuned(directory, case, f"{case}, shards", in_shards=True)
    ended = tuned(directory, case, f"{case}, shards", in_shards=True)  # its state is there: nothing is trained again
    assert ended["held"] == []
    assert all(torch.equal(ended["weights"][name], w) for name, w in shards["weights"].items())
    return {
        "same curve": shards["curve"] == whole["curve"],
        "same names": list(shards["weights"]) == list(whole["weights"]),
        "other weights": [name for name, w in whole["weights"].items() if not torch.equal(w, shards["weights"][name])],
        "of whole": [whole["held"], shards["held"]],
    }


def main(directory: Path) -> None:
    """What every process does; the files say what it came to.

    The 14th batch is the training's 12th: far from the saves after the 4th and 8th step, of which rank 1 knows nothing.
    """
    torch.set_num_threads(1)
    outcome, weights, _ = trained(directory / "state")
    outcome["drawn"] = torch.rand(1).item()
    rank = dist.get_rank()
    (directory / f"outcome{rank}.json").write_text(json.dumps(outcome), encoding="utf-8")
    save_file(weights, directory / f"weights{rank}.safetensors")

    _, unbroken, batches = trained(directory / "whole", dropout=0.5)
    with pytest.raises(InterruptedError):
        trained(directory / "dropout", dropout=0.5, fails_at=14)
    assert len(list((directory / "dropout").glob("step-*"))) == 1
    _, gone_on, batches_left = trained(directory / "dropout", dropout=0.5)
    assert batches_left < batches, "it was resumed, and did not start anew"
    assert all(torch.equal(gone_on[name], unbroken[name]) for name in unbroken)
    _, ended, batches_left = trained(directory / "dropout", dropout=0.5)
    assert batches_left < 5, "it had ended: only its fingerprint was taken"
    assert all(torch.equal(ended[name], unbroken[name]) for name in unbroken)

    of_my_own = directory / f"apart{rank}"
    with pytest.raises(InterruptedError):
        trained(of_my_own, fails_at=14)
    with pytest.raises(ValueError, match="a disk that all of them see"):
        trained(of_my_own)

    for way in WAYS:
        outcome, weights = distilled(directory / "distilled", way)
        (directory / f"{way}{rank}.json").write_text(json.dumps(outcome), encoding="utf-8")
        save_file(weights, directory / f"{way}{rank}.safetensors")
    found = {case: whole_and_in_shards(directory / "distilled", case) for case in CASES}
    _, together = distilled(directory / "distilled", "online", in_shards=True)
    save_file(together, directory / f"online, shards{rank}.safetensors")
    (directory / f"shards{rank}.json").write_text(json.dumps(found), encoding="utf-8")

    with pytest.raises(ValueError, match=r"batch_size counts the rows of all processes.*make it a multiple of 2"):
        trained(directory / "odd", batch_size=7)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which both processes have written what they came to."""
    directory = tmp_path_factory.mktemp("two")
    (directory / "distilled").mkdir()
    distilled(directory / "distilled", "cached")  # the processes find the backbone and the teacher's states
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"
    options = "--mixed_precision no --dynamo_backend no"
    on_the_cpu = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, *launch.split(), *options.split(), __file__, directory],
        env={**os.environ, **on_the_cpu, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return directory


pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch was built without gloo")


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_give_the_result_of_one(launched: Path, tmp_path: Path, rank: int) -> None:
    alone, weights_alone, _ = trained(tmp_path / "state")
    both = json.loads((launched / f"outcome{rank}.json").read_text(encoding="utf-8"))
    weights_of_both = load_file(launched / f"weights{rank}.safetensors")
    for name in ("step", "epoch", "ce", "ndcg_at_10"):
        curves = [[point.get(name, 0.0) for point in outcome["curve"]] for outcome in (alone, both)]
        assert len(curves[0]) == 20
        np.testing.assert_allclose(curves[1], curves[0], rtol=0, atol=TOLERANCE)
    for name in ("steps", "epochs", "best_step", "stopped"):
        assert both[name] == alone[name]
    assert alone["best_step"] == 4, "the best weights come back, not the last"
    for name, weights in weights_alone.items():
        torch.testing.assert_close(weights_of_both[name], weights, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_distil_as_one_does(launched: Path, way: str, rank: int) -> None:
    alone, weights_alone = distilled(launched / "distilled", way)
    both = json.loads((launched / f"{way}{rank}.json").read_text(encoding="utf-8"))
    terms = {"ce", "ms", "cos", "norm", "kl"} | ({"teacher_ce"} if way == "online" else set())
    assert alone["curve"][0].keys() == terms | {"step", "epoch", "seconds"}
    for name in sorted(terms):
        curves = [[point[name] for point in outcome["curve"]] for outcome in (alone, both)]
        assert len(curves[0]) == 14, (
            "the last three rows of an epoch are a step too: 2 for one process, 1 for the other"
        )
        np.testing.assert_allclose(curves[1], curves[0], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    weights_of_both = load_file(launched / f"{way}{rank}.safetensors")
    assert any(name.startswith("teacher.") for name in weights_alone) == (way == "online")
    for name, weights in weights_alone.items():
        torch.testing.assert_close(weights_of_both[name], weights, rtol=0, atol=100 * TOLERANCE, msg=name)


def test_each_process_drops_other_units(launched: Path) -> None:
    drawn = [json.loads((launched / f"outcome{rank}.json").read_text(encoding="utf-8"))["drawn"] for rank in (0, 1)]
    assert drawn[0] != drawn[1]


def test_of_every_state_only_the_end_is_left(launched: Path) -> None:
    left = {(path.parent.name, path.name.split("-")[0]) for path in launched.glob("*/*") if path.is_dir()}
    ended = {(name, "ended") for name in ("state", "dropout", "whole")}
    given = {("distilled", name) for name in ("backbone", "states", "tuned")}
    assert left - given == ended | {("apart0", "step")}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_frozen_weights_in_shards_change_nothing(launched: Path, case: str, rank: int) -> None:
    """To the last bit; and each process holds half of them."""
    found = json.loads((launched / f"shards{rank}.json").read_text(encoding="utf-8"))[case]
    whole, shards = found.pop("of whole")
    assert found == {"same curve": True, "same names": True, "other weights": []}
    assert len(whole) == (4 if rank == 0 else 0), "the main process alone validates what is whole"
    before_the_kill = case == "as by default"
    assert len(shards) == 4 or (before_the_kill and 1 <= len(shards) < 4), "all validate what is in shards"
    frozen = 4 * (4 * 16 * 16 + 3 * 16 * 24 + 2 * 16)
    assert set(whole) <= {frozen}
    assert set(shards) == {frozen // 2}


@pytest.mark.parametrize("rank", [0, 1])
def test_teacher_and_student_in_shards_learn_together_as_whole_ones(launched: Path, rank: int) -> None:
    """To rounding: gradients that meet at a state between two layers are summed in another order."""
    whole, shards = (load_file(launched / f"{way}{rank}.safetensors") for way in ("online", "online, shards"))
    assert whole.keys() == shards.keys()
    for name, weights in whole.items():
        torch.testing.assert_close(shards[name], weights, rtol=0, atol=100 * TOLERANCE, msg=name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
