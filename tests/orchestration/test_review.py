"""Promote, roll back and history by the command line, on a home in which the chain has run and passed its gate."""

import json
from pathlib import Path

import pytest

from tests.orchestration.workplace import Workplace

STORE = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1], sys.argv[1])
name = "slmrec-tiny-student"
{do}
"""
SECOND = """
first = client.get_model_version(name, "1")
client.create_model_version(name, source=first.source, tags={**first.tags, "slmrec.gate": "failed"})
"""
READ = """
version = client.get_model_version(name, "1")
print(json.dumps({"tags": version.tags, "page": version.description}))
"""


def in_store(place: Workplace, do: str) -> str:
    done = place.python("-W", "ignore", "-c", STORE.replace("{do}", do), f"sqlite:///{place.home}/mlflow.db")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(finished: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A copy of the finished home, with a second version that failed the gate."""
    copy = finished.copied_to(tmp_path_factory.mktemp("review"))
    in_store(copy, SECOND)
    return copy


def test_the_version_has_its_verdict_and_its_page(finished: Workplace) -> None:
    found = json.loads(in_store(finished, READ).splitlines()[-1])
    decision = finished.record("challenger")
    assert found["tags"]["slmrec.gate"] == "passed"
    assert found["tags"]["slmrec.gate.reasons"] == "; ".join(one["words"] for one in decision["findings"])
    page = found["page"]
    assert len(page) <= 5000
    statistics = finished.record("dataset_statistics")["values"]
    for words in (
        "**Gate: passed**",
        f"Reviews from {statistics['first_day']} to {statistics['last_day']}",
        "| SASRec |",
        "| head |",
        f"## Lineage\n\nIdentity `{found['tags']['slmrec.identity']}`: profile tiny",
        "✓ `data_checks_green`: of ",
        "[MLflow run of the training](http",
        "report.html",
    ):
        assert words in page, words


def test_a_reviewer_promotes_and_goes_back(place: Workplace) -> None:
    """One story: nothing yet, refusals, the challenger, a forced one, back, and no further."""
    told = [
        place.run("history", "--domain", "tiny"),
        place.run("promote", "--domain", "tiny", "--reason", ""),
        place.run("promote", "--domain", "tiny", "--reason", "it's the best", "--by", "ada"),
        place.run("promote", "--domain", "tiny", "--reason", "a test", "--version", "2", USER="bob"),
        place.run("promote", "--domain", "tiny", "--reason", "a test", "--version", "2", "--force", USER="bob"),
        place.run("rollback", "--domain", "tiny", USER="bob"),
        place.run("rollback", "--domain", "tiny", "--reason", "further", USER="bob"),
    ]
    assert [one.returncode for one in told] == [0, 2, 0, 2, 0, 0, 2]
    words = [(one.stdout if one.returncode == 0 else one.stderr).strip().splitlines()[-1] for one in told]
    model = "slmrec-tiny-student"
    assert words[0] == "tiny has had no champion yet: make promote DOMAIN=tiny REASON=… makes one."
    assert words[1] == "slmrec: Say why, for the log: REASON='…'."
    assert words[2] == f"tiny: version 1 of {model} is the champion (before: none)."
    assert words[3].startswith(f"slmrec: Version 2 of {model} has failed the gate (")
    assert words[4] == f"tiny: version 2 of {model} is the champion (before: version 1 of {model})."
    assert words[5] == f"tiny: version 1 of {model} is the champion again (before: version 2 of {model})."
    assert words[6].startswith("slmrec: tiny has had no champion before the present one")

    in_store(place, 'client.set_registered_model_alias(name, "champion", "2")')
    head, *lines = place.run("history", "--domain", "tiny").stdout.splitlines()
    assert head.split() == ["when", "(UTC)", "action", "from", "to", "by", "gate", "why", "evidence"]
    evidence = place.record("challenger")["findings"][0]["words"]
    for line, told in zip(
        lines,
        [
            "promoted none student 1 ada passed it's the best",
            "promoted, forced student 1 student 2 bob failed a test",
            "rolled back student 2 student 1 bob passed no reason given",
            "noticed changed by hand student 1 student 2 unknown failed the registry's alias is not what this log knew",
        ],
        strict=True,
    ):
        assert " ".join(line.split()[2:]).startswith(f"{told} {evidence}")


def test_the_other_models_version_is_named_by_its_recommender(place: Workplace, tmp_path: Path) -> None:
    """After the story: the narrow student was never put to the gate, so it needs force; one rollback leads back."""
    copy = place.copied_to(tmp_path)
    words = ["--domain", "tiny", "--reason", "smaller"]
    other = [*words, "--recommender", "narrow_student", "--version", "1"]
    refused, forced, back = (
        copy.run("promote", *other, USER="bob"),
        copy.run("promote", *other, "--force", USER="bob"),
        copy.run("rollback", *words, USER="bob"),
    )
    assert refused.stderr.startswith("slmrec: Version 1 of slmrec-tiny-narrow_student has not been through the gate")
    assert forced.stdout.startswith("tiny: version 1 of slmrec-tiny-narrow_student is the champion (before: ")
    assert back.stdout.strip().endswith("is the champion again (before: version 1 of slmrec-tiny-narrow_student).")


def test_without_a_verdict_the_model_has_to_be_named(place: Workplace, tmp_path: Path) -> None:
    copy = place.copied_to(tmp_path)
    (copy.home / "records/challenger/tiny.json").unlink()
    done = copy.run("promote", "--domain", "tiny", "--reason", "a test", USER="bob")
    assert done.returncode == 2
    assert "No student of tiny has been through the gate in this home: make run DOMAIN=tiny" in done.stderr


def test_a_domain_that_is_not_there_is_named(workplace: Workplace) -> None:
    done = workplace.run("history", "--domain", "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert not Path(workplace.home).exists()
