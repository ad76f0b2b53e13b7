import random

import polars as pl
import pytest
from dagster import (
    AssetExecutionContext,
    AssetSpec,
    Definitions,
    StaticPartitionsDefinition,
    asset,
    build_init_resource_context,
    materialize,
)
from pydantic import BaseModel, ConfigDict
from upath import UPath

from assets.workspace.io_managers import ParquetIOManager, RecordIOManager, TablesIOManager

DOMAINS = StaticPartitionsDefinition(["cloth", "movie"])
FRAME = pl.DataFrame(
    {"user_id": [0, 1], "history": [[3, 1], [2]]}, schema={"user_id": pl.UInt32, "history": pl.List(pl.UInt32)}
)


class Statistics(BaseModel):
    users: int
    domain: str


class Rows(BaseModel):
    """Tables that travel together."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    first: pl.DataFrame
    second: pl.DataFrame
    kind: str = "temporal"
    cuts: tuple[int, int] | None = None


@asset(partitions_def=DOMAINS, io_manager_key="frames")
def sequences() -> pl.DataFrame:
    return FRAME


@asset(partitions_def=DOMAINS, io_manager_key="records")
def statistics(context: AssetExecutionContext, sequences: pl.DataFrame) -> Statistics:
    assert sequences.equals(FRAME)
    assert sequences.schema == FRAME.schema
    return Statistics(users=sequences.height, domain=context.partition_key)


@asset(io_manager_key="records")
def across_domains(statistics: dict[str, Statistics]) -> Statistics:
    return Statistics(users=sum(each.users for each in statistics.values()), domain="+".join(sorted(statistics)))


@asset(partitions_def=DOMAINS, io_manager_key="records")
def report(statistics: Statistics) -> Statistics:
    return statistics


@asset(partitions_def=DOMAINS, io_manager_key="records")
def untyped(statistics):
    return statistics


SEQUENCES = AssetSpec("sequences", partitions_def=DOMAINS).with_io_manager_key("frames")
STATISTICS = AssetSpec("statistics", partitions_def=DOMAINS).with_io_manager_key("records")


def resources(folder) -> dict:
    return {
        "frames": ParquetIOManager(base=str(folder / "tables")),
        "tables": TablesIOManager(base=str(folder / "tables")),
        "records": RecordIOManager(base=str(folder / "records")),
    }


def read(given: dict) -> pl.DataFrame:
    """The sequences of cloth, as an asset that takes them gets them."""
    return Definitions(assets=[SEQUENCES], resources=given).load_asset_value("sequences", partition_key="cloth")


def test_values_pass_through_files_named_by_asset_and_partition(tmp_path):
    result = materialize([sequences, statistics], partition_key="cloth", resources=resources(tmp_path))
    assert result.output_for_node("statistics") == Statistics(users=2, domain="cloth")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")} == {
        "tables/sequences/cloth.parquet",
        "records/statistics/cloth.json",
    }
    assert pl.read_parquet(tmp_path / "tables/sequences/cloth.parquet").equals(FRAME)


def test_a_table_shows_its_rows_and_schema_and_a_record_its_values(tmp_path):
    result = materialize([sequences, statistics], partition_key="cloth", resources=resources(tmp_path))
    table, record = (result.asset_materializations_for_node(node)[0].metadata for node in ("sequences", "statistics"))
    assert table["dagster/row_count"].value == 2
    columns = [(column.name, column.type) for column in table["dagster/column_schema"].value.columns]
    assert columns == [("user_id", "UInt32"), ("history", "List(UInt32)")]
    assert record["record"].value == {"users": 2, "domain": "cloth"}


def test_an_unpartitioned_asset_reads_all_partitions(tmp_path):
    for domain in ("cloth", "movie"):
        materialize([sequences, statistics], partition_key=domain, resources=resources(tmp_path))
    result = materialize([across_domains, STATISTICS], resources=resources(tmp_path))
    assert result.output_for_node("across_domains") == Statistics(users=4, domain="cloth+movie")


def test_the_home_is_the_default(empty_home):
    default = {"frames": ParquetIOManager(), "records": RecordIOManager()}
    materialize([sequences, statistics], partition_key="movie", resources=default)
    assert (empty_home / "tables/sequences/movie.parquet").is_file()
    assert (empty_home / "records/statistics/movie.json").is_file()


def test_tables_can_lie_on_object_storage(tmp_path):
    remote = {**resources(tmp_path), "frames": ParquetIOManager(base="memory://bucket/tables")}
    result = materialize([sequences, statistics], partition_key="cloth", resources=remote)
    assert result.output_for_node("statistics").users == 2
    assert UPath("memory://bucket/tables/sequences/cloth.parquet").is_file()


def test_a_missing_upstream_says_what_to_materialise(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"parquet: materialise sequences for partition cloth first\.$"):
        materialize([statistics, SEQUENCES], partition_key="cloth", resources=resources(tmp_path))


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "tables" / "sequences").mkdir(parents=True)
    (tmp_path / "tables" / "sequences" / "cloth.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"cloth\.parquet can't be read as sequences: .* materialise sequences for"):
        materialize([statistics, SEQUENCES], partition_key="cloth", resources=resources(tmp_path))


def test_a_flipped_bit_anywhere_in_a_table_is_refused(tmp_path):
    given = resources(tmp_path)
    materialize([sequences], partition_key="cloth", resources=given)
    path = tmp_path / "tables/sequences/cloth.parquet"
    written = path.read_bytes()
    bits = random.Random(0).sample(range(8 * len(written)), 50)
    for bit in bits:
        damaged = bytearray(written)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        refused = r"cloth\.parquet can't be read as sequences: it is damaged, .* materialise sequences for"
        with pytest.raises(ValueError, match=refused):
            read(given)


def test_a_table_without_a_digest_is_to_be_made_anew(tmp_path):
    """As versions before 22 November 2026 wrote it."""
    (tmp_path / "tables/sequences").mkdir(parents=True)
    FRAME.write_parquet(tmp_path / "tables/sequences/cloth.parquet")
    with pytest.raises(ValueError, match=r"of an earlier version, which wrote no digest.* materialise sequences for"):
        read(resources(tmp_path))


def test_a_panic_of_polars_is_said_in_the_same_words(tmp_path, monkeypatch):
    given = resources(tmp_path)
    materialize([sequences], partition_key="cloth", resources=given)

    def panics(_):
        raise pl.exceptions.PanicException("range end index 8 out of range")

    monkeypatch.setattr(pl, "read_parquet", panics)
    with pytest.raises(
        ValueError, match=r"cloth\.parquet can't be read as sequences: range end.*materialise sequences"
    ):
        read(given)


def test_a_record_of_another_shape_is_named(tmp_path):
    (tmp_path / "records" / "statistics").mkdir(parents=True)
    (tmp_path / "records" / "statistics" / "cloth.json").write_text('{"users": "many", "domain": "cloth"}')
    with pytest.raises(ValueError, match=r"(?s)cloth\.json can't be read as statistics: .*users"):
        materialize([report, STATISTICS], partition_key="cloth", resources=resources(tmp_path))


def test_a_consumer_must_say_which_record_it_reads(tmp_path):
    materialize([sequences, statistics], partition_key="cloth", resources=resources(tmp_path))
    with pytest.raises(TypeError, match="name the pydantic model that statistics returns"):
        materialize([untyped, STATISTICS], partition_key="cloth", resources=resources(tmp_path))


def test_a_failed_write_leaves_the_old_table(tmp_path):
    materialize([sequences], partition_key="cloth", resources=resources(tmp_path))

    @asset(name="sequences", partitions_def=DOMAINS, io_manager_key="frames")
    def wrong():
        return ["not", "a", "frame"]

    with pytest.raises(TypeError, match="sequences must return a polars DataFrame, not list"):
        materialize([wrong], partition_key="cloth", resources=resources(tmp_path))
    folder = tmp_path / "tables" / "sequences"
    assert [path.name for path in folder.iterdir()] == ["cloth.parquet"]
    assert pl.read_parquet(folder / "cloth.parquet").equals(FRAME)


def test_an_unknown_storage_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"Nothing can be stored at nowhere://bucket"):
        ParquetIOManager(base="nowhere://bucket").setup_for_execution(build_init_resource_context())


@asset(partitions_def=DOMAINS, io_manager_key="tables")
def rows() -> Rows:
    return Rows(first=FRAME, second=FRAME.head(1), cuts=(3, 7))


@asset(partitions_def=DOMAINS, io_manager_key="records")
def counted(rows: Rows) -> Statistics:
    assert (rows.cuts, rows.kind) == ((3, 7), "temporal")
    assert rows.first.equals(FRAME)
    return Statistics(users=rows.second.height, domain=rows.kind)


ROWS = AssetSpec("rows", partitions_def=DOMAINS).with_io_manager_key("tables")


@pytest.mark.parametrize("base", [None, "memory://bucket/bundles"])
def test_tables_that_travel_together_come_back_together(tmp_path, base):
    given = resources(tmp_path) | ({"tables": TablesIOManager(base=base)} if base else {})
    result = materialize([rows, counted], partition_key="cloth", resources=given)
    assert result.output_for_node("counted").users == 1
    shown = result.asset_materializations_for_node("rows")[0].metadata
    assert {name: shown[name].value for name in ("rows_first", "rows_second")} == {"rows_first": 2, "rows_second": 1}
    folder = UPath(base or tmp_path / "tables") / "rows/cloth"
    assert sorted(path.name for path in folder.iterdir()) == ["facts.json", "first.parquet", "second.parquet"]


def test_tables_of_two_writes_are_not_taken_for_one(tmp_path):
    materialize([rows], partition_key="cloth", resources=resources(tmp_path))
    FRAME.tail(1).write_parquet(tmp_path / "tables/rows/cloth/first.parquet")
    with pytest.raises(
        ValueError, match=r"first\.parquet is not the file that was written with facts\.json.*materialise rows"
    ):
        materialize([counted, ROWS], partition_key="cloth", resources=resources(tmp_path))


def test_half_a_directory_of_tables_is_named(tmp_path):
    materialize([rows], partition_key="cloth", resources=resources(tmp_path))
    (tmp_path / "tables/rows/cloth/facts.json").unlink()
    with pytest.raises(FileNotFoundError, match="materialise rows for partition cloth first"):
        materialize([counted, ROWS], partition_key="cloth", resources=resources(tmp_path))
