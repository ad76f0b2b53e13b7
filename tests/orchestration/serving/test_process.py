"""`python -m orchestration serve` in a process of its own: it answers, ends when told, refuses in plain words."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from assets.registry.versions import remove_alias
from orchestration.serving.server import serve
from tests.orchestration.serving.conftest import Served
from tests.orchestration.workplace import ROOT


def test_it_answers_until_sigterm(served: Served) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "orchestration", "serve", "--domain", "tiny", "--port", "0"],
        cwd=ROOT,
        env={**served.place.environment, "SLMREC_SERVING_KEY": "secret"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        assert server.stderr
        head = server.stdout.readline()
        assert head.startswith(f"slmrec-tiny-student version {served.first.version}: http://127.0.0.1:")
        address = head.split()[-1]
        request = urllib.request.Request(
            address,
            json.dumps({"history": ["B001", "nothing"], "k": 3}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
            assert answer.headers.get("server") is None
        with urllib.request.urlopen(address.replace("recommend", "health"), timeout=60) as answer:
            assert json.load(answer)["status"] == "ready"
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert server.stderr.read() == ""
    assert (len(found["items"]), found["unknown"], found["answered_by"]) == (3, 1, "model")
    port = address.split(":")[2].split("/")[0]
    (line,) = (served.place.home / "serving" / "tiny" / f"{port}.jsonl").read_text().splitlines()
    assert (json.loads(line)["k"], json.loads(line)["length"]) == (3, 2)
    assert "B001" not in line


def test_a_taken_port_is_told_before_anything_is_loaded(served: Served) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = served.place.run("serve", "--domain", "tiny", "--port", str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"slmrec: Port {port} of 127.0.0.1 can't be had (Address already in use): "
        f"choose another, as in make serve PORT={port + 1}.\n"
    )


def test_without_a_champion_it_says_how_there_will_be_one(served: Served) -> None:
    remove_alias(served.first, "champion")
    done = served.place.run("serve", "--domain", "tiny", "--port", "0")
    assert done.returncode == 2
    assert done.stderr == ("slmrec: tiny has no champion to serve: make promote DOMAIN=tiny REASON=… makes one.\n")


def test_torch_is_imported_after_it_is_told_to_take_one_thread(served: Served) -> None:
    """A module in the place of the server's says what it finds."""
    script = """
import sys, types
server = types.ModuleType("orchestration.serving.server")
server.serve = lambda *_: __import__("torch").get_num_threads() + 40
sys.modules[server.__name__] = server
from orchestration.__main__ import main
assert "torch" not in sys.modules
print(main(["serve", "--domain", "tiny"]))
"""
    unset = {name: value for name, value in served.place.environment.items() if name != "OMP_NUM_THREADS"}
    places = [replace(served.place, environment={**unset, **told}) for told in ({}, {"OMP_NUM_THREADS": "2"})]
    found = [place.python("-c", script).stdout for place in places]
    assert found == ["41\n", "42\n"]


def test_a_champion_that_cannot_be_loaded_names_the_way_back(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLMREC_DOMAINS", served.place.environment["SLMREC_DOMAINS"])
    monkeypatch.setattr("orchestration.serving.model.download", lambda version: tmp_path)
    words = (
        f"The champion of tiny, version {served.first.version} of slmrec-tiny-student, can't be loaded .*make rollback"
    )
    with pytest.raises(ValueError, match=words):
        serve("tiny", "127.0.0.1", 0)
