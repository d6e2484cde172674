"""HPACK: the examples of RFC 7541's appendix C, and blocks of any representations."""

import itertools
from collections import deque
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.serving import huffman
from mlplatform.serving.hpack import Decoder, Field, Garbled, literal

ENOUGH = 1 << 20
Fields = list[Field] | None


def decoder(most_bytes: int = ENOUGH) -> Decoder[Fields]:
    return Decoder(lambda fields: fields, most_bytes)


def fields(*lines: str) -> list[Field]:
    parts = [line.split(": ", 1) for line in lines]
    return [(name.encode(), value.encode()) for name, value in parts]


FIRST = fields(":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com")
SECOND = [*FIRST, *fields("cache-control: no-cache")]
THIRD = fields(
    ":method: GET",
    ":scheme: https",
    ":path: /index.html",
    ":authority: www.example.com",
    "custom-key: custom-value",
)
ANSWERS = [
    fields(
        ":status: 302",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ),
    fields(
        ":status: 307",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ),
    fields(
        ":status: 200",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        "location: https://www.example.com",
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ),
]
# C.2 to C.6.  Those of C.5 and C.6 are of a table of 256 bytes, which `3fe1 01` in front says here.
EXAMPLES: dict[str, list[tuple[str, list[Field]]]] = {
    "C.2.1": [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            fields("custom-key: custom-header"),
        )
    ],
    "C.2.2": [("040c 2f73 616d 706c 652f 7061 7468", fields(":path: /sample/path"))],
    "C.2.3": [("1008 7061 7373 776f 7264 0673 6563 7265 74", fields("password: secret"))],
    "C.2.4": [("82", fields(":method: GET"))],
    "C.3": [
        ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", FIRST),
        ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND),
        (
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            THIRD,
        ),
    ],
    "C.4": [
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", FIRST),
        ("8286 84be 5886 a8eb 1064 9cbf", SECOND),
        ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", THIRD),
    ],
    "C.5": [
        (
            "3fe1 01 4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230"
            "3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70"
            "6c65 2e63 6f6d",
            ANSWERS[0],
        ),
        ("4803 3330 37c1 c0bf", ANSWERS[1]),
        (
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0"
            "5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851"
            "5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            ANSWERS[2],
        ),
    ],
    "C.6": [
        (
            "3fe1 01 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0"
            "82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            ANSWERS[0],
        ),
        ("4883 640e ffc1 c0bf", ANSWERS[1]),
        (
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad"
            "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160"
            "65c0 03ed 4ee5 b106 3d50 07",
            ANSWERS[2],
        ),
    ],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_specification_are_read(name: str) -> None:
    reading = decoder()
    for block, expected in EXAMPLES[name]:
        assert reading.decode(bytes.fromhex(block)) == expected


def test_the_code_leaves_room_for_its_end_and_for_nothing_else() -> None:
    code = huffman.code()
    assert sorted(code) == list(range(256))
    assert sum(Fraction(1, 2**length) for _, length in code.values()) == 1 - Fraction(1, 2**30)
    # The rows of appendix B where a length begins or ends.
    for symbol, row in {
        "0": "00000", "t": "01001", " ": "010100", "u": "101101", ":": "1011100", "z": "1111011",
        "&": "11111000", "Z": "11111101", "!": "1111111000", "|": "11111111100",
        "<": "111111111111100",
    }.items():  # fmt: skip
        assert f"{code[ord(symbol)][0]:0{code[ord(symbol)][1]}b}" == row


def coded(text: bytes) -> bytes:
    bits = "".join(f"{bits:0{length}b}" for bits, length in map(huffman.code().get, text))  # type: ignore[misc]
    bits += "1" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


@given(st.binary(max_size=40))
def test_what_is_coded_is_decoded(text: bytes) -> None:
    assert huffman.decoded(coded(text)) == text


@pytest.mark.parametrize(
    "wrong",
    [
        b"\xff",  # eight ones: more than padding
        b"\x00",  # 00000 and 000, which is no padding
        b"\xff\xff\xff\xff",  # the end itself
        coded(b"a") + b"\xff",
    ],
)
def test_what_does_not_end_as_it_should_is_garbled(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="Huffman"):
        huffman.decoded(wrong)


def integer(value: int, bits: int, first: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    found, value = [first | most], value - most
    while value >= 128:
        found.append(value % 128 + 128)
        value //= 128
    return bytes([*found, value])


class Encoder:
    """Writes a field in any way that the specification has."""

    def __init__(self) -> None:
        self.table: deque[Field] = deque()
        self.capacity = 4096

    def shrink(self) -> None:
        while sum(32 + len(name) + len(value) for name, value in self.table) > self.capacity:
            self.table.pop()

    def resize(self, capacity: int) -> bytes:
        self.capacity = capacity
        self.shrink()
        return integer(capacity, 5, 0x20)

    @staticmethod
    def text(text: bytes, short: bool) -> bytes:
        if short:
            text = coded(text)
        return integer(len(text), 7, 0x80 if short else 0) + text

    def field(self, field: Field, way: int, short: bool) -> bytes:
        if way == 3 and field in self.table:
            return integer(62 + self.table.index(field), 7, 0x80)
        names = [name for name, _ in self.table]
        index = 62 + names.index(field[0]) if field[0] in names else 0
        bits, first = [(6, 0x40), (4, 0x00), (4, 0x10), (6, 0x40)][way]
        block = integer(index, bits, first)
        if not index:
            block += self.text(field[0], short)
        block += self.text(field[1], not short)
        if first == 0x40:
            self.table.appendleft(field)
            self.shrink()
        return block


texts = st.sampled_from([b"a", b"x-key", b"grpc-timeout", b"v" * 300]) | st.binary(max_size=50)
some_fields = st.tuples(st.tuples(texts, texts), st.integers(0, 3), st.booleans())
blocks = st.tuples(
    st.none() | st.sampled_from([0, 40, 100, 4096]), st.lists(some_fields, max_size=6)
)


@given(st.lists(blocks, max_size=8))
def test_every_way_to_write_a_field_is_read(sent: list[tuple[int | None, list[Any]]]) -> None:
    writing, reading = Encoder(), decoder()
    for capacity, lines in sent:
        block = b"" if capacity is None else writing.resize(capacity)
        expected = []
        for field, way, short in lines:
            block += writing.field(field, way, short)
            expected.append(field)
        assert reading.decode(block) == expected


@given(texts, texts)
def test_what_answers_are_made_of_is_read(name: bytes, value: bytes) -> None:
    assert decoder().decode(literal(name, value)) == [(name, value)]


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_are_a_block_or_garbled(sent: list[bytes]) -> None:
    reading = decoder(200)
    for block in sent:
        try:
            found = reading.decode(block)
        except Garbled:
            return
        assert found is None or sum(len(n) + len(v) + 32 for n, v in found) <= 200


@pytest.mark.parametrize(
    "block",
    [
        "80",  # index 0
        "be",  # of a table that is empty
        "7f",  # cut off within an integer
        "ffffffffff7f",  # an integer without end
        "0003 6162",  # cut off within a text
        "8220",  # a size behind a field
        "3fe2 1f",  # 4097 bytes
    ],
)
def test_what_is_no_block_is_garbled(block: str) -> None:
    with pytest.raises(Garbled):
        decoder().decode(bytes.fromhex(block))


def test_a_block_is_read_once_as_long_as_the_table_stays() -> None:
    meanings = itertools.count()
    reading = Decoder(lambda fields: (next(meanings), fields), ENOUGH)
    add_a, add_b, newest = b"\x40\x01a\x011", b"\x40\x01b\x012", b"\xbe"
    reading.decode(add_a)
    assert reading.decode(newest) == (1, [(b"a", b"1")])
    assert reading.decode(newest) == (1, [(b"a", b"1")])
    reading.skip(add_b)
    assert reading.decode(newest) == (2, [(b"b", b"2")])
    reading.decode(add_a)
    reading.decode(add_a)
    assert reading.decode(b"\xc0") == (5, [(b"b", b"2")])  # both were added


def test_what_there_is_no_room_for_leaves_the_table() -> None:
    add, newest = b"\x40\x01%c\x3c" + b"v" * 60, b"\xbe"  # 93 bytes of the table's 4096
    reading = decoder()
    for letter in range(60):
        reading.decode(add % letter)
    oldest = 62 + 4096 // 93 - 1
    assert reading.decode(integer(oldest, 7, 0x80)) == [(bytes([60 - 44]), b"v" * 60)]
    for capacity in (93, 92):
        still = decoder()
        still.decode(add % 1)
        still.skip(integer(capacity, 5, 0x20))
        if capacity == 93:
            assert still.decode(newest) == [(b"\x01", b"v" * 60)]
        else:
            with pytest.raises(Garbled):
                still.decode(newest)
    with pytest.raises(Garbled):
        reading.decode(integer(oldest + 1, 7, 0x80))


def test_more_fields_than_are_kept_are_none_and_the_table_stays_right() -> None:
    reading = decoder(33 + 34)
    assert reading.decode(b"\x00\x01a\x00\x00\x01b\x01c") == [(b"a", b""), (b"b", b"c")]
    assert reading.decode(b"\x40\x01a\x011\x40\x01b\x012") is None  # 68 bytes
    assert reading.decode(b"\xbe") == [(b"b", b"2")]
    with pytest.raises(Garbled, match="far more"):
        reading.decode(b"\xbe" * 10)
