"""The command that writes synthetic reviews: what it leaves, and that its last words are a domain."""

from pathlib import Path

import pytest

from assets.amazon.synthetic import Truth, write_synthetic
from assets.configuration.domains import find_domain, load_domains
from orchestration.__main__ import main


def synth(folder: Path, users: int = 60, items: int = 20) -> int:
    return main(["synth", "--users", str(users), "--items", str(items), "--out", str(folder), "--seed", "4"])


def test_it_writes_what_the_generator_writes_and_tells_how_to_use_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "not there: yet" / 'and "quoted"'
    assert synth(folder) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["metadata.json.gz", "reviews.json.gz", "truth.json"]
    write_synthetic(tmp_path / "reviews.json.gz", tmp_path / "metadata.json.gz", users=60, items=20, seed=4)
    for name in ("reviews.json.gz", "metadata.json.gz"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    told = capsys.readouterr()
    assert told.err == ""  # no bar, since nobody watches
    truth = Truth.model_validate_json((folder / "truth.json").read_text())
    assert told.out.startswith(f"{truth.lines:,} lines of 60 users on 20 items: {truth.reviews:,} reviews and 0 bad")
    domains = tmp_path / "domains.yaml"
    domains.write_text(told.out.partition("\n\n")[2])
    source = find_domain(load_domains([domains]), "synthetic_60_20_4").source
    assert (source.kind, source.reviews) == ("local", folder / "reviews.json.gz")
    assert source.metadata == folder / "metadata.json.gz"


def test_it_writes_over_its_own_files_and_over_no_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reviews = tmp_path / "reviews.json.gz"
    reviews.write_text("downloaded by hand")
    assert synth(tmp_path) == 2
    assert "give another folder" in capsys.readouterr().err
    assert reviews.read_text() == "downloaded by hand"
    reviews.unlink()
    assert synth(tmp_path) == synth(tmp_path) == 0


def test_an_impossible_size_is_refused_and_nothing_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert synth(tmp_path / "out", users=60, items=61) == 2
    assert capsys.readouterr().err.startswith("slmrec: items=61 is too many")
    assert not (tmp_path / "out").exists()
