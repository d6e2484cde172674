"""CRC-32C (Castagnoli) of many records at once, as TFRecord files carry it.

Enters: bytes, and where records stand in them.  Leaves: their checksums, masked.  A CRC without its
initial value is linear, and zeros before a message leave it as it is: so all records are cut into
chunks from their ends, the chunks are run through side by side, and joined by shifting.
"""

import numpy as np
from numpy.typing import NDArray

from mlplatform.data.files.wire import Bytes, Places

Checksums = NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78  # reflected
_CHUNK = 64
_MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: Bytes, starts: Places, ends: Places) -> Checksums:
    """The checksums of `data[starts[i]:ends[i]]` as a TFRecord has them, uint32 [n]."""
    crc = ~_run(data, starts, ends)
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)


def _run(data: Bytes, starts: Places, ends: Places) -> Checksums:
    """The register after each record, all ones before it."""
    lengths = ends - starts
    chunks = -(-lengths // _CHUNK)
    firsts = np.concatenate([[0], np.cumsum(chunks)])
    padded = np.zeros(firsts[-1] * _CHUNK, np.uint8)
    begins = firsts[1:] * _CHUNK - lengths
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1])
    padded[within + np.repeat(begins - offsets[:-1], lengths)] = data[
        within + np.repeat(starts - offsets[:-1], lengths)
    ]
    # All ones before a message are the same as its first four bytes inverted.
    padded[begins[lengths >= 4][:, np.newaxis] + np.arange(4)] ^= 0xFF
    crc = np.zeros(firsts[-1], np.uint32)
    for pair in padded.view("<u2").reshape(-1, _CHUNK // 2).T:
        crc = _TABLE_OF_PAIRS[(crc ^ pair) & 0xFFFF] ^ (crc >> np.uint32(16))
    joined = np.zeros(len(starts), np.uint32)
    for position in range(int(chunks.max(initial=0))):
        active = np.flatnonzero(chunks > position)
        joined[active] = _shift_chunk(joined[active]) ^ crc[firsts[active] + position]
    for index in np.flatnonzero(lengths < 4):
        joined[index] = _run_one(data[starts[index] : ends[index]].tobytes())
    return joined


def _run_one(message: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in message:
        crc = int(_TABLE[(crc ^ byte) & 0xFF]) ^ (crc >> 8)
    return crc


def _make_table(bits: int) -> Checksums:
    """What the lowest bits of the register become when as many zero bits follow."""
    table = np.arange(1 << bits, dtype=np.uint32)
    for _ in range(bits):
        table = (table >> np.uint32(1)) ^ np.where(table & 1, _POLYNOMIAL, 0).astype(np.uint32)
    return table


def _make_shifts() -> Checksums:
    """What `_CHUNK` zero bytes make of each of the register's bytes, uint32 [4, 256]."""
    crc = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32))[:, np.newaxis]
    for _ in range(_CHUNK):
        crc = _TABLE[crc & 0xFF] ^ (crc >> np.uint32(8))
    return crc


def _shift_chunk(crc: Checksums) -> Checksums:
    shifted = _SHIFTS[0][crc & 0xFF]
    for byte in (1, 2, 3):
        shifted = shifted ^ _SHIFTS[byte][(crc >> np.uint32(8 * byte)) & 0xFF]
    return shifted


_TABLE, _TABLE_OF_PAIRS = _make_table(8), _make_table(16)
_SHIFTS = _make_shifts()
