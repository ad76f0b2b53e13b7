"""Several commands at once on a home that none has used before."""

import subprocess
import sys

from tests.orchestration.workplace import ROOT, Workplace

OPEN = """
import sys
from assets.workspace import home
from orchestration.run import dagster_instance
home.prepare_home()
print("ready", flush=True)
sys.stdin.readline()
with dagster_instance() as instance:
    print(instance.get_runs_count())
"""


def test_dagsters_store_is_made_by_one_while_the_others_wait(workplace: Workplace) -> None:
    """Made by several at once, it says of itself afterwards that it has two versions, and no command can open it."""
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN],
            cwd=ROOT,
            env=dict(workplace.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for command in commands:
        assert command.stdout
        assert command.stdout.readline() == "ready\n"
    for command in commands:
        assert command.stdin
        command.stdin.write("\n")
        command.stdin.flush()
    said = [command.communicate() for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0], said
    assert [counted for counted, _ in said] == ["0\n", "0\n", "0\n"]
