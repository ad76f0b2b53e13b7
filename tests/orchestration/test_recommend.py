"""`make recommend` on the home that a chain has left: nobody to recommend, then the champion."""

import json
from collections import Counter

import polars as pl
import pytest

from tests.orchestration.workplace import Workplace

SERVED = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/slmrec-tiny-student@champion")
answer = model.predict(pd.DataFrame({"history": json.loads(sys.argv[2])}), params={"k": 20})
print(json.dumps(answer["item_ids"].tolist()))
"""


@pytest.fixture(scope="module")
def place(finished: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return finished.copied_to(tmp_path_factory.mktemp("recommend"))


def test_every_user_gets_what_the_served_champion_answers(place: Workplace) -> None:
    """The histories are read from the tables of the chain: all that a user has bought, test target included."""
    refused = place.run("recommend", "--domain", "tiny")
    assert refused.returncode == 1
    assert "slmrec: Domain 'tiny' has no champion" in refused.stderr
    assert "make promote DOMAIN=tiny REASON=…" in refused.stderr
    promoted = place.run("promote", "--domain", "tiny", "--reason", "it is good", "--by", "ada")
    assert promoted.returncode == 0, promoted.stderr
    done = place.run("recommend", "--domain", "tiny")
    assert done.returncode == 0, done.stderr
    made = place.home / "recommendations" / "tiny"
    assert f"Recommendations:  {made / 'users'}\n" in done.stdout
    table = pl.read_parquet(made / "users" / "*.parquet")

    kept = place.home / "tables" / "interactions" / "tiny"
    rows = (
        pl.read_parquet(kept / "interactions.parquet")
        .join(pl.read_parquet(kept / "users.parquet"), on="user_id", maintain_order="left")
        .join(pl.read_parquet(kept / "items.parquet"), on="item_id", maintain_order="left")
    )
    histories: dict[str, list[str]] = {}
    for user, item in rows.select("reviewer_id", "asin").iter_rows():
        histories.setdefault(user, []).append(item)
    assert f"{len(histories):,} users, 0 of them by popularity; up to 20 items each" in done.stdout
    assert set(table["user_id"]) == set(histories)
    users = list(histories)[::9]
    served = place.python(
        "-c", SERVED, f"sqlite:///{place.home}/mlflow.db", json.dumps([histories[user] for user in users])
    )
    assert served.returncode == 0, served.stderr
    answers = dict(zip(users, json.loads(served.stdout.splitlines()[-1]), strict=True))
    lists = dict(table.group_by("user_id", maintain_order=True).agg("item_id").iter_rows())
    assert {user: lists[user] for user in users} == answers

    written = {path.name: path.stat().st_mtime_ns for path in made.rglob("*.parquet")}
    again = place.run("recommend", "--domain", "tiny")
    assert again.returncode == 0, again.stderr
    assert "Nothing has changed since" in again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in made.rglob("*.parquet")} == written
    assert Counter(table["answered_by"]) == {"model": table.height}
