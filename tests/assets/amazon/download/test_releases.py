import re

import pytest
from pydantic import ValidationError

from assets.amazon.download.releases import RELEASES, mirrors
from assets.amazon.download.sources import AmazonSource, check_url
from assets.configuration.domains import load_domains
from orchestration.definitions import DOMAINS


@pytest.mark.parametrize(("release", "count"), [(2014, 24), (2018, 29), (2023, 34)])
def test_every_category_has_its_addresses(release: int, count: int) -> None:
    """24 and 29 are the 5-core files of the releases' pages; 33 categories and `Unknown` make 34."""
    categories = RELEASES[release].categories
    assert len(set(categories)) == len(categories) == count
    for category in categories:
        for part in mirrors(release, category):
            assert len(set(part)) == len(part) > 1
            for url in part:
                check_url(url)
                assert re.search(rf"/(reviews_|meta_)?{category}(_5)?\.jsonl?(\.gz)?$", url)


def test_the_addresses_of_the_paper() -> None:
    """PAPER: section 2's hosts and paths."""
    reviews, metadata = mirrors(2018, "CDs_and_Vinyl")
    assert reviews[:2] == [
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/CDs_and_Vinyl_5.json.gz",
        "https://jmcauley.ucsd.edu/data/amazon_v2/categoryFilesSmall/CDs_and_Vinyl_5.json.gz",
    ]
    assert metadata[0] == (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/metaFiles2/meta_CDs_and_Vinyl.json.gz"
    )


def test_the_papers_domains() -> None:
    sources = {name: domain.source for name, domain in load_domains([DOMAINS]).items() if not domain.synthetic}
    assert sources == {
        "cloth": AmazonSource(release=2018, category="Clothing_Shoes_and_Jewelry"),
        "movie": AmazonSource(release=2018, category="Movies_and_TV"),
        "music": AmazonSource(release=2018, category="CDs_and_Vinyl"),
        "sport": AmazonSource(release=2018, category="Sports_and_Outdoors"),
    }


@pytest.mark.parametrize(
    ("release", "given", "meant"),
    [
        (2018, "movies and tv", "Movies_and_TV"),
        (2014, "Toys_and_Gams", "Toys_and_Games"),
        (2018, "Beauty", "All_Beauty"),
    ],
)
def test_a_wrong_name_is_answered_with_those_there_are(release: int, given: str, meant: str) -> None:
    with pytest.raises(ValidationError, match=f"Amazon-{release} has no category '{given}'") as refusal:
        AmazonSource(release=release, category=given)
    message = str(refusal.value)
    assert meant in message.partition("Is it ")[2].partition("?")[0]
    assert all(name in message.partition("It has: ")[2] for name in RELEASES[release].categories)


def test_a_name_like_no_other() -> None:
    with pytest.raises(ValueError, match=r"no category 'xyz'\. It has: All_Beauty, "):
        mirrors(2023, "xyz")
