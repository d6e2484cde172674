"""Spans come back as they were written, or not at all."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlplatform.data.files import spans
from mlplatform.data.files.spans import read_parquet, read_span, span_files, span_path, write_span
from mlplatform.errors import DataCorrupt, NotFound, PlatformError

TABLE = pa.table(
    {
        "id": pa.array([1, 2, None, 2**63 - 1], pa.int64()),
        "name": ["a", "", None, "日本語 long enough"],
        "share": pa.array([0.5, float("inf"), None, -0.0], pa.float32()),
        "tags": [["x", None], [], None, ["y"]],
    }
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_span(tmp_path, "events", 3, TABLE) / "part-0.parquet"


def test_a_span_comes_back_as_it_was(tmp_path: Path, written: Path) -> None:
    assert written.parent == span_path(tmp_path, "events", 3) == tmp_path / "events" / "day=003"
    back = read_span(tmp_path, "events", [3])
    assert back.schema == TABLE.schema
    assert back.equals(TABLE)


def test_days_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    for day in (9, 10, 11):
        write_span(tmp_path, "events", day, pa.table({"day": [day], "more": [0]}))
    assert read_span(tmp_path, "events", range(9, 12))["day"].to_pylist() == [9, 10, 11]
    some = read_span(tmp_path, "events", [11, 9], columns=["day"])
    assert some.to_pydict() == {"day": [11, 9]}


def test_a_span_of_no_rows_has_its_columns(tmp_path: Path) -> None:
    write_span(tmp_path, "events", 0, TABLE.slice(0, 0))
    assert read_span(tmp_path, "events", [0]).equals(TABLE.slice(0, 0))


def test_writing_again_replaces_the_span(tmp_path: Path, written: Path) -> None:
    (written.parent / "part-1.parquet").write_bytes(written.read_bytes())
    write_span(tmp_path, "events", 3, TABLE.slice(1, 2))
    assert read_span(tmp_path, "events", [3]).equals(TABLE.slice(1, 2))
    assert [path.name for path in written.parent.parent.iterdir()] == ["day=003"]


def test_tables_are_cut_into_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "ROW_GROUP_ROWS", 10)
    path = write_span(tmp_path, "events", 0, pa.table({"x": range(25)})) / "part-0.parquet"
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [10, 10, 5]
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert read_span(tmp_path, "events", [0])["x"].to_pylist() == list(range(25))


def test_a_missing_span_is_named(tmp_path: Path, written: Path) -> None:
    for days in ([3, 4], range(3, 5)):
        with pytest.raises(NotFound, match=r"events/day=004.*'events'"):
            read_span(tmp_path, "events", days)
    with pytest.raises(NotFound, match="day=003"):
        span_files(tmp_path, "others", [3])
    with pytest.raises(NotFound, match=r"absent\.parquet"):
        read_parquet(tmp_path / "absent.parquet")


def test_a_file_cut_off_anywhere_is_named(tmp_path: Path, written: Path) -> None:
    content = written.read_bytes()
    for length in range(0, len(content), 7):
        written.write_bytes(content[:length])
        with pytest.raises(DataCorrupt, match=r"day=003/part-0\.parquet"):
            read_span(tmp_path, "events", [3])


def data_bytes(path: Path) -> range:
    """Where the pages lie: from behind the magic number to the end of the last column."""
    metadata = pq.read_metadata(path)
    ends = []
    for number in range(metadata.num_columns):
        column = metadata.row_group(0).column(number)
        start = column.dictionary_page_offset or column.data_page_offset
        ends.append(start + column.total_compressed_size)
    return range(4, max(ends))


def test_a_flipped_byte_among_the_data_never_gives_other_data(
    tmp_path: Path, written: Path
) -> None:
    content = written.read_bytes()
    positions = data_bytes(written)
    messages = []
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        written.write_bytes(damaged)
        try:
            back = read_span(tmp_path, "events", [3])
        except DataCorrupt as error:
            messages.append(str(error))
        else:  # a byte that nobody reads, as of a page's statistics
            assert back.equals(TABLE), position
    assert len(messages) > len(positions) / 2
    assert all(str(written) in message for message in messages)


def test_a_flipped_byte_of_a_value_is_named(tmp_path: Path) -> None:
    values = pa.table({"x": pa.array([b"0123456789" * 3], pa.binary())})
    path = write_span(tmp_path, "events", 3, values) / "part-0.parquet"
    content = path.read_bytes()
    position = content.index(b"0123456789")
    path.write_bytes(content[:position] + b"X" + content[position + 1 :])
    with pytest.raises(DataCorrupt, match=r"day=003/part-0\.parquet.*run the command again"):
        read_span(tmp_path, "events", [3])


def test_no_damage_of_the_footer_gives_a_foreign_error(tmp_path: Path, written: Path) -> None:
    content = written.read_bytes()
    foreign = set()
    for position in range(data_bytes(written).stop, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        written.write_bytes(damaged)
        try:
            read_span(tmp_path, "events", [3])
        except PlatformError:
            continue
        except Exception as error:
            foreign.add(type(error).__name__)
    assert foreign == set()
