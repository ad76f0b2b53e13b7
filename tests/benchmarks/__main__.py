"""`python -m tests.benchmarks [name …]`: run the benchmarks, all or the named; `--table` shows what was recorded.

`depth` stands for all of `depth_…`. The exit code is 1 where a promise was missed, 2 where a benchmark couldn't run.
"""

import argparse
import sys
from collections.abc import Callable

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
    prompt_attention,
    ranking,
    serving,
    shared_prompt,
)
from tests.benchmarks.harness import Measurement
from tests.benchmarks.records import (
    Load,
    LoadRecord,
    Record,
    benchmarks_directory,
    read_records,
    table,
    write_record,
)

BENCHMARKS: dict[str, Callable[[], Measurement]] = {
    "data_pandas": data.measure_against_pandas,
    "data_pandas_memory": data.measure_memory_against_pandas,
    "data_scan": data.measure_against_scan,
    "data_linear": data.measure_linearity,
    "data_linear_memory": data.measure_memory_of_largest,
    "gx_interactions": gx_interactions.measure_time,
    "gx_interactions_memory": gx_interactions.measure_memory,
    "catalogue_loss": catalogue_loss.measure_time,
    "catalogue_loss_memory": catalogue_loss.measure_memory,
    "loss_memory": catalogue_loss.measure_memory_of_large,
    "shared_prompt": shared_prompt.measure_time,
    "prompt_attention": prompt_attention.measure_time,
    "prompt_attention_bfloat16": prompt_attention.measure_time_in_bfloat16,
    "distill_step": distillation.measure_time,
    "distill_step_all_positions": distillation.measure_time_of_all_positions,
    "real_backbone_step": distillation.measure_time_on_a_real_backbone,
    "inference": inference.measure_against_plain,
    "inference_32_layers": inference.measure_against_deep,
    "batch_recommendations": batch_recommendations.measure_against_plain,
    "student_vs_sasrec": narrow_student.measure_batch,
    "student_vs_sasrec_request": narrow_student.measure_request,
    "mixed_student_vs_sasrec": narrow_student.measure_mixed_batch,
    "mixed_student_vs_sasrec_request": narrow_student.measure_mixed_request,
    "depth_training": depth.measure_training,
    "depth_training_with_teacher": depth.measure_training_with_teacher,
    "depth_inference": depth.measure_inference,
    "first_layers_memory": first_layers.measure_memory,
    "full_ranking": ranking.measure_full_ranking,
    "serving": serving.measure_request,
    "serving_in_process": serving.measure_against_in_process,
    "serving_32_layers": serving.measure_against_deep,
    "sampled_metrics": ranking.measure_sampled_metrics,
}

UNDER_LOAD: dict[str, Callable[[], list[Load]]] = {"serving": serving.measure_load}
"""What a benchmark also measures: a table of loads behind its line, in `<name>_load.json`."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it; the exit code. A user's mistake becomes one message on stderr."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="The project against references.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--table", action="store_true", help="run nothing; print the records as a Markdown table")
    options = parser.parse_args(arguments)
    try:
        names = _named(options.names) if options.names else list(BENCHMARKS)
        if options.table:
            _show(names)
            return 0
        benchmarks_directory().mkdir(parents=True, exist_ok=True)  # before minutes are spent
    except (ValueError, OSError) as error:
        sys.stderr.write(f"slmrec: {error}\n")
        return 2
    return max([_run(name) for name in names])


def _named(asked: list[str]) -> list[str]:
    """The benchmarks of these names, and of groups of names: `depth` is `depth_training` and the others like it."""
    names: list[str] = []
    for part in asked:
        meant = [part] if part in BENCHMARKS else [name for name in BENCHMARKS if name.startswith(f"{part}_")]
        if not meant:
            raise ValueError(f"There is no benchmark {part}; there are {', '.join(BENCHMARKS)}.")
        names += [name for name in meant if name not in names]
    return names


def _run(name: str) -> int:
    """The exit code: a benchmark that can't run here, or misses, doesn't keep the others from running."""
    sys.stderr.write(f"{name} …\n")
    try:
        record = Record.of(name, BENCHMARKS[name]())
        write_record(record)
        sys.stdout.write(f"{record.line()}\n")
        sys.stdout.flush()
        if name in UNDER_LOAD:
            loads = LoadRecord.of(f"{name}_load", UNDER_LOAD[name]())
            write_record(loads)
            sys.stdout.write(f"{loads.table()}\n")
            sys.stdout.flush()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"slmrec: {name}: {error}\n")
        return 2
    return int(record.missed)


def _show(names: list[str]) -> None:
    records = read_records(names)
    if not records:
        raise ValueError(f"There are no records at {benchmarks_directory()}: run make bench first.")
    sys.stdout.write(f"{table(records)}\n")


if __name__ == "__main__":
    sys.exit(main())
