"""Arrow tables as bytes that can be laid end to end, as results of a Beam pass are."""

from collections.abc import Iterator

import pyarrow as pa


def encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def decode(content: bytes) -> Iterator[pa.Table]:
    reader = pa.BufferReader(content)
    while reader.tell() < len(content):
        yield pa.ipc.open_stream(reader).read_all()
