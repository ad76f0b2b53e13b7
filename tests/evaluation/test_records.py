"""Records survive the disk unchanged, and nothing unsound is read or made."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluation.protocols import SampledRanking
from evaluation.records import CostRecord, Hardware, hardware, read_records, write_record
from evaluation.strict import decode, parse_json

REMEDY = "materialise the domain's `main_results` again"


def test_a_record_survives_the_disk(tmp_path, make_record):
    record = make_record("student", SampledRanking(412))
    path = write_record(record, tmp_path / "results" / "sample")
    assert path.name == "student.sampled_412.json"
    assert read_records(path.parent) == [record]
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_records_come_by_file_name_and_writing_twice_replaces(tmp_path, make_records):
    for record in [*make_records(), *make_records(users=99)]:
        write_record(record, tmp_path)
    records = read_records(tmp_path)
    assert [record.file_name for record in records] == sorted(record.file_name for record in make_records())
    assert {record.users for record in records} == {99}


def test_a_failed_write_leaves_the_old_record_alone(tmp_path, make_record, monkeypatch):
    path = write_record(make_record(), tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_record(make_record(users=7), tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda values: values.update(colour="red"), "unknown field colour"),
        (lambda values: values.pop("users"), "missing field users"),
        (lambda values: values.update(users="many"), "users must be a whole number"),
        (lambda values: values.update(users=True), "users must be a whole number"),
        (lambda values: values.update(users=0), "users must be at least 1"),
        (lambda values: values.update(synthetic=1), "synthetic must be true or false"),
        (lambda values: values.update(notes="text"), "notes must be a list"),
        (lambda values: values.update(seeds=[1]), "seeds must be an object"),
        (lambda values: values.update(cost=None), "cost must be an object"),
        (lambda values: values.update(schema=99), "schema 1"),
        (lambda values: values.update(recommender="other"), "belongs into other.full.json"),
        (lambda values: values.update(recommender="../x"), "becomes a file name"),
        (lambda values: values["protocol"].pop("ties"), "missing field protocol.ties"),
        (lambda values: values["protocol"].update(extra=1), "unknown field protocol.extra"),
        (lambda values: values["metrics"].pop("mrr"), "missing field metrics.mrr"),
        (lambda values: values["metrics"]["mrr"].pop("low"), "missing field metrics.mrr.low"),
        (lambda values: values["metrics"]["mrr"].update(mean=1.01), r"metrics.mrr.mean must lie in 0..1"),
        (lambda values: values["metrics"]["mrr"].update(low=-0.01), r"metrics.mrr.low must lie in 0..1"),
        (lambda values: values["metrics"]["mrr"].update(low=0.9, high=0.8), "low end lies above"),
        (lambda values: values["metrics"]["mrr"].update(mean=float("nan")), "NaN is not a number"),
        (lambda values: values["metrics"]["mrr"].update(mean=10**400), "metrics.mrr.mean must be a finite number"),
        (lambda values: values["history"][3].update(loss=float("inf")), "Infinity is not a number"),
        (lambda values: values["cost"].update(train_seconds=-1.0), "train_seconds must be a finite number from 0"),
        (lambda values: values["cost"].update(upstream_seconds={"sasrec": -1.0}), "sasrec must be a finite number"),
        (lambda values: values["cost"].update(trainable_parameters=10**9), "larger than parameters"),
        (lambda values: values["cost"]["hardware"].update(cores=1.5), "cost.hardware.cores must be a whole number"),
        (lambda values: values["provenance"].pop("config_hash"), "missing field provenance.config_hash"),
        (lambda values: values["provenance"].update(mlflow_run=3), "provenance.mlflow_run must be text"),
    ],
)
def test_an_unsound_file_is_refused_by_name_and_with_a_remedy(tmp_path, make_record, damage, message):
    path = write_record(make_record(), tmp_path)
    values = json.loads(path.read_text())
    damage(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message) as caught:
        read_records(tmp_path)
    assert str(path) in str(caught.value)
    assert REMEDY in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_record_is_refused(tmp_path, content):
    path = tmp_path / "student.full.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"student\.full\.json is not a sound result record"):
        read_records(tmp_path)


def test_a_missing_directory_names_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="materialise `main_results` first"):
        read_records(tmp_path / "nowhere")


def test_a_number_that_is_not_finite_is_refused_when_made(make_record):
    with pytest.raises(ValueError, match=r"history\[0\]"):
        make_record(history=({"step": 1.0, "loss": float("nan")},))


def test_the_students_price_counts_all_it_stands_on(make_record):
    """48.9 s of its own, 41.5 of the backbone, 31.2 of the item embeddings, 75 of the teacher."""
    assert make_record("student").cost.total_train_seconds == pytest.approx(48.9 + 41.5 + 31.2 + 75.0)
    assert make_record("sasrec").cost.total_train_seconds == pytest.approx(31.2)


def test_unknown_peak_memory_is_allowed(tmp_path, make_record):
    record = make_record()
    record = replace(record, cost=replace(record.cost, peak_memory_bytes=None))
    write_record(record, tmp_path)
    assert read_records(tmp_path) == [record]


def test_hardware_describes_this_machine():
    machine = hardware()
    assert machine.cores >= 1
    assert machine.memory_bytes > 2**27
    assert machine.torch == torch.__version__
    assert f"{machine.cores} cores" in machine.words()
    assert "None" not in machine.words()
    assert replace(machine, gpu="1 × NVIDIA H100").words().startswith("1 × NVIDIA H100, ")


@given(
    st.dictionaries(st.text(max_size=8), st.floats(0, 1, allow_nan=False), max_size=4),
    st.lists(st.text(max_size=20), max_size=3),
)
def test_any_names_and_numbers_come_back_as_they_were(numbers, notes):
    cost = CostRecord(0.5, 0.25, 2, 1, None, Hardware("c", 1, 1, "t", None), numbers)
    values = parse_json(json.dumps({"cost": cost.__dict__ | {"hardware": cost.hardware.__dict__}, "notes": notes}))
    assert decode(CostRecord, values["cost"]) == cost
    assert values["notes"] == notes
