"""Where a domain's raw files come from: made here, a local path, an https address with mirrors, or an Amazon release.

Settings only. How a source's files are fetched is `fetching.py`'s subject, where Amazon's lie that of `releases.py`,
which addresses are asked that of `addresses.py`.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, PlainSerializer, model_validator

from assets.amazon.download import releases
from assets.amazon.download.addresses import check_url, shown

MaximumBytes = Annotated[
    int | None,
    Field(
        gt=0, strict=True, description="most bytes of a file, packed or not; none: 64 GiB, 100 times its size (ours)"
    ),
]


class SyntheticSource(BaseModel, extra="forbid", frozen=True):
    """Reviews made by `synthetic/`: no network, and no real person or product in them."""

    kind: Literal["synthetic"] = "synthetic"
    users: int = Field(ge=50, description="reviewers before any filter")
    items: int = Field(ge=20, description="products before any filter")
    seed: int = Field(ge=0, strict=True)

    @model_validator(mode="after")
    def _enough_reviews(self) -> Self:
        if self.items > self.users:
            raise ValueError(
                f"items={self.items} is more than users={self.users}: a user writes about ten reviews, so most items "
                "would have too few to pass a 5-core. Ask for at most as many items as users."
            )
        return self


class LocalSource(BaseModel, extra="forbid", frozen=True):
    """Files on this machine, used where they lie and never changed."""

    kind: Literal["local"] = "local"
    reviews: Path
    metadata: Path | None = Field(None, description="none: the domain has no titles, brands or descriptions")
    synthetic: bool = Field(False, description="made by `synth`: every number of it is called synthetic")
    maximum_bytes: MaximumBytes = None


Address = Annotated[str, AfterValidator(check_url), PlainSerializer(shown, when_used="json")]
"""As JSON it is written down without its keys."""

Mirrors = Annotated[list[Address], Field(min_length=1)]


class HttpsSource(BaseModel, extra="forbid", frozen=True):
    """Files to download: for each the addresses of the same bytes, tried in the order given."""

    kind: Literal["https"] = "https"
    reviews: Mirrors
    metadata: Mirrors | None = None
    maximum_bytes: MaximumBytes = None


class AmazonSource(BaseModel, extra="forbid", frozen=True):
    """One category of an Amazon release, by name; `releases.py` knows the addresses."""

    kind: Literal["amazon"] = "amazon"
    release: Literal[2014, 2018, 2023]
    category: str = Field(description="as the release's own page names it, such as Movies_and_TV")
    metadata: bool = Field(True, description="false: leave out titles, brands and descriptions")
    maximum_bytes: MaximumBytes = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        releases.mirrors(self.release, self.category)
        return self

    def addresses(self) -> HttpsSource:
        """The same source with its addresses written out."""
        reviews, metadata = releases.mirrors(self.release, self.category)
        return HttpsSource(
            reviews=reviews, metadata=metadata if self.metadata else None, maximum_bytes=self.maximum_bytes
        )


Source = Annotated[SyntheticSource | LocalSource | HttpsSource | AmazonSource, Field(discriminator="kind")]
