"""Domains: shipped and the user's own, and what is laid over them."""

import datetime as dt
from pathlib import Path

import pytest

from assets.configuration.domains import Domain, find_domain, load_domains
from orchestration.definitions import DOMAINS


def own(folder: Path, text: str) -> dict[str, Domain]:
    """The shipped domains and those of a file with this text."""
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_domains([DOMAINS, path])


def test_the_shipped_domains() -> None:
    domains = load_domains([DOMAINS])
    assert list(domains) == ["sample", "cloth", "movie", "music", "sport"]
    assert [name for name, domain in domains.items() if domain.synthetic] == ["sample"]
    paper = domains["cloth"].filters
    assert (paper.minimum_rating, paper.minimum_user_interactions, paper.minimum_item_interactions) == (3, 5, 20)


def test_paths_are_relative_to_the_yaml_file(tmp_path: Path) -> None:
    source = own(tmp_path, "beauty: {title: B, source: {kind: local, reviews: data/b.json.gz, metadata: /m.gz}}")[
        "beauty"
    ].source
    assert source.kind == "local"
    assert (source.reviews, source.metadata) == (tmp_path / "data/b.json.gz", Path("/m.gz"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "beauty: {title: B, source: {kind: ftp}}",
            r"mine\.yaml, domain 'beauty': source: it needs a `kind`, one of synthetic, local, https, amazon; 'ftp' is",
        ),
        (
            "beauty: {title: B, source: {reviews: a}}",
            "source: it needs a `kind`, one of synthetic, local, https, amazon$",
        ),
        ("beauty: {title: B, source: a.json}", r"source: write it as \{kind: …\}, one of .* \(given: 'a.json'\)"),
        ("beauty: {title: B}", "source: it is missing"),
        (
            "beauty: {title: B, SOURCE, split: leave_one_out}",
            r"split: write it as \{kind: leave_one_out\}, one of leave_one_out, temporal",
        ),
        (
            "beauty: {title: B, SOURCE, split: {kind: leave_one_out, test_share: 0.1}}",
            "split.test_share: there is no such setting here; there are kind, short_users$",
        ),
        (
            "beauty: {title: B, SOURCE, split: {kind: temporal, validation_share: 0.6, test_share: 0.6}}",
            "split: validation_share .* must add up to less than 1.$",
        ),
        (
            "beauty: {title: B, SOURCE, filter: {}}",
            "filter: there is no such setting here; there are title, source, .*, filters, split, drift, .*retrain$",
        ),
        (
            "beauty: {title: B, SOURCE, filters: }",
            "filters: it needs settings below it, such as minimum_rating, or leave",
        ),
        (
            "beauty: {title: B, SOURCE, filters: {minimum_rating: 9}}",
            r"filters.minimum_rating: it must be less than or equal to 5 \(given: 9\)",
        ),
        (
            "beauty: {title: B, SOURCE, filters: {minimum_user_interactions: true}}",
            r"filters.minimum_user_interactions: it must be a valid integer \(given: True\)",
        ),
        ("beauty: {title: B, SOURCE, retrain: weekly}", r"retrain: it must be a valid boolean \(given: 'weekly'\)"),
        ("beauty: {title: B, SOURCE, maximum_bad_share: true}", "maximum_bad_share: it must be a valid number"),
        (
            "beauty: {title: B, SOURCE, drift: {new_users: 20}}",
            "drift.new_users: it must be less than or equal to 1",
        ),
        ("beauty: {title: B, SOURCE, drift: {score_psi: 0}}", "drift.score_psi: it must be greater than 0"),
        (
            "beauty: {title: B, SOURCE, drift: {psi: 0.1}}",
            "drift.psi: there is no such setting here; there are it",
        ),
        (
            "beauty: {title: B, SOURCE, filters: {as_of: 2018-13-01}}",
            r"mine\.yaml, domain 'beauty': filters.as_of: .* written as 2018-09-26 \(given: '2018-13-01'\)",
        ),
        ("beauty: {title: B, SOURCE, filters: {as_of: 20180926}}", "filters.as_of: it must be a day"),
        ("beauty: {name: b, title: B, SOURCE}", "domain 'beauty': remove `name`"),
        ("beauty: {1: b, title: B, SOURCE}", "1: there is no such setting here"),
        ("my-data: {title: B, SOURCE}", "domain 'my-data': name: a domain's name has small letters"),
        ("Beauty: {title: B, SOURCE}", "domain 'Beauty': name: a domain's name has small letters"),
        ("2014: {title: B, SOURCE}", "domain 2014: name: a domain's name has small letters"),
        (
            "a: {title: A, SOURCE}\nb: {title: B, SOURCE}\na: {title: C, SOURCE}",
            "`a` is written twice, in lines 1 and 3",
        ),
        (
            "a: {title: A, SOURCE, filters: {minimum_rating: 3, core: once, minimum_rating: 5}}",
            r"mine\.yaml .*`minimum_rating` is written twice, in line 1: keep one",
        ),
        ("sample: {title: B, source: {kind: local, reviews: a}}", "name of another domain"),
        ("- beauty", "must map a domain's name"),
        ("beauty: [", "can't be read as a YAML file"),
    ],
)
def test_a_bad_domain_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        own(tmp_path, text.replace("SOURCE", "source: {kind: local, reviews: a}"))
    assert str(tmp_path / "mine.yaml") in str(caught.value)


def test_a_day_may_be_written_plainly_or_as_text(tmp_path: Path) -> None:
    for day in ("2018-09-26", "'2018-09-26'"):
        text = f"a: {{title: 2018-01-01, source: {{kind: local, reviews: a}}, filters: {{as_of: {day}}}}}"
        domain = own(tmp_path, text)["a"]
        assert (domain.filters.as_of, domain.title) == (dt.date(2018, 9, 26), "2018-01-01")


def test_an_anchor_may_be_taken_up_and_added_to(tmp_path: Path) -> None:
    """What is merged in and then written anew is not written twice."""
    first = "a: &a {title: A, source: {kind: local, reviews: a}, filters: {core: once}}"
    domains = own(tmp_path, f"{first}\nb: {{<<: *a, title: B}}\nc: {{<<: *a, title: C}}")
    assert [(domains[name].title, domains[name].filters.core) for name in "bc"] == [("B", "once"), ("C", "once")]


def test_an_unknown_domain_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no domain 'garden'.*sample, cloth, movie, music, sport"):
        find_domain(load_domains([DOMAINS]), "garden")


def test_overrides_are_laid_over_and_checked() -> None:
    domains = load_domains([DOMAINS])
    changed = find_domain(domains, "sample", {"filters": {"as_of": "2018-09-26"}})
    assert changed.filters.as_of == dt.date(2018, 9, 26)
    assert changed.filters.minimum_rating == domains["sample"].filters.minimum_rating
    assert changed.source == domains["sample"].source
    with pytest.raises(ValueError, match=r"overrides of domain 'sample': filters\.minimum_rating: .*less than"):
        find_domain(domains, "sample", {"filters": {"minimum_rating": 9}})


def test_a_missing_file_of_domains(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file of domains"):
        load_domains([DOMAINS, tmp_path / "none.yaml"])
