"""The benchmarks' arithmetic, records and command; each benchmark once at a tiny size. No time is judged here."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch

from evaluation.cost import hardware
from models.sequences import Sequences
from tests.benchmarks import __main__ as command
from tests.benchmarks import (
    batch_recommendations,
    catalogue_loss,
    data,
    depth,
    distillation,
    first_layers,
    gx_interactions,
    inference,
    narrow_student,
    plain_path,
    prompt_attention,
    ranking,
    serving,
    shared_prompt,
)
from tests.benchmarks.harness import Measurement, interleaved, memory_raised_by, one_thread
from tests.benchmarks.records import Load, LoadRecord, Record, read_records, table, write_record

ROOT = Path(__file__).parents[1]
FIELDS = ["name", "value", "unit", "reference_value", "ratio", "target", "hardware", "commit"]
MIB = 2**20
TINY_RANKING = ranking.Sizes(users=60, items=90, width=4, longest=5, drawn_for=60)
TINY_LOSS = catalogue_loss.Sizes(targets=5, width=4, items=30)
TINY_MODEL = shared_prompt.Sizes(
    width=16, layers=2, heads=2, intermediate=24, batch=3, shortest=1, longest=3, items=20, item_width=6
)
TINY_PATHS = plain_path.Sizes(
    width=16, heads=2, intermediate=24, before=5, after=2, items=20, item_width=6, batch=3, users=40, deep=8
)

reads_memory = pytest.mark.skipif(
    torch.cuda.is_available() or not Path("/proc/self/clear_refs").exists(), reason="needs Linux without CUDA"
)


@pytest.fixture(autouse=True)
def bench_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path))
    return tmp_path / "benchmarks"


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two benchmarks that need no measuring, and one between them that can't run."""

    def refuse() -> Measurement:
        raise ValueError("not on this machine")

    benchmarks = {
        "fast": lambda: Measurement(2.0, 5.0, "ms", target=2.0),
        "refused": refuse,
        "slow": lambda: Measurement(1234.5, 617.25, "MiB"),
    }
    monkeypatch.setattr(command, "BENCHMARKS", benchmarks)


class Scripted:
    """A clock, and two steps that take the given seconds on it, turn by turn."""

    def __init__(self, ours: list[float], reference: list[float]) -> None:
        self.now = 0.0
        self.order: list[str] = []
        self._seconds: dict[str, Iterator[float]] = {"ours": iter(ours), "reference": iter(reference)}

    def step(self, side: str) -> Callable[[], None]:
        def take() -> None:
            self.order.append(side)
            self.now += next(self._seconds[side])

        return take


def test_the_sides_take_turns_and_the_median_leaves_out_the_warm_up_and_an_outlier() -> None:
    scripted = Scripted([90.0, 0.004, 0.002, 70.0], [80.0, 0.010, 0.006, 0.008])
    measured = interleaved(
        scripted.step("ours"), scripted.step("reference"), repeats=3, warm_up=1, clock=lambda: scripted.now
    )
    assert scripted.order == ["ours", "reference"] * 4
    assert measured.unit == "ms"
    # the middle of 2, 4, 70,000 and of 6, 8, 10; the clock stands at hundreds of seconds, hence the tolerance
    assert measured.value == pytest.approx(4.0, rel=1e-6)
    assert measured.reference_value == pytest.approx(8.0, rel=1e-6)


def test_the_ratio_says_how_many_times_less_the_project_takes() -> None:
    assert Record.of("fast", Measurement(2.0, 5.0, "ms")).ratio == 2.5
    assert Record.of("slow", Measurement(4.0, 1.0, "ms")).ratio == 0.25


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_cost_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite number above 0"):
        Record.of("odd", Measurement(value, 1.0, "ms"))
    with pytest.raises(ValueError, match="finite number above 0"):
        Record.of("odd", Measurement(1.0, value, "ms"))


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@reads_memory
def test_memory_that_a_step_takes_and_frees_is_seen() -> None:
    assert 63 * MIB <= memory_raised_by(lambda: b"x" * (64 * MIB)) <= 70 * MIB


def test_memory_that_cannot_be_read_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.cost._reset_high_water_mark", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="only on Linux"):
        memory_raised_by(lambda: None)


def test_a_record_holds_exactly_the_fields_and_comes_back(bench_home: Path) -> None:
    record = Record.of("fast", Measurement(2.0, 5.0, "ms", target=2.0))
    path = write_record(record)
    assert path == bench_home / "fast.json"
    written = json.loads(path.read_text())
    assert list(written) == FIELDS
    assert (written["value"], written["reference_value"], written["ratio"]) == (2.0, 5.0, 2.5)
    assert (written["unit"], written["target"]) == ("ms", 2.0)
    assert written["hardware"]["cores"] == hardware().cores
    assert written["commit"] is None or len(written["commit"]) == 40
    assert read_records(["absent", "fast"]) == [record]


def test_a_damaged_record_is_named_with_the_remedy(bench_home: Path) -> None:
    path = write_record(Record.of("fast", Measurement(2.0, 5.0, "ms")))
    path.write_text(path.read_text().replace('"ratio"', '"speed"'))
    with pytest.raises(ValueError, match=r"fast\.json.*ratio: Field required.*make bench ONLY=fast"):
        read_records(["fast"])


def test_the_command_runs_the_named_and_prints_a_line_each(
    canned: None, bench_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["fast", "slow"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fast: 2.0 ms, reference 5.0 ms, ratio 2.50, target 2",
        "slow: 1,234.5 MiB, reference 617.2 MiB, ratio 0.50, target none",
    ]
    assert sorted(path.name for path in bench_home.iterdir()) == ["fast.json", "slow.json"]


def test_a_group_runs_all_of_its_names_and_a_missed_promise_is_told(
    monkeypatch: pytest.MonkeyPatch, bench_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promised = {
        "deep_b": lambda: Measurement(2.0, 5.0, "ms", target=3.0),
        "deep_a": lambda: Measurement(2.0, 6.0, "ms", target=3.0),
        "deeper": lambda: Measurement(1.0, 1.0, "ms"),
    }
    monkeypatch.setattr(command, "BENCHMARKS", promised)
    assert command.main(["deep_a", "deep"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "deep_a: 2.0 ms, reference 6.0 ms, ratio 3.00, target 3",
        "deep_b: 2.0 ms, reference 5.0 ms, ratio 2.50, target 3: missed",
    ]


def test_a_benchmark_that_cannot_run_here_leaves_the_others_theirs(
    canned: None, bench_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([]) == 2
    assert "refused: not on this machine" in capsys.readouterr().err
    assert sorted(path.name for path in bench_home.iterdir()) == ["fast.json", "slow.json"]


def test_the_loads_of_a_benchmark_are_a_table_behind_its_line(
    canned: None, monkeypatch: pytest.MonkeyPatch, bench_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loads = [Load(model="4 layers, HTTP", clients=16, p50_ms=23.04, p99_ms=56.78, requests_a_second=640.4)]
    monkeypatch.setattr(command, "UNDER_LOAD", {"fast": lambda: loads})
    assert command.main(["fast"]) == 0
    line, *drawn = capsys.readouterr().out.splitlines()
    assert line.startswith("fast: 2.0 ms")
    assert drawn == [
        "| model | clients | p50 ms | p99 ms | requests/s |",
        "|---|---:|---:|---:|---:|",
        "| 4 layers, HTTP | 16 | 23.0 | 56.8 | 640 |",
    ]
    assert LoadRecord.read(bench_home / "fast_load.json", "").loads == loads


def test_the_table_is_drawn_from_the_records(canned: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--table"]) == 2
    assert "make bench" in capsys.readouterr().err
    command.main(["slow", "fast"])
    capsys.readouterr()
    assert command.main(["--table"]) == 0
    head, _, fast, slow = capsys.readouterr().out.splitlines()
    assert head.startswith("| benchmark | project | reference | ratio | target |")
    assert fast.startswith("| `fast` | 2.0 ms | 5.0 ms | 2.50 | 2 |")
    assert slow.startswith("| `slow` | 1,234.5 MiB | 617.2 MiB | 0.50 | none |")


def test_an_unknown_name_is_one_line_that_lists_the_known(bench_home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "catalogue_loss", "nosuch"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "nosuch" in done.stderr
    assert all(name in done.stderr for name in command.BENCHMARKS)
    assert not bench_home.exists()


def test_catalogue_loss_at_a_tiny_size() -> None:
    assert Record.of("catalogue_loss", catalogue_loss.measure_time(TINY_LOSS, repeats=1)).unit == "ms"


@reads_memory
def test_catalogue_loss_memory_at_a_small_size() -> None:
    """The dense side holds the logits, 8 MiB here, and their gradient at once."""
    small = catalogue_loss.Sizes(targets=512, width=4, items=4095)
    assert Record.of("catalogue_loss_memory", catalogue_loss.measure_memory(small)).reference_value >= 2 * 8


def test_shared_prompt_at_a_tiny_size() -> None:
    assert Record.of("shared_prompt", shared_prompt.measure_time(TINY_MODEL, repeats=1)).unit == "ms"


def test_attention_behind_the_prompt_at_a_tiny_size() -> None:
    """It refuses to time two losses that differ."""
    tiny = replace(TINY_PATHS, heads=4, key_heads=2)
    for measure in (prompt_attention.measure_time, prompt_attention.measure_time_in_bfloat16):
        assert Record.of("prompt_attention", measure(tiny, steps=2, repeats=1)).unit == "ms"


@reads_memory
def test_loss_memory_at_a_small_size() -> None:
    measured = catalogue_loss.measure_memory_of_large(catalogue_loss.Sizes(targets=512, width=4, items=4095))
    assert (measured.reference_value, measured.target) == (1024, 1)
    assert 0 < measured.value < measured.reference_value


def test_a_distillation_step_at_a_tiny_size() -> None:
    """It refuses to time two losses that differ, so it is also a test that they don't."""
    assert Record.of("distill_step", distillation.measure_time(TINY_PATHS, steps=2, repeats=1)).target == 10
    all_positions = distillation.measure_time_of_all_positions(TINY_PATHS, steps=2, repeats=1)
    assert Record.of("distill_step_all_positions", all_positions).target is None


def test_a_step_on_the_real_backbones_layers_at_a_tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouped keys and values; SmolLM2's own layers have 3,540,096 weights each."""
    tiny = replace(TINY_PATHS, heads=4, key_heads=2)
    assert Record.of("real", distillation.measure_time_on_a_real_backbone(tiny, steps=2, repeats=1)).target == 6
    with torch.device("meta"):
        layer = plain_path.recommender(plain_path.SMOLLM2, 1).decoder.layers[0]
    assert sum(weight.numel() for name, weight in layer.named_parameters() if "lora" not in name) == 3_540_096


def test_distillation_losses_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_loss = distillation.plain_distillation_loss
    monkeypatch.setattr(distillation, "plain_distillation_loss", lambda *of: 1.01 * plain_loss(*of))
    with pytest.raises(AssertionError, match="not close"):
        distillation.measure_time(TINY_PATHS, steps=2, repeats=1)


def test_a_few_batches_stand_for_all() -> None:
    assert plain_path.evenly_spaced(range(9), 3) == [2, 5, 8]
    assert plain_path.evenly_spaced(range(30), 3) == [6, 16, 26]


def test_inference_at_a_tiny_size() -> None:
    assert Record.of("inference", inference.measure_against_plain(TINY_PATHS, blocks=2, repeats=1)).target == 6
    deep = inference.measure_against_deep(TINY_PATHS, blocks=2, repeats=1)
    assert Record.of("inference_32_layers", deep).target == 45


def test_recommendations_for_all_users_at_a_tiny_size(capfd: pytest.CaptureFixture[str]) -> None:
    """It refuses to time two paths whose lists differ, so it is also a test that they don't."""
    found = batch_recommendations.measure_against_plain(TINY_PATHS, batches=2, repeats=1)
    assert Record.of("batch_recommendations", found).target == 6
    assert "users a second; " in capfd.readouterr().err


def test_the_multiplications_of_a_users_list_are_counted() -> None:
    """By hand, for histories of 1 and 3 items: 3 and 5 tokens of their own behind a prompt of 5, in 4 layers."""
    sizes = plain_path.Sizes(width=4, heads=2, intermediate=8, before=5, after=2, items=10, item_width=3)
    maps = 4 * 4 * 4 + 3 * 4 * 8
    attended = (6 + 7 + 8) + (6 + 7 + 8 + 9 + 10)
    expected = 4 * (8 * maps + 2 * 4 * attended) + (4 + 2) * 4 * 3 + 2 * 10 * 3
    histories = Sequences.from_lists([[1], [1, 2, 3]])
    assert batch_recommendations.multiplications(sizes, histories) == expected


@pytest.mark.parametrize("mixed", [False, True])
def test_the_narrow_student_against_sasrec_at_a_tiny_size(mixed: bool) -> None:
    for found in (
        narrow_student.measure_batch(TINY_PATHS, users=3, repeats=1, mixed=mixed),
        narrow_student.measure_request(TINY_PATHS, repeats=1, mixed=mixed),
    ):
        target = Record.of("student_vs_sasrec", found).target
        assert target is None if mixed else target == pytest.approx(0.67, abs=0.01)


def test_depth_at_a_tiny_size() -> None:
    for measure in (depth.measure_training, depth.measure_training_with_teacher, depth.measure_inference):
        assert Record.of("depth", measure(TINY_PATHS, repeats=1)).unit == "ms"


@reads_memory
def test_the_first_layers_take_less_memory_than_all() -> None:
    """28 layers of 1.3 MiB each are between them."""
    sizes = plain_path.Sizes(width=128, heads=2, intermediate=512)
    measured = first_layers.measure_memory(sizes, tokens=50)
    assert measured.value + 16 < measured.reference_value


def test_full_ranking_at_a_tiny_size() -> None:
    assert Record.of("full_ranking", ranking.measure_full_ranking(TINY_RANKING, repeats=1)).target == 0.67


def test_sampled_metrics_at_a_tiny_size() -> None:
    """It refuses to time two ways that differ, so it is also a test that they don't."""
    assert Record.of("sampled_metrics", ranking.measure_sampled_metrics(TINY_RANKING, repeats=1)).target == 1000


def test_sampled_metrics_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "expected", lambda *_: {"hr_at_10": np.full(60, 0.9)})
    with pytest.raises(ValueError, match=r"Drawing gives HR@10 0\.\d{4}, the closed form 0\.9000"):
        ranking.measure_sampled_metrics(TINY_RANKING, repeats=1)


def test_a_request_over_http_at_a_tiny_size() -> None:
    """The second refuses to time two answers that differ, so it is also a test that they don't."""
    assert Record.of("serving", serving.measure_request(TINY_PATHS, requests=2)).reference_value == 5
    assert Record.of("serving_in_process", serving.measure_against_in_process(TINY_PATHS, requests=2)).target is None


def test_every_load_at_a_tiny_size() -> None:
    loads = serving.measure_load(TINY_PATHS, seconds=0.05)
    models = [f"{layers} layers, {way}" for layers in (4, 8) for way in ("HTTP", "in-process")]
    assert [(one.model, one.clients) for one in loads] == [(model, n) for model in models for n in (1, 4, 16)]
    assert all(one.p50_ms <= one.p99_ms for one in loads)


def test_a_client_that_fails_is_not_left_out() -> None:
    def refuse() -> None:
        raise ValueError("The server answers 503")

    with pytest.raises(ValueError, match="503"):
        serving.under_load([lambda: Event().wait(0.001), refuse], seconds=0.01)


def test_load_is_counted_over_all_clients() -> None:
    pauses = [Event(), Event()]
    asks = [lambda: pauses[0].wait(0.001), lambda: pauses[1].wait(0.004)]
    p50, p99, rate = serving.under_load(asks, seconds=0.2)
    assert 1 <= p50 <= p99
    assert 0 < rate <= 1250


def test_drawing_as_released_finds_places_among_new_and_unseen_items() -> None:
    """Of 6 items the user has seen 2 and 3; the target 5 is second of 1, 4, 5 and 6, all of which are drawn."""
    scores = np.array([[0.0, 3.0, 9.0, 9.0, 1.0, 2.0, 0.5]])
    assert ranking.draw_and_rank(scores, [{2, 3}], np.array([5]), 3).tolist() == [2]


def test_the_data_stage_against_pandas_and_a_scan_at_a_small_size() -> None:
    """The first refuses to time two ways that differ, so it is also a test that they don't."""
    assert Record.of("data_pandas", data.measure_against_pandas(6000, repeats=1)).target == 15
    assert Record.of("data_scan", data.measure_against_scan(6000, repeats=1)).target == 0.5


def test_two_ways_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "NOTEBOOK", data.PAPER)  # time order, and minima until they hold
    with pytest.raises(ValueError, match="differ from the notebook's"):
        data.measure_against_pandas(6000, repeats=1)


def test_linearity_is_against_the_lines_that_there_are() -> None:
    assert Record.of("data_linear", data.measure_linearity(6000, 3000, repeats=1)).target == 0.8


@reads_memory
def test_the_data_stages_memory_at_a_small_size() -> None:
    assert Record.of("data_pandas_memory", data.measure_memory_against_pandas(6000)).unit == "MiB"
    assert Record.of("data_linear_memory", data.measure_memory_of_largest(6000)).reference_value == 6 * 1024


@reads_memory
def test_great_expectations_at_a_small_size() -> None:
    small = gx_interactions.Sizes(interactions=5000, users=500, items=100)
    assert Record.of("gx_interactions", gx_interactions.measure_time(small)).reference_value == 30_000
    assert Record.of("gx_interactions_memory", gx_interactions.measure_memory(small)).reference_value == 2048


def test_the_document_explains_every_benchmark_and_its_table_has_the_records_columns() -> None:
    document = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert table([]) in document
    for name in command.BENCHMARKS:
        assert f"make bench ONLY={name}`" in document
        assert f"\n| `{name}` |" in document
