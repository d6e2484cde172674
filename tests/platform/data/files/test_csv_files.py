"""CSV files: what their columns are, and what is said of files that are damaged."""

import csv
import gzip
import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.files import csv_files
from mlplatform.data.files.shards import Shards, read_batches
from mlplatform.data.statistics.compute import compute_statistics
from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def described(*paths: Path) -> dict[str, Any]:
    (data_set,) = compute_statistics({"d": paths}).datasets
    return {feature.path.step[0]: feature for feature in data_set.features}


def read(*paths: Path) -> dict[str, list[Any]]:
    """All values, by column."""
    shards = Shards.open("d", paths)
    columns: dict[str, list[Any]] = {name: [] for name in shards.kinds}
    rows = 0
    for piece in shards.pieces:
        for first_row, batch in read_batches(piece):
            assert first_row == (rows if len(paths) == 1 else first_row)
            rows += len(batch)
            for name, values in columns.items():
                values += batch.column(name).to_pylist()
    assert rows == shards.num_rows
    return columns


def kinds(*paths: Path) -> dict[str, str]:
    return dict(Shards.open("d", paths).kinds)


def refusal(path: Path) -> str:
    """The one line that the statistics of a damaged file end in."""
    with pytest.raises(DataCorrupt) as caught:
        compute_statistics({"d": [path]})
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"{path}: expected ") and "; " in line
    return line


def test_statistics_of_a_store_catalogue(tmp_path: Path) -> None:
    path = write(
        tmp_path / "apps.csv",
        "App,Rating,Reviews,Size,Installs,Price\n"
        'Maps,4.5,120,19M,"10,000+",0\n'
        '"Say ""hi"",\nnow",,7,Varies with device,"5,000+",$4.99\n'
        "Chess,3,1,8.7M,500+,0\n",
    )
    features = described(path)
    names = {
        name: statistics_pb2.FeatureNameStatistics.Type.Name(features[name].type)
        for name in features
    }
    assert names == {
        "App": "STRING",
        "Rating": "FLOAT",
        "Reviews": "INT",
        "Size": "STRING",
        "Installs": "STRING",
        "Price": "STRING",
    }
    rating = features["Rating"].num_stats
    assert (rating.mean, rating.common_stats.num_missing) == (3.75, 1)
    assert {top.value for top in features["App"].string_stats.top_values} == {
        "Maps",
        'Say "hi",\nnow',
        "Chess",
    }
    assert [top.value for top in features["Price"].string_stats.top_values] == ["0", "$4.99"]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (["1", "-3", "", "007"], "INT"),
        (["9223372036854775807", "-9223372036854775808"], "INT"),
        (["9223372036854775808", "1"], "STRING"),
        (["99999999999999999999", "1.5"], "STRING"),
        (["1", "2.5"], "FLOAT"),
        (["1e5", "-.5", "+1", "3."], "FLOAT"),
        (["nan", "NaN", "inf", "-inf", "4.1"], "FLOAT"),
        (["nan", "nan"], "FLOAT"),
        (["1e300", "2"], "FLOAT"),
        (["1", " 2"], "STRING"),
        (["1.5", "2.5 "], "STRING"),
        (["0x1F", "1"], "STRING"),
        (["nan(1)", "1.5"], "STRING"),
        (["1_000"], "STRING"),
        (["1", "NA"], "STRING"),
        (["10,000+"], "STRING"),
        (["$4.99"], "STRING"),
        (["true", "false"], "STRING"),
        (["2024-01-01"], "STRING"),
        (["", ""], "STRING"),
    ],
)
def test_a_column_is_a_number_only_if_every_field_is(
    tmp_path: Path, fields: list[str], kind: str
) -> None:
    for order in (fields, fields[::-1]):
        path = write(tmp_path / "a.csv", "k,x\n" + "".join(f'k,"{field}"\n' for field in order))
        assert kinds(path) == {"k": "STRING", "x": kind}
        if kind == "STRING":
            assert read(path)["x"] == [field.encode() or None for field in order]


def test_nan_is_a_value_and_an_empty_field_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'x,s\nnan,\n,""\n1.5,nan\n2.5,nan\n,x\n')
    features = described(path)
    x, s = features["x"].num_stats, features["s"].string_stats
    assert (x.common_stats.num_non_missing, x.common_stats.num_missing) == (3, 2)
    assert (x.histograms[0].num_nan, x.mean) == (1, 2.0)
    assert (s.common_stats.num_missing, s.unique, s.top_values[0].value) == (2, 2, "nan")


def test_a_kind_is_decided_by_all_blocks_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 64)
    rows = [f"{n},{n},{n}" for n in range(100)]
    rows[50] = "50,50.5,fifty"
    path = write(tmp_path / "a.csv", "i,f,s\n" + "\n".join(rows))
    assert kinds(path) == {"i": "INT", "f": "FLOAT", "s": "STRING"}
    columns = read(path)
    assert columns["i"] == list(range(100))
    assert columns["f"][49:52] == [49.0, 50.5, 51.0]
    assert columns["s"][50:52] == [b"fifty", b"51"]


def test_a_kind_is_decided_by_all_files_of_a_data_set(tmp_path: Path) -> None:
    a = write(tmp_path / "a.csv", "n,f,s,later\n007,1,1,\n")
    b = write(tmp_path / "b.csv", "s,f,n\n2.5,2.5,8\n")
    c = write(tmp_path / "c.csv", "s\nx\n")
    assert kinds(a, b, c) == {"n": "INT", "f": "FLOAT", "s": "STRING", "later": "STRING"}
    features = described(c, b, a)
    assert features["f"].num_stats.mean == 1.75
    assert features["n"].num_stats.common_stats.num_missing == 1
    assert features["later"].string_stats.common_stats.num_missing == 3
    assert {top.value for top in features["s"].string_stats.top_values} == {"1", "2.5", "x"}


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.none() | st.text(CHARACTERS, min_size=1)
ROWS = st.lists(st.tuples(TEXTS, TEXTS, st.integers(-9, 9)), min_size=1)


@settings(max_examples=150, deadline=None)
@given(ROWS, st.sampled_from([("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]))
def test_what_python_writes_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, Any, int]], style: Any
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=style[0], quoting=style[1])
    writer.writerows([("a", "b", "n"), *rows])
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", text.getvalue())
    shards = Shards.open("d", [path])
    (piece,) = shards.pieces
    columns = {name: [] for name in "abn"}  # type: dict[str, list[str | None]]
    for _, batch in read_batches(piece):
        for name, values in columns.items():
            for value in batch.column(name).to_pylist():
                values.append(value.decode() if isinstance(value, bytes) else value)
    # A column of numbers alone is one of numbers: compare what the texts say.
    for index, name in enumerate("abn"):
        expected = [row[index] for row in rows]
        if shards.kinds[name] == "STRING":
            assert columns[name] == expected
        else:
            number = {"INT": int, "FLOAT": float}[shards.kinds[name]]
            for value, text_value in zip(columns[name], expected, strict=True):
                same = None if text_value is None else number(text_value)
                assert value == same or (math.isnan(value) and math.isnan(same))


def test_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbfa,b\r\n1,x\r\n\r\n2,y")
    assert read(path) == {"a": [1, 2], "b": [b"x", b"y"]}


def test_an_empty_line_is_missing_in_a_file_of_one_column(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "a\n1\n\n2\n")) == {"a": [1, None, 2]}
    assert read(write(tmp_path / "b.csv", "a\n1\n\n2\n\n")) == {"a": [1, None, 2, None]}


def test_quotes_inside_unquoted_fields_are_characters(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", 'a,b\n5" disk,2"\n')) == {"a": [b'5" disk'], "b": [b'2"']}


def test_compressed_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv.gz", "a,b\n1,x\n2,y\n")
    assert read(path) == {"a": [1, 2], "b": [b"x", b"y"]}
    path.write_bytes(path.read_bytes()[:-6])
    assert "Truncated compressed stream" in refusal(path)


def test_two_thousand_columns(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(2_000)]
    lines = [",".join(names), *(",".join(str(row * n) for n in range(2_000)) for row in (1, 3))]
    features = described(write(tmp_path / "wide.csv", "\n".join(lines)))
    assert list(features) == names
    assert all(features[f"c{n}"].num_stats.mean == 2 * n for n in range(2_000))


def test_a_file_of_no_rows_has_its_columns(tmp_path: Path) -> None:
    for content in ("a,b", "a,b\n", "a,b\r\n\r\n"):
        path = write(tmp_path / "none.csv", content)
        (data_set,) = compute_statistics({"d": [path]}).datasets
        assert data_set.num_examples == 0
        assert [feature.path.step[0] for feature in data_set.features] == ["a", "b"]
    some = write(tmp_path / "some.csv", "a,b\n1,2\n")
    assert kinds(path, some) == {"a": "INT", "b": "INT"}


def test_an_empty_file(tmp_path: Path) -> None:
    for name in ("none.csv", "none.csv.gz"):
        assert "header row, got an empty first line or no line" in refusal(
            write(tmp_path / name, "")
        )
    assert "header row" in refusal(write(tmp_path / "blank.csv", "\n\n"))


def test_duplicate_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.csv", "n,m,n\n1,2,3\n")
    assert "distinct column names, got 'n' more than once" in refusal(path)


@pytest.mark.parametrize(
    ("rows", "got", "line"),
    [
        ("1,2\n3\n4,5\n", 1, 3),
        ("1,2\n3,4,5\n", 3, 3),
        ('"a\nb",2\n\n3,4\n5\n', 1, 6),
        ('1,2\n"a\nb"\n', 1, 3),
        ("1,2\n3", 1, 3),
    ],
)
def test_a_row_with_too_many_or_too_few_fields(
    tmp_path: Path, rows: str, got: int, line: int
) -> None:
    message = refusal(write(tmp_path / "uneven.csv", "a,b\n" + rows))
    assert f"expected 2 fields in every row as in the header, got {got} in line {line} (" in message


def test_an_uneven_row_far_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 64)
    content = "a,b\n" + "1,2\n" * 500 + "1\n" + "1,2\n" * 500
    assert "got 1 in line 502 (" in refusal(write(tmp_path / "uneven.csv", content))


@pytest.mark.parametrize("tail", ['1,"2\n3,4\n', '1,"2', '1,"', '"1', '1,"2""\n'])
def test_a_quote_that_is_never_closed(tmp_path: Path, tail: str) -> None:
    message = refusal(write(tmp_path / "open.csv", "a,b\n1,2\n" + tail))
    assert "still open at the end" in message or "fields in every row" in message


def test_an_open_quote_in_a_file_of_many_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 64)
    content = "a,b\n" + '1,"2\n' + "1,2\n" * 500
    assert "a quote that is never closed" in refusal(write(tmp_path / "open.csv", content))


@pytest.mark.parametrize("content", [b"\xff\xfea\0,\0b\0\n\0", b"PAR1\x00\xff\x15\x04PAR1"])
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    assert "CSV file" in refusal(write(tmp_path / "binary.csv", content))


def test_invalid_utf8_in_a_value_is_counted(tmp_path: Path) -> None:
    features = described(write(tmp_path / "a.csv", b"a,b\n\xff\xfe,1\nok,2\n"))
    assert features["a"].string_stats.invalid_utf8_count == 1
    assert features["b"].num_stats.mean == 1.5


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.csv: expected a CSV file, found nothing"):
        compute_statistics({"d": [tmp_path / "nowhere.csv"]})


def test_formats_are_not_mixed_and_not_guessed(tmp_path: Path) -> None:
    a = write(tmp_path / "a.csv", "a\n1\n")
    with pytest.raises(InvalidArgument, match=r"'d': expected files of one format, got .*a\.csv"):
        compute_statistics({"d": [a, tmp_path / "b.parquet"]})
    with pytest.raises(InvalidArgument, match=r"a\.tsv: expected a name that ends in \.parquet"):
        compute_statistics({"d": [tmp_path / "a.tsv"]})
