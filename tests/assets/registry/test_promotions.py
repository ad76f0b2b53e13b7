"""The log of champions on a real store: promoted, refused, rolled back, changed by hand, and two processes at once."""

import datetime as dt
import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from assets.registry import promotions
from assets.registry.promotions import Entry, notice, predecessor, promote, rollback
from assets.registry.store import connect
from assets.registry.versions import aliased, set_alias
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion

pytestmark = pytest.mark.usefixtures("tracked_home")

ROOT = Path(__file__).parents[3]
WHO = {"reason": "better on the slices", "by": "ada"}


@dataclass(frozen=True)
class Model:
    """A registered model with versions that hold nothing: only their tags and aliases matter here."""

    domain: str

    @property
    def name(self) -> str:
        return f"slmrec-{self.domain}-student"

    def version(self, gate: str | None = "passed", rival: str = "") -> str:
        client = connect(home.mlflow_uri())
        tags = (
            {"slmrec.gate": gate, "slmrec.gate.reasons": f"it has {gate}", "slmrec.gate.rival": rival} if gate else {}
        )
        return str(client.create_model_version(self.name, source="file:///nowhere", tags=tags).version)

    def alias(self, name: str, version: str) -> None:
        set_alias(RegisteredVersion(name=self.name, version=version), name)

    def champion(self) -> str | None:
        found = aliased(self.name, "champion")
        return found.version if found else None

    def log(self) -> list[tuple[str, str | None, str | None]]:
        return [(one.action, one.before, one.after) for one in notice(self.domain, self.name)]

    def promote(self, version: str | None = None, **given: object) -> Entry:
        return promote(self.domain, self.name, version=version, **{**WHO, **given})

    def rollback(self) -> Entry:
        return rollback(self.domain, self.name, **WHO)


@pytest.fixture
def model(tracked_home: Path) -> Model:
    made = Model(f"d{uuid.uuid4().hex[:12]}")
    connect(home.mlflow_uri()).create_registered_model(made.name)
    return made


def test_the_challenger_is_promoted_and_the_log_says_who_when_and_why(model: Model) -> None:
    model.version()
    second = model.version()
    model.alias("challenger", second)
    before = dt.datetime.now(dt.UTC)
    model.promote()
    assert model.champion() == second
    assert aliased(model.name, "challenger").version == second
    (line,) = home.promotions_log(model.domain).read_text().splitlines()
    entry = json.loads(line)
    assert before <= dt.datetime.fromisoformat(entry.pop("at")) <= dt.datetime.now(dt.UTC)
    assert entry == {
        "model": model.name,
        "action": "promoted",
        "before": None,
        "after": "2",
        "by": "ada",
        "why": "better on the slices",
        "gate": "passed",
        "reasons": "it has passed",
        "forced": False,
    }


def test_a_version_may_be_named_instead(model: Model) -> None:
    first, second = model.version(), model.version()
    model.alias("challenger", second)
    model.promote(first)
    assert model.champion() == first
    assert aliased(model.name, "challenger").version == second


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"reason": " "}, r"Say why, for the log: REASON="),
        ({"by": ""}, r"Say who does it, for the log: BY="),
        ({"version": "9"}, "has no version 9"),
        ({"version": "newest"}, "has no version newest"),
        ({"version": "1"}, "Version 1 of slmrec-.* is the champion already"),
        ({"version": "2"}, r"Version 2 has failed the gate \(it has failed\)\. FORCE=1 promotes it all the same"),
        ({"version": "3"}, "Version 3 has not been through the gate"),
        ({"version": "4"}, "compared with no other version there, and the champion is now version 1"),
        ({"version": "5"}, "compared with version 2 there, and the champion is now version 1"),
        ({}, "has no challenger: name a version"),
    ],
)
def test_a_promotion_is_refused_in_plain_words(model: Model, given: dict, told: str) -> None:
    first = model.version()
    for gate, rival in (("failed", "1"), (None, ""), ("passed", ""), ("passed", "2")):
        model.version(gate, rival)
    model.promote(first)
    log = home.promotions_log(model.domain).read_bytes()
    with pytest.raises(ValueError, match=told):
        promote(model.domain, model.name, **{**WHO, **given})
    assert model.champion() == first
    assert home.promotions_log(model.domain).read_bytes() == log


@pytest.mark.parametrize("gate", ["failed", None])
def test_force_promotes_what_the_gate_refuses_and_the_log_says_so(model: Model, gate: str | None) -> None:
    entry = model.promote(model.version(gate), force=True)
    assert (entry.forced, entry.gate, model.champion()) == (True, gate, "1")


def test_force_is_told_only_where_it_was_needed(model: Model) -> None:
    assert not model.promote(model.version(), force=True).forced


def test_a_version_compared_with_the_champion_needs_no_force(model: Model) -> None:
    first = model.version()
    model.promote(first)
    assert not model.promote(model.version(rival=first)).forced


def test_a_rollback_leads_to_the_version_before_and_not_further(model: Model) -> None:
    first, second, third = model.version(), model.version(rival="1"), model.version(rival="2")
    for version in (first, second, third):
        model.promote(version)
    assert [model.rollback().after, model.rollback().after] == [second, first]
    assert model.champion() == first
    with pytest.raises(ValueError, match="has had no champion before the present one"):
        model.rollback()
    assert model.log()[-2:] == [("rolled back", third, second), ("rolled back", second, first)]
    model.promote(second)
    assert model.rollback().after == first


def test_without_any_champion_there_is_no_way_back(model: Model) -> None:
    model.version()
    with pytest.raises(ValueError, match="has had no champion before"):
        model.rollback()
    with pytest.raises(ValueError, match="REASON="):
        rollback(model.domain, model.name, reason="", by="ada")


def test_a_rollback_to_a_deleted_version_is_refused(model: Model) -> None:
    first = model.version()
    model.promote(first)
    model.promote(model.version(rival=first))
    connect(home.mlflow_uri()).delete_model_version(model.name, first)
    with pytest.raises(ValueError, match=r"Version 1 of .*, the champion before, was deleted"):
        model.rollback()
    assert model.champion() == "2"


def test_a_change_by_hand_is_noticed_once(model: Model) -> None:
    assert model.log() == []
    first, second = model.version(), model.version("failed")
    model.promote(first)
    model.alias("champion", second)
    assert model.log() == [("promoted", None, first), ("changed by hand", first, second)]
    found = notice(model.domain, model.name)[-1]
    assert (found.by, found.gate, found.reasons) == ("unknown", "failed", "it has failed")
    assert len(model.log()) == 2
    assert model.rollback().after == first


def test_an_alias_that_was_taken_away_by_hand_is_noticed_and_can_be_put_back(model: Model) -> None:
    first = model.version()
    model.promote(first)
    connect(home.mlflow_uri()).delete_registered_model_alias(model.name, "champion")
    assert model.log()[-1] == ("changed by hand", first, None)
    assert model.rollback().after == first
    assert model.champion() == first


def test_a_promotion_notices_first_what_was_changed_by_hand(model: Model) -> None:
    first, second = model.version(), model.version(rival="1")
    model.alias("champion", first)
    model.promote(second)
    assert model.log() == [("changed by hand", None, first), ("promoted", first, second)]


def test_killed_between_alias_and_log_the_next_look_enters_it(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.version()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(promotions, "_append", killed)
        with pytest.raises(KeyboardInterrupt):
            model.promote(first)
    assert model.champion() == first
    assert model.log() == [("changed by hand", None, first)]


def test_a_line_that_was_never_finished_is_no_entry_and_is_replaced(model: Model) -> None:
    first = model.version()
    model.promote(first)
    path = home.promotions_log(model.domain)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert model.log() == [("promoted", None, first)]
    model.promote(model.version(rival=first))
    assert path.read_bytes().startswith(whole)
    assert model.log() == [("promoted", None, first), ("promoted", first, "2")]


def test_a_full_disk_leaves_the_log_as_it_was(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.version()
    model.promote(first)
    before = home.promotions_log(model.domain).read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            model.promote(model.version(rival=first))
    assert home.promotions_log(model.domain).read_bytes() == before
    assert model.log()[-1] == ("changed by hand", first, "2")


def test_a_damaged_line_is_named(model: Model) -> None:
    model.promote(model.version())
    path = home.promotions_log(model.domain)
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(ValueError, match=f"Line 1 of {path} is no entry of the log"):
        model.log()


def test_another_model_of_the_domain_has_its_own_history(model: Model) -> None:
    first = model.version()
    model.promote(first)
    other = f"slmrec-{model.domain}-teacher"
    assert notice(model.domain, other) == []
    with pytest.raises(ValueError, match="has had no champion before"):
        rollback(model.domain, other, **WHO)


def entry(action: str, before: str | None, after: str | None) -> Entry:
    return Entry(
        at=dt.datetime.now(dt.UTC),
        model="m",
        action=action,
        before=before,
        after=after,
        by="ada",
        why="so",
        gate=None,
        reasons=None,
    )


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([], None),
        ([("promoted", None, "1")], None),
        ([("promoted", "7", "1")], "7"),
        ([("promoted", None, "1"), ("promoted", "1", "2")], "1"),
        ([("promoted", None, "1"), ("promoted", "1", "2"), ("rolled back", "2", "1")], None),
        ([("promoted", None, "1"), ("changed by hand", "1", "2"), ("changed by hand", "2", "1")], "2"),
        ([("promoted", None, "1"), ("changed by hand", "1", None)], "1"),
        ([("promoted", None, "1"), ("changed by hand", "1", None), ("promoted", None, "3")], "1"),
        ([("promoted", None, "1"), ("changed by hand", "1", None), ("promoted", None, "1")], None),
    ],
)
def test_the_version_before(moves: list[tuple], expected: str | None) -> None:
    assert predecessor([entry(*move) for move in moves]) == expected


RACE = """
import sys
from assets.registry.promotions import notice, promote
domain, model, rounds, *own = sys.argv[1:]
notice(domain, model)
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(rounds)):
    promote(domain, model, version=own[number % 2], reason=f"round {number}", by=own[0], force=True)
"""


def test_two_processes_at_once_lose_no_entry(model: Model) -> None:
    """Each promotes two versions of its own in turn; every entry is there, and goes on from the one before."""
    pairs, rounds = [(model.version(), model.version()) for _ in range(2)], 8
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RACE, model.domain, model.name, str(rounds), *pair],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for pair in pairs
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    log = notice(model.domain, model.name)
    assert {entry.action for entry in log} == {"promoted"}
    for pair in pairs:
        assert [entry.why for entry in log if entry.by == pair[0]] == [f"round {number}" for number in range(rounds)]
    assert [entry.before for entry in log] == [None, *(entry.after for entry in log[:-1])]
    assert model.champion() == log[-1].after
