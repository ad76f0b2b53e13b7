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

from assets.registry import promotion_log, promotions
from assets.registry.champion import champion_of
from assets.registry.promotion_log import Entry, predecessor
from assets.registry.promotions import notice, promote, rollback
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
    recommender: str = "student"

    @property
    def name(self) -> str:
        return f"slmrec-{self.domain}-{self.recommender}"

    def version(self, gate: str | None = "passed", rival: str = "") -> str:
        client = connect(home.mlflow_uri())
        compared = f"{self.name}/{rival}" if rival.isdigit() else rival
        tags = {"slmrec.gate": gate, "slmrec.gate.reasons": f"it has {gate}", "slmrec.gate.rival": compared}
        tags = tags if gate else {}
        return str(client.create_model_version(self.name, source="file:///nowhere", tags=tags).version)

    def alias(self, name: str, version: str) -> None:
        set_alias(RegisteredVersion(name=self.name, version=version), name)

    def champion(self) -> str | None:
        found = aliased(self.name, "champion")
        return found.version if found else None

    def log(self) -> list[tuple[str, str | None, str | None]]:
        """The domain's: a version of this model by its number, one of another by its name besides."""

        def told(one: RegisteredVersion | None) -> str | None:
            return one and (one.version if one.name == self.name else f"{one.name}/{one.version}")

        return [(one.action, told(one.before), told(one.after)) for one in notice(self.domain)]

    def promote(self, version: str | None = None, **given: object) -> Entry:
        return promote(self.domain, self.name, version=version, **{**WHO, **given})

    def rollback(self) -> str:
        """The number of the version that it led to."""
        after = rollback(self.domain, **WHO).after
        assert after
        assert after.name == self.name
        return after.version


@pytest.fixture
def model(tracked_home: Path) -> Model:
    made = Model(f"d{uuid.uuid4().hex[:12]}")
    connect(home.mlflow_uri()).create_registered_model(made.name)
    return made


@pytest.fixture
def narrow(model: Model) -> Model:
    """The domain's other deliverable model, with a version that passed, compared with the student's first."""
    made = Model(model.domain, "narrow_student")
    connect(home.mlflow_uri()).create_registered_model(made.name)
    made.version(rival=f"{model.name}/1")
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
        "action": "promoted",
        "before": None,
        "after": {"name": model.name, "version": "2"},
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
        (
            {"version": "2"},
            r"Version 2 of slmrec-.* has failed the gate \(it has failed\)\. FORCE=1 promotes it all the same",
        ),
        ({"version": "3"}, "Version 3 of slmrec-.* has not been through the gate"),
        ({"version": "4"}, "compared with no other version there, and the champion is now slmrec-.*/1"),
        ({"version": "5"}, "compared with slmrec-.*/2 there, and the champion is now slmrec-.*/1"),
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
    assert [model.rollback(), model.rollback()] == [second, first]
    assert model.champion() == first
    with pytest.raises(ValueError, match="has had no champion before the present one"):
        model.rollback()
    assert model.log()[-2:] == [("rolled back", third, second), ("rolled back", second, first)]
    model.promote(second)
    assert model.rollback() == first


def test_without_any_champion_there_is_no_way_back(model: Model) -> None:
    model.version()
    with pytest.raises(ValueError, match="has had no champion before"):
        model.rollback()
    with pytest.raises(ValueError, match="BY="):
        rollback(model.domain, reason="", by="")


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
    found = notice(model.domain)[-1]
    assert (found.by, found.gate, found.reasons) == ("unknown", "failed", "it has failed")
    assert len(model.log()) == 2
    assert model.rollback() == first


def test_an_alias_that_was_taken_away_by_hand_is_noticed_and_can_be_put_back(model: Model) -> None:
    first = model.version()
    model.promote(first)
    connect(home.mlflow_uri()).delete_registered_model_alias(model.name, "champion")
    assert model.log()[-1] == ("changed by hand", first, None)
    assert model.rollback() == first
    assert model.champion() == first


def test_a_promotion_notices_first_what_was_changed_by_hand(model: Model) -> None:
    first, second = model.version(), model.version(rival="1")
    model.alias("champion", first)
    model.promote(second)
    assert model.log() == [("changed by hand", None, first), ("promoted", first, second)]


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def kill(patch: pytest.MonkeyPatch, where: str) -> None:
    """From now on, a process dies as it comes to that function."""
    module = promotions if where in ("set_alias", "remove_alias") else promotion_log
    patch.setattr(module, where, killed)


def pending_path(model: Model) -> Path:
    return home.promotions_log(model.domain).with_name(f".{model.domain}.pending.json")


@pytest.mark.parametrize("where", ["append", "forget_pending"])
def test_killed_after_the_alias_has_moved_who_and_why_are_in_the_log_once(
    model: Model, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    first = model.version()
    with monkeypatch.context() as patch:
        kill(patch, where)
        with pytest.raises(KeyboardInterrupt):
            model.promote(first)
    assert model.champion() == first
    assert pending_path(model).exists()
    before = promotion_log.read(model.domain)
    assert [(one.action, one.by, one.why) for one in before] == [("promoted", "ada", "better on the slices")]
    assert notice(model.domain) == notice(model.domain) == before
    assert len(home.promotions_log(model.domain).read_bytes().splitlines()) == 1
    assert not pending_path(model).exists()


def test_killed_before_the_alias_has_moved_nothing_has_happened(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = model.version(), model.version(rival="1"), model.version(rival="1")
    model.promote(first)
    with monkeypatch.context() as patch:
        kill(patch, "set_alias")
        with pytest.raises(KeyboardInterrupt):
            model.promote(second)
    assert pending_path(model).exists()
    assert len(promotion_log.read(model.domain)) == 1
    assert model.log() == [("promoted", None, first)]
    assert not pending_path(model).exists()
    model.promote(third)
    assert model.log() == [("promoted", None, first), ("promoted", first, third)]


def test_after_a_killed_rollback_the_next_goes_further_back_not_forward(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = model.version(), model.version(rival="1"), model.version(rival="2")
    for version in (first, second, third):
        model.promote(version)
    with monkeypatch.context() as patch:
        kill(patch, "append")
        with pytest.raises(KeyboardInterrupt):
            model.rollback()
    assert model.champion() == second
    assert predecessor(promotion_log.read(model.domain)).version == first
    assert model.rollback() == first
    assert model.log()[-2:] == [("rolled back", third, second), ("rolled back", second, first)]
    with pytest.raises(ValueError, match="has had no champion before the present one"):
        model.rollback()


def test_changed_by_hand_after_a_kill_before_the_move_only_the_hand_is_told(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = model.version(), model.version(rival="1"), model.version()
    model.promote(first)
    with monkeypatch.context() as patch:
        kill(patch, "set_alias")
        with pytest.raises(KeyboardInterrupt):
            model.promote(second)
    model.alias("champion", third)
    assert model.log() == [("promoted", None, first), ("changed by hand", first, third)]


def test_a_damaged_pending_entry_is_named(model: Model) -> None:
    model.promote(model.version())
    pending_path(model).write_text("{}")
    with pytest.raises(ValueError, match=f"{pending_path(model)} is no entry of the log of promotions"):
        model.log()


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


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_stops_a_promotion_before_the_alias_moves(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.version()
    model.promote(first)
    before = home.promotions_log(model.domain).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ValueError, match=r"pending\.json.*No space left"):
            model.promote(model.version(rival=first))
    assert model.champion() == first
    assert home.promotions_log(model.domain).read_bytes() == before
    assert model.log() == [("promoted", None, first)]


def test_a_disk_that_is_full_after_the_move_is_told_and_the_entry_is_added_later(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = model.version()
    model.promote(first)
    path = home.promotions_log(model.domain)
    before = path.read_bytes()

    def moved(version: RegisteredVersion, alias: str) -> None:
        set_alias(version, alias)
        patch.setattr(os, "fsync", full)

    with monkeypatch.context() as patch:
        patch.setattr(promotions, "set_alias", moved)
        told = f"Version 2 of {model.name} is the champion of {model.domain} now, but the log {path} can't be written"
        with pytest.raises(ValueError, match=told):
            model.promote(model.version(rival=first))
    assert path.read_bytes() == before
    assert model.log() == [("promoted", None, first), ("promoted", first, "2")]


def test_a_damaged_line_is_named(model: Model) -> None:
    model.promote(model.version())
    path = home.promotions_log(model.domain)
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(ValueError, match=f"Line 1 of {path} is no entry of the log"):
        model.log()


def test_a_promotion_takes_the_alias_from_the_other_model_and_a_rollback_gives_it_back(
    model: Model, narrow: Model
) -> None:
    first = model.version()
    model.promote(first)
    assert not narrow.promote("1").forced
    assert (model.champion(), narrow.champion()) == (None, "1")
    assert champion_of(model.domain) == RegisteredVersion(name=narrow.name, version="1")
    assert model.rollback() == first
    assert (model.champion(), narrow.champion()) == (first, None)
    assert model.log() == [
        ("promoted", None, first),
        ("promoted", first, f"{narrow.name}/1"),
        ("rolled back", f"{narrow.name}/1", first),
    ]
    assert notice("nobody") == []


def test_the_same_number_of_the_other_model_is_another_version(model: Model, narrow: Model) -> None:
    """Compared with the other model's version 1 is not compared with one's own."""
    model.promote(model.version())
    second = narrow.version(rival="1")
    with pytest.raises(
        ValueError, match=f"compared with {narrow.name}/1 there, and the champion is now {model.name}/1"
    ):
        narrow.promote(second)
    assert (model.champion(), narrow.champion()) == ("1", None)


def test_the_alias_given_by_hand_to_the_other_model_is_the_newer_one(model: Model, narrow: Model) -> None:
    model.promote(model.version())
    narrow.alias("champion", "1")
    other = RegisteredVersion(name=narrow.name, version="1")
    assert champion_of(model.domain) == other
    assert (model.champion(), narrow.champion()) == ("1", "1")
    assert model.log() == [("promoted", None, "1"), ("changed by hand", "1", f"{narrow.name}/1")]
    assert (model.champion(), narrow.champion()) == (None, "1")
    assert champion_of(model.domain) == other
    assert model.rollback() == "1"


@pytest.mark.parametrize("logged", [False, True])
def test_two_champions_that_the_log_does_not_know_are_refused_until_one_is_taken_away(
    model: Model, narrow: Model, *, logged: bool
) -> None:
    first, second = model.version(), model.version()
    if logged:
        model.promote(first)
    model.alias("champion", second)
    narrow.alias("champion", "1")
    told = f"version 2 of {model.name} and version 1 of {narrow.name} both have the alias champion"
    for look in (champion_of, notice):
        with pytest.raises(ValueError, match=f"{told}.*remove the alias from one of them"):
            look(model.domain)
    assert len(home.promotions_log(model.domain).read_bytes().splitlines() if logged else []) == logged
    connect(home.mlflow_uri()).delete_registered_model_alias(model.name, "champion")
    assert champion_of(model.domain) == RegisteredVersion(name=narrow.name, version="1")
    assert model.log()[-1] == ("changed by hand", first if logged else None, f"{narrow.name}/1")


def test_killed_between_the_two_aliases_the_promoted_one_is_the_champion(
    model: Model, narrow: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.promote(model.version())
    with monkeypatch.context() as patch:
        kill(patch, "remove_alias")
        with pytest.raises(KeyboardInterrupt):
            narrow.promote("1")
    assert (model.champion(), narrow.champion()) == ("1", "1")
    assert champion_of(model.domain) == RegisteredVersion(name=narrow.name, version="1")
    assert model.log()[-1] == ("promoted", "1", f"{narrow.name}/1")
    assert model.champion() is None
    assert champion_of(model.domain) == RegisteredVersion(name=narrow.name, version="1")


def test_a_log_from_when_each_model_had_a_champion_is_read(model: Model) -> None:
    """Those lines named the model once, and versions by their numbers."""
    rest = {"at": "2026-01-02T03:04:05Z", "action": "promoted", "by": "ada", "why": "so", "gate": None, "reasons": None}
    moves = [(None, model.version()), ("1", model.version())]
    lines = [{**rest, "model": model.name, "before": before, "after": after} for before, after in moves]
    path = home.promotions_log(model.domain)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    model.alias("champion", "2")
    assert model.log() == [("promoted", None, "1"), ("promoted", "1", "2")]
    assert model.rollback() == "1"


def entry(action: str, before: str | None, after: str | None) -> Entry:
    def one(version: str | None) -> RegisteredVersion | None:
        return RegisteredVersion(name="m", version=version) if version else None

    return Entry(
        at=dt.datetime.now(dt.UTC),
        action=action,
        before=one(before),
        after=one(after),
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
    found = predecessor([entry(*move) for move in moves])
    assert (found and found.version) == expected


RACE = """
import sys
from assets.registry.promotions import notice, promote
domain, model, rounds, *own = sys.argv[1:]
notice(domain)
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
    log = notice(model.domain)
    assert {entry.action for entry in log} == {"promoted"}
    for pair in pairs:
        assert [entry.why for entry in log if entry.by == pair[0]] == [f"round {number}" for number in range(rounds)]
    assert [entry.before for entry in log] == [None, *(entry.after for entry in log[:-1])]
    assert champion_of(model.domain) == log[-1].after
