"""No partition's name leads a table or record out of its asset's folder."""

import os
from pathlib import Path

import polars as pl
import pytest
from dagster import AssetKey, build_init_resource_context, build_input_context, build_output_context
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from upath import UPath

from assets.workspace.io_managers import FileIOManager, ParquetIOManager, RecordIOManager, TablesIOManager

FRAME = pl.DataFrame({"user_id": [0, 1]})


class Statistics(BaseModel):
    users: int


class Rows(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    first: pl.DataFrame


KEPT: dict[type[FileIOManager], object] = {
    ParquetIOManager: FRAME,
    RecordIOManager: Statistics(users=2),
    TablesIOManager: Rows(first=FRAME),
}
ELSEWHERE = ["..", "../x", "/etc/x", "a/../../x", "%2e%2e/x", "..\\x", "a\0", ".a"]


MANAGERS, CONTEXT = [kind() for kind in KEPT], build_output_context(asset_key=AssetKey("sequences"))


@settings(deadline=None)
@given(st.text() | st.text(st.sampled_from("a./\\~\0\n:|%2eF"), min_size=1) | st.sampled_from(ELSEWHERE))
def test_a_partition_is_one_step_below_its_asset(name: str) -> None:
    folder = UPath("/home/tables/sequences")
    for manager in MANAGERS:
        try:
            path = Path(manager.get_path_for_partition(CONTEXT, folder, name).path)
        except ValueError:
            assert not (name.isascii() and name.replace("_", "a").isalnum())
            continue
        assert Path(os.path.normpath(path)) == path
        assert (str(path.parent), path.name.startswith(".")) == (folder.path, False)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_nothing_is_written_or_read_for_a_partition_elsewhere(tmp_path: Path, name: str) -> None:
    for kind, value in KEPT.items():
        manager = kind(base=str(tmp_path / "base"))
        manager.setup_for_execution(build_init_resource_context())
        output = build_output_context(asset_key=AssetKey("sequences"), partition_key=name)
        read = build_input_context(asset_key=AssetKey("sequences"), partition_key=name, upstream_output=output)
        with pytest.raises(ValueError, match="use letters, digits"):
            manager.handle_output(output, value)
        with pytest.raises(ValueError, match="use letters, digits"):
            manager.load_input(read)
    assert list(tmp_path.rglob("*")) == []
