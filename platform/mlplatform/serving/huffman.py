"""Huffman's code of HPACK (RFC 7541, appendix B), decoded four bits at a time.

Enters: coded bytes.  Leaves: the text.  The code is canonical: codes of one length count upwards in
the order of their symbols, so the lengths say everything.  A text may end in the middle of a byte,
which is filled up with the beginning of the code of the end, all ones.
"""

_LENGTHS = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b"!\"()?",
    11: b"'+|",
    12: b"#>",
    13: b"\0$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: bytes([128, 130, 131, 162, 184, 194, 224, 226]),
    21: bytes([153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230]),
    22: bytes([129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185,
               186, 187, 189, 190, 196, 198, 228, 232, 233]),
    23: bytes([1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165,
               166, 168, 174, 175, 180, 182, 183, 188, 191, 197, 231, 239]),
    24: bytes([9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237]),
    25: bytes([199, 207, 234, 235]),
    26: bytes([192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255]),
    27: bytes([203, 204, 211, 212, 214, 221, 222, 223, 241, *range(244, 249), *range(250, 255)]),
    28: bytes([*range(2, 9), 11, 12, *range(14, 22), *range(23, 32), 127, 220, 249]),
    30: bytes([10, 13, 22]),
}  # fmt: skip
_NIBBLE = 4  # bits; shorter than any code, so that one step completes at most one symbol
_PADDING = 7  # bits at most


def code() -> dict[int, tuple[int, int]]:
    """Of each symbol, 0 to 255, its code and how many bits that has."""
    found, following, before = {}, 0, 0
    for length, symbols in _LENGTHS.items():
        following <<= length - before
        for symbol in symbols:
            found[symbol] = following, length
            following += 1
        before = length
    return found


def _steps() -> tuple[list[list[tuple[int, bytes] | None]], set[int]]:
    """-> (from each state by each nibble, the next state and what is complete; where a text may
    end).  A state is a beginning of a code; None is what no code has, the end's included."""
    leaves = {(length, bits): bytes([symbol]) for symbol, (bits, length) in code().items()}
    states = {(0, 0): 0}
    for length, bits in leaves:
        for cut in range(1, length):
            states.setdefault((cut, bits >> (length - cut)), len(states))
    steps: list[list[tuple[int, bytes] | None]] = []
    for length, bits in list(states):
        row: list[tuple[int, bytes] | None] = []
        for nibble in range(1 << _NIBBLE):
            at, complete, known = (length, bits), b"", True
            for shift in reversed(range(_NIBBLE)):
                at = at[0] + 1, at[1] << 1 | nibble >> shift & 1
                if at in leaves:
                    complete, at = leaves[at], (0, 0)
                elif at not in states:
                    known = False
                    break
            row.append((states[at], complete) if known else None)
        steps.append(row)
    ends = {states[length, (1 << length) - 1] for length in range(_PADDING + 1)}
    return steps, ends


_STEPS, _ENDS = _steps()


def decoded(coded: bytes) -> bytes:
    """
    Raises:
        ValueError: it is no text in this code.
    """
    state, text = 0, bytearray()
    for byte in coded:
        for nibble in (byte >> _NIBBLE, byte & 0xF):
            step = _STEPS[state][nibble]
            if step is None:
                raise ValueError("no code of Huffman's")
            state, complete = step
            text += complete
    if state not in _ENDS:
        raise ValueError("a text of Huffman's that ends in the middle of a symbol")
    return bytes(text)
