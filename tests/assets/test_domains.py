"""Domains: shipped and the user's own."""

from pathlib import Path

import pytest

from assets.domains import VARIABLE, find_domain, load_domains


def own(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    path = folder / "mine.yaml"
    path.write_text(text)
    monkeypatch.setenv(VARIABLE, str(path))


def test_the_shipped_domains() -> None:
    domains = load_domains()
    assert list(domains) == ["sample", "cloth", "movie", "music", "sport"]
    assert [name for name, domain in domains.items() if domain.synthetic] == ["sample"]
    paper = domains["cloth"].filters
    assert (paper.minimum_rating, paper.minimum_user_interactions, paper.minimum_item_interactions) == (3, 5, 20)


def test_paths_are_relative_to_the_yaml_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own(monkeypatch, tmp_path, "beauty: {title: B, source: {kind: local, reviews: data/b.json.gz, metadata: /m.gz}}")
    source = find_domain("beauty").source
    assert source.kind == "local"
    assert (source.reviews, source.metadata) == (tmp_path / "data/b.json.gz", Path("/m.gz"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beauty: {title: B, source: {kind: ftp}}", r"mine\.yaml, domain 'beauty'.*source.*ftp"),
        ("beauty: {title: B, source: {kind: local, reviews: a}, filter: {}}", "filter"),
        ("beauty: {title: B, source: {kind: local, reviews: a}, filters: {minimum_rating: 9}}", "minimum_rating"),
        ("Beauty!: {title: B, source: {kind: local, reviews: a}}", "name"),
        ("sample: {title: B, source: {kind: local, reviews: a}}", "name of a shipped domain"),
        ("- beauty", "must map a domain's name"),
        ("beauty: [", "can't be read as a YAML file"),
    ],
)
def test_a_bad_domain_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str) -> None:
    own(monkeypatch, tmp_path, text)
    with pytest.raises(ValueError, match=message):
        load_domains()


def test_an_unknown_domain_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no domain 'garden'.*sample, cloth, movie, music, sport"):
        find_domain("garden")


def test_a_missing_file_of_domains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.yaml"))
    with pytest.raises(ValueError, match="no such file"):
        load_domains()
