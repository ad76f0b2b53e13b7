"""The champion's lists for today's users, against scoring each user alone with the checkpoint; real tiny students."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import polars as pl
import pytest

from assets.amazon.interactions import Interactions
from assets.recommendations import audience_of, recommendations
from assets.registry.champion import load_source
from assets.registry.store import connect
from assets.registry.versions import set_alias
from assets.workspace import home
from assets.workspace.recommended import ITEMS, Recommendations
from models.files import load_recommender
from models.sequences import Sequences
from tests.assets.registry.tiny import metadata_of, registered, value_of, wired

if TYPE_CHECKING:
    from assets.workspace.checkpoints import Checkpoint, RegisteredVersion
    from tests.assets.conftest import Chain
    from tests.assets.registry.tiny import Wired

pytestmark = pytest.mark.usefixtures("tracked_home")

K = 4
KNOWN = [f"B{item:03}" for item in range(15)]
"""The catalogue that the students were trained on; today three of these items are gone, and two are new."""
TODAYS = ["A-new", *reversed(KNOWN[:12]), "Z-new"]


def todays() -> dict[str, list[str]]:
    """Today's histories by user; one user has bought new items alone, another nearly everything."""
    rng = np.random.default_rng(3)
    drawn = {f"R{user:02}": rng.choice(TODAYS, size=rng.integers(1, 8), replace=False).tolist() for user in range(20)}
    return {"newcomer": ["Z-new", "A-new"], **drawn, "collector": [*KNOWN[:12], "A-new"]}


def interactions_of(histories: Mapping[str, list[str]]) -> Interactions:
    """Numbered as today's data number them; times rise along a history."""
    number = {raw: item for item, raw in enumerate(TODAYS, start=1)}
    rows = [
        (user, number[raw], 5.0, 1000 + place)
        for user, raws in enumerate(histories.values())
        for place, raw in enumerate(raws)
    ]
    types = {"user_id": pl.UInt32, "item_id": pl.UInt32, "rating": pl.Float32, "timestamp": pl.Int64}
    return Interactions(
        interactions=pl.DataFrame(rows, schema=types, orient="row"),
        users=pl.DataFrame(
            {"user_id": range(len(histories)), "reviewer_id": list(histories)}, schema_overrides={"user_id": pl.UInt32}
        ),
        items=pl.DataFrame(
            {"item_id": range(1, len(TODAYS) + 1), "asin": TODAYS}, schema_overrides={"item_id": pl.UInt32}
        ),
        lines=len(rows),
        quarantined={},
        steps=(),
    )


def by_hand(
    checkpoint: "Checkpoint", purchases: np.ndarray, histories: Mapping[str, list[str]]
) -> dict[str, list[tuple[str, float]]]:
    """Each user's list: scored alone, sorted by Python."""
    recommender: Any = load_recommender(checkpoint.directory).for_inference()
    found = {}
    for user, raws in histories.items():
        seen = [KNOWN.index(raw) for raw in raws if raw in KNOWN]
        if seen:
            scores = recommender.score(Sequences.from_lists([[item + 1 for item in seen]]))[0, 1:].tolist()
        else:
            scores = purchases.tolist()
        unseen = [item for item in range(len(KNOWN)) if item not in seen]
        best = sorted(unseen, key=lambda item: (-scores[item], item))[:K]
        found[user] = [(KNOWN[item], scores[item]) for item in best]
    return found


class Place:
    """The asset on a domain of its own, and the chain's students registered there."""

    def __init__(self, chain: "Chain", name: str, folder: Path) -> None:
        self.chain, self.folder = chain, folder
        self.wired: Wired = wired(folder, name, chain.wired.dataset)

    def version(self, recommender: str, domain: str | None = None) -> "RegisteredVersion":
        checkpoint = self.chain.checkpoints[recommender].model_copy(update={"domain": domain or self.wired.domain})
        return registered(checkpoint, self.chain.wired.dataset)

    def expected(self, recommender: str, histories: Mapping[str, list[str]]) -> dict[str, list[tuple[str, float]]]:
        purchases = self.chain.wired.dataset.purchases()[1:]
        return by_hand(self.chain.checkpoints[recommender], purchases, histories)

    def run(self, histories: Mapping[str, list[str]] | None = None, k: int = K) -> Any:
        return self.wired.materialise(
            recommendations,
            given={"interactions": interactions_of(histories or todays())},
            config={"domains": {"overrides": {"recommended_items": k}}},
        )


@pytest.fixture
def place(chain: "Chain", request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(chain, f"of_{crc32(request.node.name.encode())}", tmp_path)


def in_table(made: Recommendations) -> dict[str, list[tuple[str, float]]]:
    rows = made.table().collect()
    assert rows.columns == ["user_id", "rank", "item_id", "score", "answered_by", "model_version"]
    found: dict[str, list[tuple[str, float]]] = {}
    for user, rank, item, score in rows.select("user_id", "rank", "item_id", "score").iter_rows():
        found.setdefault(user, []).append((item, score))
        assert rank == len(found[user])
    return found


def agree(one: dict[str, list[tuple[str, float]]], other: dict[str, list[tuple[str, float]]]) -> bool:
    items = [{user: [item for item, _ in best] for user, best in lists.items()} for lists in (one, other)]
    if items[0] != items[1]:
        return False
    pairs = [(a, b) for user in one for (_, a), (_, b) in zip(one[user], other[user], strict=True)]
    return bool(np.allclose(*np.array(pairs).T, atol=1e-5))


def test_every_user_gets_the_champions_best_unseen_items_by_raw_ids(place: Place) -> None:
    """Controls: the challenger's lists, those by histories without their last item, and those with seen items."""
    champion, challenger = place.version("student"), place.version("narrow_student")
    set_alias(champion, "champion")
    set_alias(challenger, "challenger")
    set_alias(place.version("narrow_student", "elsewhere"), "champion")
    histories = todays()
    result = place.run()
    made = value_of(result, "recommendations")
    lists = in_table(made)
    assert list(lists) == list(histories)
    assert agree(lists, place.expected("student", histories))
    assert not agree(lists, place.expected("narrow_student", histories))
    cut = {user: raws[:-1] or raws for user, raws in histories.items()}
    assert not agree(lists, place.expected("student", cut))
    assert all(item not in histories[user] for user, best in lists.items() for item, _ in best)
    assert len(lists["collector"]) == 3  # of the fifteen that the champion knows, twelve are bought
    rows = made.table().collect()
    assert rows["model_version"].unique().to_list() == [f"{champion.name}/{champion.version}"]
    by = dict(rows.group_by("answered_by").agg(pl.col("user_id").unique()).iter_rows())
    assert by["popularity"] == ["newcomer"]
    assert sorted(by["model"]) == sorted(user for user in histories if user != "newcomer")


def test_the_page_tells_what_was_ignored_and_where_the_lists_lie(place: Place) -> None:
    champion = place.version("student")
    set_alias(champion, "champion")
    histories = todays()
    result = place.run()
    made, shown = value_of(result, "recommendations"), metadata_of(result, "recommendations")
    bought = [raw for raws in histories.values() for raw in raws]
    counts = {row.data["what"]: row.data["count"] for row in shown["counts"].records}
    assert list(counts.values()) == [22, 1, K, len(bought), sum(raw not in KNOWN for raw in bought), 2]
    assert made.ignored == sum("new" in raw for raw in bought) > 0
    assert shown["model"].partition("?")[0].endswith(f"/models/{champion.name}/versions/{champion.version}")
    assert shown["lists"] == str(made.directory / "users")
    assert shown["item_vectors"] == str(made.directory / ITEMS)
    assert shown["dagster/row_count"] == made.table().collect().height == made.rows
    first = shown["preview"].records[0].data
    assert (first["user_id"], first["rank"], first["answered_by"]) == ("newcomer", 1, "popularity")


@pytest.mark.parametrize("recommender", ["student", "narrow_student"])
def test_an_items_vector_times_a_users_gives_the_score_in_the_list(place: Place, recommender: str) -> None:
    version = place.version(recommender)
    set_alias(version, "champion")
    made = value_of(place.run(), "recommendations")
    vectors = pl.read_parquet(made.directory / ITEMS)
    assert vectors["item_id"].to_list() == KNOWN
    assert vectors.schema["vector"] == pl.List(pl.Float32)
    served: Any = load_source(version).recommender
    known = {user: [KNOWN.index(raw) + 1 for raw in raws if raw in KNOWN] for user, raws in todays().items()}
    rows = made.table().filter(pl.col("answered_by") == "model").collect().join(vectors, on="item_id")
    assert rows.height > 50
    for user, score, vector in rows.select("user_id", "score", "vector").iter_rows():
        (user_D,) = served.represent(Sequences.from_lists([known[user]])).numpy()
        assert float(user_D @ np.array(vector, dtype=np.float32)) == pytest.approx(score, abs=1e-5)


def test_without_a_champion_nothing_is_made_and_it_says_how_to_make_one(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    set_alias(place.version("student"), "challenger")
    set_alias(place.version("student", "elsewhere"), "champion")
    result = place.run()
    assert result.success
    assert result.asset_materializations_for_node("recommendations") == []
    told = capfd.readouterr().err
    assert f"Domain '{place.wired.domain}' has no champion" in told
    assert f"make promote DOMAIN={place.wired.domain} REASON=…" in told


def another_champion(place: Place) -> dict[str, Any]:
    """Of the domain's two models one reigns."""
    client = connect(home.mlflow_uri())
    client.delete_registered_model_alias(place.version("student").name, "champion")
    set_alias(place.version("narrow_student"), "champion")
    return {}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda _: {}, False),
        (lambda _: {"histories": {**todays(), "R03": ["B001"]}}, True),
        (lambda _: {"k": K - 1}, True),
        (another_champion, True),
    ],
    ids=["nothing", "histories", "k", "champion"],
)
def test_lists_are_made_again_only_where_something_has_changed(
    place: Place, change: Callable[[Place], dict[str, Any]], *, again: bool
) -> None:
    set_alias(place.version("student"), "champion")
    first = value_of(place.run(), "recommendations")
    second = value_of(place.run(**change(place)), "recommendations")
    assert (second != first) is again


def test_the_whole_history_is_read_in_time_order_with_the_users_raw_ids() -> None:
    histories = todays()
    people = audience_of(interactions_of(histories))
    assert people.user_ids.to_list() == list(histories)
    rows = np.split(people.histories.values, people.histories.offsets[1:-1])
    assert [[people.item_ids[item - 1] for item in row] for row in rows] == list(histories.values())
