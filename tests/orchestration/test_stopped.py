"""A run that is stopped, or whose disk fills up: one plain line, and nothing half done is taken for whole."""

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from dagster_shared.error import SerializableErrorInfo
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from assets.workspace.home import training_lock
from orchestration.reasons import said
from tests.orchestration.workplace import Workplace, make_workplace

FULL = """
import sys
from sqlalchemy import Engine, event

@event.listens_for(Engine, "connect")
def no_room(connection, _):
    \"\"\"SQLite's own answer when a file may not grow: "database or disk is full".\"\"\"
    (file,) = [path for _, name, path in connection.execute("pragma database_list") if name == "main"]
    if sys.argv[1] in file:
        connection.execute(f"pragma max_page_count = {sys.argv[2]}")

from orchestration.__main__ import main
sys.exit(main(["run", "--domain", "tiny", "--profile", sys.argv[3]]))
"""


def last_lines(stderr: str) -> list[str]:
    """What is said after the steps."""
    return [line for line in stderr.splitlines() if line.startswith("slmrec: ")]


def test_ctrl_c_ends_a_run_with_one_plain_line_and_the_next_goes_on(tmp_path: Path) -> None:
    place = make_workplace(tmp_path)
    profile = place.folder / "tiny.yaml"
    profile.write_text(profile.read_text().replace("max_steps: 5,", "max_steps: 500000,"))
    running = place.chain_in_progress()
    assert running.stderr
    for line in running.stderr:
        if "language_backbone" in line:
            break
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=120)
    assert running.returncode == 130
    assert stdout == ""
    assert last_lines(stderr) == ["slmrec: stopped. The same command goes on from where it was."]
    assert "Traceback" not in stderr
    assert not (place.home / "records/language_backbone/tiny.json").exists()
    with closing(sqlite3.connect(place.home / "mlflow.db")) as store:
        ends = dict(store.execute("select name, status from runs"))
    assert ends["splits"] == "FINISHED"
    assert ends.get("language_backbone", "KILLED") == "KILLED"
    done = place.python("-c", "from assets.workspace.home import domain_lock\nwith domain_lock('tiny'): pass")
    assert done.returncode == 0, done.stderr


def test_a_run_says_that_it_waits_for_the_training_of_another(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLMREC_HOME", str(workplace.home))
    with training_lock("run-1"):
        running = workplace.chain_in_progress()
        assert running.stderr
        said_on_screen = next((line for line in running.stderr if "another training is going on" in line), "nothing")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=120)
    assert f"by process {os.getpid()} (Dagster run run-1): this one waits for its end" in said_on_screen


def test_a_full_disk_noticed_while_a_query_writes_first_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy puts a line of its own before the database's, and MLflow its name before both."""

    class Base(DeclarativeBase):
        pass

    class Row(Base):
        __tablename__ = "rows"
        text: Mapped[str] = mapped_column(primary_key=True)

    engine = create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(text("pragma max_page_count = 1"))
        session.add(Row(text="x" * 10_000))
        with pytest.raises(DBAPIError) as raised:
            session.scalars(select(Row)).all()
        session.rollback()
    engine.dispose()
    error = SerializableErrorInfo(f"mlflow.exceptions.MlflowException: {raised.value}\n", [], "MlflowException")
    assert "autoflush" in error.message
    assert "\n" in error.message.strip()
    monkeypatch.setenv("SLMREC_HOME", "/somewhere")
    assert said(error) == (
        "(sqlite3.OperationalError) database or disk is full: make room on the disk of /somewhere, or of the file that "
        "MLFLOW_TRACKING_URI names if it is set. The same command then goes on from where it was."
    )


@pytest.mark.parametrize(("file", "pages"), [("history/runs/", 12), ("mlflow.db", 1)])
def test_a_full_disk_is_said_in_one_line(finished: Workplace, tmp_path: Path, file: str, pages: int) -> None:
    """Dagster's record of the run, and MLflow's store, which are SQLite files."""
    place = finished.copied_to(tmp_path)
    done = place.python("-c", FULL, file, str(pages), str(place.folder / "tiny.yaml"))
    assert done.returncode in (1, 2), done.stderr[-3000:]
    (message,) = last_lines(done.stderr)
    assert "database or disk is full" in message
    assert message.endswith(" same command then goes on from where it was.")
    assert "Traceback" not in done.stderr
    assert "[SQL" not in done.stderr
    assert done.stderr.rstrip().endswith(message)
