"""TFRecord files against what TensorFlow writes, and what is said of damaged ones."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.data.files import tfrecord_files
from mlplatform.data.files.crc32c import masked_crc32c
from mlplatform.data.files.shards import Shards, read_batches
from mlplatform.data.files.wire import PADDING
from mlplatform.data.statistics.compute import compute_statistics
from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound

LISTS = {
    "INT": lambda values: {"int64_list": tf.train.Int64List(value=values)},
    "FLOAT": lambda values: {"float_list": tf.train.FloatList(value=values)},
    "STRING": lambda values: {"bytes_list": tf.train.BytesList(value=values)},
}


def example(kinds: dict[str, str], values: dict[str, Any]) -> bytes:
    """None is a feature without a kind."""
    features = {
        name: tf.train.Feature(**({} if value is None else LISTS[kinds[name]](value)))
        for name, value in values.items()
    }
    encoded: bytes = tf.train.Example(
        features=tf.train.Features(feature=features)
    ).SerializeToString(deterministic=True)
    return encoded


def write(path: Path, records: list[bytes]) -> Path:
    options = "GZIP" if path.suffix == ".gz" else ""
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)
    return path


def read(*paths: Path) -> list[dict[str, Any]]:
    shards = Shards.open("d", paths)
    rows = [
        row
        for piece in shards.pieces
        for _, batch in read_batches(piece)
        for row in batch.to_pylist()
    ]
    assert len(rows) == shards.num_rows
    return rows


def refusal(path: Path) -> str:
    with pytest.raises(DataCorrupt) as caught:
        compute_statistics({"d": [path]})
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"{path}: expected ")
    return line


KINDS = {"i": "INT", "f": "FLOAT", "s": "STRING"}
FLOATS = st.floats(width=32, allow_nan=False)
EXAMPLE = st.fixed_dictionaries(
    {},
    optional={
        "i": st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
        "f": st.none() | st.lists(FLOATS, max_size=5),
        "s": st.none() | st.lists(st.binary(max_size=40), max_size=5),
    },
)


@settings(max_examples=100, deadline=None)
@given(st.lists(EXAMPLE, max_size=12), st.sampled_from([".tfrecord", ".tfrecord.gz"]))
def test_what_tensorflow_writes_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, examples: list[dict[str, Any]], ending: str
) -> None:
    path = tmp_path_factory.mktemp("tfrecord") / f"a{ending}"
    write(path, [example(KINDS, values) for values in examples])
    shards = Shards.open("d", [path])
    names = sorted({name for values in examples for name in values})
    assert list(shards.kinds) == names
    for name in names:  # without a list there is no kind, and the column is one of strings
        has_kind = any(values.get(name) is not None for values in examples)
        assert shards.kinds[name] == (KINDS[name] if has_kind else "STRING")
    assert read(path) == [{name: values.get(name) for name in names} for values in examples]


def test_statistics_of_examples(tmp_path: Path) -> None:
    kinds = {"n": "INT", "x": "FLOAT", "s": "STRING"}
    a = write(
        tmp_path / "a.tfrecord",
        [
            example(kinds, {"n": [1, 2], "x": [0.5], "s": [b"a", b"\xff"]}),
            example(kinds, {"n": [], "s": [b"a"]}),
        ],
    )
    b = write(tmp_path / "b.tfrecord", [example(kinds, {"n": [-6]}), example(kinds, {})])
    (data_set,) = compute_statistics({"d": [b, a]}).datasets
    assert data_set.num_examples == 4
    found = {feature.path.step[0]: feature for feature in data_set.features}
    n = found["n"].num_stats
    assert (n.mean, n.common_stats.num_non_missing, n.common_stats.num_missing) == (-1.0, 3, 1)
    assert (n.common_stats.min_num_values, n.common_stats.max_num_values) == (0, 2)
    assert (found["x"].num_stats.mean, found["x"].num_stats.common_stats.num_missing) == (0.5, 3)
    s = found["s"].string_stats
    assert (s.unique, s.invalid_utf8_count, s.common_stats.tot_num_values) == (1, 1, 3)


def test_lists_that_are_not_packed() -> None:
    """Writers of other languages may write one tag for each value."""
    data = {
        "i": b"\x1a\x0f" + b"\x08\x05" + b"\x08" + b"\xff" * 9 + b"\x01" + b"\x08\x07",
        "f": b"\x12\x0a" + b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", -2.0),
    }
    entries = b""
    for name, feature in data.items():
        entry = b"\x0a\x01" + name.encode() + b"\x12" + bytes([len(feature)]) + feature
        entries += b"\x0a" + bytes([len(entry)]) + entry
    message = b"\x0a" + bytes([len(entries)]) + entries
    parsed = tf.train.Example.FromString(message).features.feature
    assert parsed["i"].int64_list.value == [5, -1, 7]
    padded = np.frombuffer(message + bytes(PADDING), np.uint8)
    whole = tfrecord_files.Spans(np.array([0]), np.array([0]), np.array([len(message)]))
    found = tfrecord_files.find_features(padded, whole)
    columns = {
        name: tfrecord_files.column_of(padded, found[name], found[name].kind, 1).to_pylist()
        for name in found
    }
    assert columns == {"i": [[5, -1, 7]], "f": [[1.5, -2.0]]}


def test_checksums_agree_with_those_of_tensorflow(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    sizes = [0, 1, 3, 4, 5, 63, 64, 65, 127, 128, 1_000, 100_000]
    records = [generator.bytes(size) for size in sizes]
    content = write(tmp_path / "a.tfrecord", records).read_bytes()
    starts = np.cumsum([12, *(size + 16 for size in sizes[:-1])])
    ends = starts + sizes
    stored = [struct.unpack_from("<I", content, end)[0] for end in ends]
    data = np.frombuffer(content, np.uint8)
    assert masked_crc32c(data, starts, ends).tolist() == stored
    assert masked_crc32c(np.frombuffer(b"123456789", np.uint8), np.array([0]), np.array([9])) == (
        ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    )


def test_records_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord_files, "_BLOCK_BYTES", 50)
    values = [{"s": [bytes([65 + n]) * (n * 40)]} for n in range(12)]
    path = write(tmp_path / "a.tfrecord", [example({"s": "STRING"}, v) for v in values])
    assert read(path) == values
    content = path.read_bytes()
    sizes = [len(example({"s": "STRING"}, v)) + 16 for v in values]
    whole_sizes = set(np.cumsum(sizes).tolist())
    for size in (*range(1, len(content), 97), *whole_sizes):
        path.write_bytes(content[:size])
        try:
            rows = read(path)
        except DataCorrupt as error:
            assert "cut off after" in str(error)
        else:
            assert rows == values[: len(rows)]
            assert size in whole_sizes


def test_a_cut_record(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [example(KINDS, {"i": [n]}) for n in range(5)])
    path.write_bytes(path.read_bytes()[:-3])
    assert "got record 4 cut off after" in refusal(path)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tfrecord", [example(KINDS, {"i": [n], "s": [b"x"]}) for n in range(3)]
    )
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(DataCorrupt, match=r"match their checksums|cut off"):
            Shards.open("d", [path])


def test_a_damaged_compressed_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord.gz", [example(KINDS, {"i": [n]}) for n in range(50)])
    path.write_bytes(path.read_bytes()[:-20])
    assert "damaged" in refusal(path) or "cut off" in refusal(path)
    path.write_bytes(gzip.compress(b"no record at all"))
    assert "another length in record 0" in refusal(path)


def test_a_file_of_no_records_and_records_of_no_features(tmp_path: Path) -> None:
    (none,) = compute_statistics({"d": [write(tmp_path / "a.tfrecord", [])]}).datasets
    assert (none.num_examples, len(none.features)) == (0, 0)
    (bare,) = compute_statistics({"d": [write(tmp_path / "b.tfrecord", [b"", b""])]}).datasets
    assert (bare.num_examples, len(bare.features)) == (2, 0)


@pytest.mark.parametrize(
    "record", [b"\xff", b"\x0a\x05abc", b"\x0b\x0c", b"\x08\x01\x0a\x7f", b"\x0a\x02\x0a\x09"]
)
def test_records_that_are_no_examples(tmp_path: Path, record: bytes) -> None:
    path = write(tmp_path / "a.tfrecord", [example(KINDS, {"i": [1]}), record])
    assert "expected a tf.train.Example in every record, got something else in record 1" in refusal(
        path
    )


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_behind_a_right_checksum_gives_no_foreign_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(example(KINDS, {"i": [1, -5], "f": [1.0], "s": [b"abc", b""]}))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = write(tmp_path_factory.mktemp("damage") / "a.tfrecord", [bytes(whole)])
    try:
        read(path)
    except DataCorrupt as error:
        assert "got something else in record 0" in str(error)


def test_a_feature_of_two_kinds(tmp_path: Path) -> None:
    a = write(
        tmp_path / "a.tfrecord",
        [example({"x": kind}, {"x": [1]}) for kind in ("INT", "FLOAT")],
    )
    with pytest.raises(InvalidArgument, match=r"feature 'x' to be INT .*, got FLOAT in record 1"):
        compute_statistics({"d": [a]})


def test_two_thousand_features(tmp_path: Path) -> None:
    kinds = {f"c{n:04}": "INT" for n in range(2_000)}
    rows = [{name: [row * int(name[1:])] for name in kinds} for row in (1, 3)]
    path = write(tmp_path / "wide.tfrecord", [example(kinds, row) for row in rows])
    (data_set,) = compute_statistics({"d": [path]}).datasets
    assert [f.num_stats.mean for f in data_set.features] == [2 * n for n in range(2_000)]


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match=r"nowhere\.tfrecord: expected a TFRecord file, found nothing"
    ):
        compute_statistics({"d": [tmp_path / "nowhere.tfrecord"]})
