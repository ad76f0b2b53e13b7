"""What the README tells people to do works as it is written there."""

import re
import subprocess
from pathlib import Path

import polars as pl
import pytest

from assets.configuration.domains import VARIABLE, find_domain
from tests.orchestration.workplace import ROOT, Workplace

README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no {language} block"
    return found.group(1)


def test_every_make_target_that_it_names_is_listed_by_make() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^  make (\w+)", listed, re.MULTILINE))
    assert targets == {"help", "setup", "demo", "run", "studies", "synth", "ui", "test", "bench", "check", "clean"}
    named = set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE))
    assert {"demo", "test", "ui", "run"} <= named <= targets


def test_its_domain_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "my_domains.yaml"
    path.write_text(block("yaml"))
    monkeypatch.setenv(VARIABLE, str(path))
    source = find_domain("beauty").source
    assert source.kind == "local"
    assert source.reviews == tmp_path / "data/Beauty_5.json.gz"


def test_its_python_serves_the_challenger(finished: Workplace) -> None:
    """With the tests' domain and home in place of the demo's; its item ids become some of that domain's."""
    code = block("python").replace("sample", "tiny").replace(".slmrec", str(finished.home))
    asins = pl.read_parquet(finished.home / "tables/items/tiny.parquet")["asin"].to_list()
    for number, raw_id in enumerate(dict.fromkeys(re.findall(r"B0\w{8}", code))):
        code = code.replace(raw_id, asins[number])
    done = finished.python("-c", code + "\nassert len(answer['item_ids'][0]) == len(answer['scores'][0]) == 5\n")
    assert done.returncode == 0, done.stderr


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
