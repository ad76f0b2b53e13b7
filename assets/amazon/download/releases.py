"""The Amazon review corpora of 2014, 2018 and 2023: the categories of each and where their files lie.

Data only: how a file is fetched is `downloads.py`'s subject, what its fields are called `formats.py`'s. Names and
addresses are those of the corpora's own pages:

- 2014: https://jmcauley.ucsd.edu/data/amazon/index_2014.html (McAuley et al., SIGIR 2015; He and McAuley, WWW 2016)
- 2018: https://nijianmo.github.io/amazon (Ni, Li and McAuley, EMNLP 2019)
- 2023: https://amazon-reviews-2023.github.io (Hou et al., arXiv 2403.03952)

The files of 2014 and 2018 are the 5-core reviews and all of the category's metadata. Those of 2023 are all reviews:
there is no 5-core with text, so the domain's own filters make one.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data"
_FORMER_LAB = "https://jmcauley.ucsd.edu/data"
_REPOSITORY = "https://datarepo.eng.ucsd.edu/mcauley_group/data"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_HUB = "https://huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023/resolve/main/raw"


@dataclass(frozen=True)
class Release:
    """One corpus: its categories, and the addresses of their files with `{}` for the category, best first."""

    categories: tuple[str, ...]
    reviews: tuple[str, ...]
    metadata: tuple[str, ...]


RELEASES = {
    2014: Release(
        categories=(
            *("Amazon_Instant_Video", "Apps_for_Android", "Automotive", "Baby", "Beauty", "Books", "CDs_and_Vinyl"),
            *("Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics"),
            *("Grocery_and_Gourmet_Food", "Health_and_Personal_Care", "Home_and_Kitchen", "Kindle_Store"),
            *("Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies"),
            *("Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games", "Video_Games"),
        ),
        reviews=(f"{_SNAP}/reviews_{{}}_5.json.gz", f"{_LAB}/amazon/categoryFiles/reviews_{{}}_5.json.gz"),
        metadata=(f"{_SNAP}/meta_{{}}.json.gz", f"{_LAB}/amazon/categoryFiles/meta_{{}}.json.gz"),
    ),
    2018: Release(
        categories=(
            *("AMAZON_FASHION", "All_Beauty", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Books"),
            *("CDs_and_Vinyl", "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music"),
            *("Electronics", "Gift_Cards", "Grocery_and_Gourmet_Food", "Home_and_Kitchen"),
            *("Industrial_and_Scientific", "Kindle_Store", "Luxury_Beauty", "Magazine_Subscriptions"),
            *("Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies"),
            *("Prime_Pantry", "Software", "Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games"),
            "Video_Games",
        ),
        reviews=tuple(
            f"{host}/amazon_v2/categoryFilesSmall/{{}}_5.json.gz" for host in (_LAB, _FORMER_LAB, _REPOSITORY)
        ),
        metadata=tuple(f"{host}/amazon_v2/metaFiles2/meta_{{}}.json.gz" for host in (_LAB, _FORMER_LAB, _REPOSITORY)),
    ),
    2023: Release(
        categories=(
            *("All_Beauty", "Amazon_Fashion", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Baby_Products"),
            *("Beauty_and_Personal_Care", "Books", "CDs_and_Vinyl", "Cell_Phones_and_Accessories"),
            *("Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics", "Gift_Cards", "Grocery_and_Gourmet_Food"),
            *("Handmade_Products", "Health_and_Household", "Health_and_Personal_Care", "Home_and_Kitchen"),
            *("Industrial_and_Scientific", "Kindle_Store", "Magazine_Subscriptions", "Movies_and_TV"),
            *("Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies", "Software"),
            *("Sports_and_Outdoors", "Subscription_Boxes", "Tools_and_Home_Improvement", "Toys_and_Games"),
            *("Video_Games", "Unknown"),
        ),
        reviews=(
            f"{_LAB}/amazon_2023/raw/review_categories/{{}}.jsonl.gz",
            f"{_REPOSITORY}/amazon_2023/raw/review_categories/{{}}.jsonl.gz",
            f"{_HUB}/review_categories/{{}}.jsonl",
        ),
        metadata=(
            f"{_LAB}/amazon_2023/raw/meta_categories/meta_{{}}.jsonl.gz",
            f"{_REPOSITORY}/amazon_2023/raw/meta_categories/meta_{{}}.jsonl.gz",
            f"{_HUB}/meta_categories/meta_{{}}.jsonl",
        ),
    ),
}


def mirrors(release: int, category: str) -> tuple[list[str], list[str]]:
    """The addresses of a category's reviews and of its metadata, in the order to try them.

    Raises:
        ValueError: the release has no such category; names the closest ones and all there are.
    """
    found = RELEASES[release]
    if category not in found.categories:
        names = {name.lower(): name for name in found.categories}
        close = [names[name] for name in difflib.get_close_matches(category.strip().lower().replace(" ", "_"), names)]
        hint = f" Is it {' or '.join(close)}?" if close else ""
        raise ValueError(f"Amazon-{release} has no category {category!r}.{hint} It has: {', '.join(found.categories)}.")
    return [url.format(category) for url in found.reviews], [url.format(category) for url in found.metadata]
