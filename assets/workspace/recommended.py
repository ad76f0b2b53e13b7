"""The lists of recommended items on disk: made part by part, kept whole, and replaced all at once.

Belongs here: what a list's row says, the parts that a killed run leaves to the next, the items' vectors beside the
lists. Not here: which version recommends, and to whom (`assets/recommendations.py`); how users are scored
(`evaluation/best_items.py`).

    recommendations/<domain>/users/part-00000.parquet ...   the lists, a range of users a file
    recommendations/<domain>/items.parquet                  the items' vectors
    recommendations/<domain>/facts.json                     what they were made from, and the files' digests
    recommending/<domain>/<identity>/                       parts of lists that are not finished
"""

import datetime as dt
import hashlib
import io
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.evaluations import vocabulary_of
from assets.workspace.identity import code_hash
from evaluation.provenance import short_hash
from models.files import file_digest, staged_directory, write_file, write_json
from models.sequences import Sequences

if TYPE_CHECKING:
    from models.recommender import Recommender

USERS_A_PART = 8192
"""What a killed run loses at most: seconds of work, and few enough for their lists to be held in memory (ours)."""

LISTS, ITEMS, FACTS = "users", "items.parquet", "facts.json"
SECONDS_BETWEEN_LINES = 10.0

logger = logging.getLogger("slmrec.recommendations")


@dataclass(frozen=True)
class Source:
    """A registered version, loaded.

    Attributes:
        version: in the registry.
        identity: of its checkpoint.
        recommender: scores every item; ready for inference.
        item_ids: raw ids of its items 1 to W.
        purchases: how often each of them was bought in its training data, in the same order.
    """

    version: RegisteredVersion
    identity: str
    recommender: "Recommender"
    item_ids: list[str]
    purchases: np.ndarray


@dataclass(frozen=True)
class Audience:
    """To whom items are recommended, and all that is known of them.

    Attributes:
        user_ids: str [B], raw.
        item_ids: raw ids of the items 1 to V of the histories.
        histories: B rows in time order.
    """

    user_ids: pl.Series
    item_ids: list[str]
    histories: Sequences

    def version(self) -> str:
        """16 hexadecimal digits that stand for these users, items and histories."""
        digest = hashlib.sha256(f"{len(self.user_ids)} {len(self.item_ids)}".encode())
        for ids in (*self.user_ids.to_frame().iter_slices(USERS_A_PART), pl.DataFrame({"": self.item_ids})):
            digest.update("\0".join([*ids.to_series(), ""]).encode())
        for array in (self.histories.offsets, self.histories.values):
            digest.update(np.ascontiguousarray(array, dtype="<i8").data)
        return digest.hexdigest()[:16]


class Recommendations(BaseModel):
    """Finished lists of a domain: what they are of, and what they are made from.

    Attributes:
        identity: of version, data, k and code.
        model: whose lists they are.
        data: `Audience.version`.
        by_popularity: users of whose history the model knows nothing: they got what was bought most.
        rows: of all lists.
        interactions: of all histories.
        ignored: interactions with items that the model doesn't know.
        unknown_items: how many items these are.
        vectors: whether there are vectors of the items; a model that is no dot product has none.
        made: when (UTC).
        sha256: of the files by name.
    """

    model_config = ConfigDict(frozen=True)

    domain: str
    identity: str
    model: RegisteredVersion
    data: str
    k: int
    users: int
    by_popularity: int
    rows: int
    interactions: int
    ignored: int
    unknown_items: int
    vectors: bool
    made: dt.datetime
    sha256: dict[str, str]

    @property
    def directory(self) -> Path:
        """Where they lie."""
        return home.recommendations_directory(self.domain)

    def table(self) -> pl.LazyFrame:
        """`user_id`, `rank` u16 from 1, `item_id`, `score` f32, `answered_by`, `model_version`; by user, then rank."""
        return pl.scan_parquet(sorted((self.directory / LISTS).glob("*.parquet")))


def read_recommendations(domain: str) -> Recommendations | None:
    """The finished lists of a domain, or None where there are none."""
    try:
        return Recommendations.model_validate_json((home.recommendations_directory(domain) / FACTS).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        logger.warning("The facts of the recommendations of domain %s are damaged: %s", domain, error)
        return None


def obtain_recommendations(
    domain: str, source: Source, audience: Audience, k: int, tell: Callable[[str], None]
) -> Recommendations:
    """The finished lists if they are of this version, these data and this k; else they are made.

    Parts that an earlier run has finished are used. Only one process may do this for a domain at a time (a run holds
    its domain's lock).

    Args:
        domain: whose users these are.
        source: who recommends.
        audience: to whom. Items that the source doesn't know are left out of the histories.
        k: how long a list is, at most.
        tell: is given a line on the progress now and then.

    Raises:
        ValueError: if a file can't be written, such as on a full disk; what is finished stays.
    """
    data = audience.version()
    code = code_hash(__name__)
    identity = short_hash(
        {"model": source.version.uri, "checkpoint": source.identity, "data": data, "k": k, "code": code}
    )
    working = home.recommending_directory(domain, identity)
    found = read_recommendations(domain)
    if found and found.identity == identity and not (damaged := _damaged(found)):
        tell(f"Nothing has changed since {found.made:%Y-%m-%d %H:%M} UTC: the lists stay as they are.")
    else:
        if found and found.identity == identity:
            tell(f"{', '.join(damaged)} is not the file that was written: the lists are made again.")
        _remove_all_but(working)
        counts = _write_parts(working, source, audience, k, tell)
        facts = {"domain": domain, "identity": identity, "model": source.version, "data": data, "k": k, **counts}
        found = _publish(working, source, facts)
    _remove_all_but(working)
    shutil.rmtree(working, ignore_errors=True)
    return found


def _write_parts(
    working: Path, source: Source, audience: Audience, k: int, tell: Callable[[str], None]
) -> dict[str, int]:
    """The lists of each range of users, in a file of its own that is there or not; those that are there stay.

    Returns:
        the counts of `Recommendations` that are of all parts.
    """
    from evaluation.ranking import translated

    vocabulary = vocabulary_of(audience.item_ids, source.item_ids)
    users, start, said, done = len(audience.user_ids), time.monotonic(), -np.inf, 0
    by_popularity, ignored = 0, 0
    if finished := len(list(working.glob("part-*.parquet"))):
        tell(f"An earlier run has left {finished} of {-(-users // USERS_A_PART)} parts: they are used.")
    for first in range(0, users, USERS_A_PART):
        last = min(first + USERS_A_PART, users)
        histories = audience.histories.take(np.arange(first, last))
        known = translated(histories, vocabulary)
        by_popularity += int((known.lengths == 0).sum())
        ignored += len(histories.values) - len(known.values)
        path = _part(working, first)
        if _readable(path):
            continue
        write_file(path, _parquet(lists(source, audience.user_ids[first:last], known, k)))
        done += last - first
        seconds = time.monotonic() - start
        if seconds - said >= SECONDS_BETWEEN_LINES or last == users:
            said = seconds
            left = f", about {(users - last) * seconds / done:.0f} s to go" if last < users else ""
            tell(f"{last:,} of {users:,} users, {done / max(seconds, 1e-3):,.0f} a second{left}")
    return {
        "users": users,
        "by_popularity": by_popularity,
        "interactions": len(audience.histories.values),
        "ignored": ignored,
        "unknown_items": int((vocabulary[1:] == 0).sum()),
    }


def lists(source: Source, user_ids: pl.Series, histories: Sequences, k: int) -> pl.DataFrame:
    """The rows of these users, as of `Recommendations.table`.

    Args:
        source: who recommends.
        user_ids: raw.
        histories: in the source's own numbers; an empty one gets what was bought most, with its count as the score.
        k: how long a list is, at most.
    """
    from evaluation.best_items import best_items

    items_Bk, scores_Bk = best_items(source.recommender, histories, k)
    nothing_known = histories.lengths == 0
    most_bought = np.argsort(-source.purchases, kind="stable")[:k]
    items_Bk[nothing_known, : len(most_bought)] = most_bought + 1
    scores_Bk[nothing_known, : len(most_bought)] = source.purchases[most_bought]
    users, places = np.nonzero(items_Bk)
    raw = pl.Series("item_id", source.item_ids, dtype=pl.String)
    return pl.DataFrame(
        {
            "user_id": user_ids.gather(users),
            "rank": pl.Series(places + 1, dtype=pl.UInt16),
            "item_id": raw.gather(items_Bk[users, places] - 1),
            "score": scores_Bk[users, places],
            "answered_by": np.where(nothing_known[users], "popularity", "model"),
        }
    ).with_columns(model_version=pl.lit(f"{source.version.name}/{source.version.version}"))


def item_vectors(source: Source) -> pl.DataFrame | None:
    """`item_id`, `vector` list[f32] [D], and `bias` f32 where the model has one; None if it is no dot product.

    The dot product with what the recommender's `represent` gives for a history, plus the bias, is the item's score.
    """
    recommender: Any = source.recommender  # known by what it does: its class is of a package of another name
    if not hasattr(recommender, "item_table"):
        return None
    table_WD = recommender.item_table().detach().float().cpu()[1:].numpy()
    bias_W = recommender.item_bias()
    columns = {"item_id": source.item_ids, "vector": pl.Series(table_WD, dtype=pl.Array(pl.Float32, table_WD.shape[1]))}
    frame = pl.DataFrame(columns).with_columns(pl.col("vector").arr.to_list())
    return frame if bias_W is None else frame.with_columns(bias=bias_W.detach().float().cpu()[1:].numpy())


def _publish(working: Path, source: Source, facts: dict[str, Any]) -> Recommendations:
    """Let lists, vectors and facts take the place of the ones before, all at once."""
    vectors = item_vectors(source)
    with staged_directory(home.recommendations_directory(facts["domain"])) as staged:
        (staged / LISTS).mkdir()
        for first in range(0, facts["users"], USERS_A_PART):
            shutil.copyfile(_part(working, first), staged / LISTS / _part(working, first).name)
        if vectors is not None:
            (staged / ITEMS).write_bytes(_parquet(vectors))
        made = Recommendations(
            **facts,
            rows=sum(_height(path) for path in (staged / LISTS).iterdir()),
            vectors=vectors is not None,
            made=dt.datetime.now(dt.UTC),
            sha256={str(path.relative_to(staged)): file_digest(path) for path in sorted(staged.rglob("*.parquet"))},
        )
        write_json(staged / FACTS, made.model_dump(mode="json"))
    return made


def _part(working: Path, first: int) -> Path:
    return working / f"part-{first // USERS_A_PART:05}.parquet"


def _readable(path: Path) -> bool:
    """Whether a part is there; a damaged one is not."""
    try:
        return path.is_file() and _height(path) >= 0
    except pl.exceptions.PolarsError:
        logger.warning("%s can't be read and is made again.", path)
        return False


def _height(path: Path) -> int:
    return int(pl.scan_parquet(path).select(pl.len()).collect().item())


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _damaged(made: Recommendations) -> list[str]:
    """The names of files that are gone or not as they were written."""
    paths = ((name, made.directory / name, sha256) for name, sha256 in made.sha256.items())
    return [name for name, path, sha256 in paths if not path.is_file() or file_digest(path) != sha256]


def _remove_all_but(working: Path) -> None:
    """Unfinished lists of another identity, which nobody will ask for again."""
    for path in working.parent.iterdir() if working.parent.is_dir() else ():
        if path != working:
            shutil.rmtree(path)
