"""The heads of gRPC's calls: what a request's fields say, and the fields of answers.

Enters: fields of HTTP/2.  Leaves: `Head`, the same for the same fields, so that it is read once for
all the equal ones of a connection; and header blocks, ready to be sent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mlplatform.errors import InvalidArgument, PlatformError, ResourceExhausted
from mlplatform.serving.doors import API_KEY
from mlplatform.serving.grpc_methods import Method, Unimplemented, status_of
from mlplatform.serving.hpack import Field, literal
from mlplatform.serving.http2_frames import check_request

COMPRESSIONS = {b"identity": 0, b"gzip": 31, b"deflate": 15}  # zlib's window bits; 0 is none
_TYPE = b"application/grpc"
_STATUS_200 = b"\x88"  # of the static table
OK_HEAD = _STATUS_200 + literal(b"content-type", _TYPE)
OK_TRAILERS = literal(b"grpc-status", b"0")
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_READABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")  # of a grpc-message
_NONE = Method(lambda request, context: None, "unary", bytes, guarded=False)
_MAX_TEXT = 64  # characters of what was sent that an error repeats


@dataclass(frozen=True, slots=True)
class Head:
    """What a request is.

    refusal: the header block to answer with at once, if nothing else is to be done; the method
        then is none of the server's.
    timeout_s: that the client waits; None if it did not say.
    window_bits: zlib's, of compressed messages; 0 if there may be none.
    """

    path: str
    method: Method
    refusal: bytes = b""
    timeout_s: float | None = None
    window_bits: int = 0
    key: bytes | None = None


def read_head(fields: list[Field] | None, methods: Mapping[bytes, tuple[str, Method]]) -> Head:
    """
    Args:
        fields: None if there were more than are read.

    Raises:
        StreamFault: the fields are no request's.
    """
    if fields is None:
        return _refused(ResourceExhausted("the metadata are too long"))
    check_request(fields)
    said = dict(fields)
    if said[b":method"] != b"POST":
        return Head("", _NONE, _http_status(b"405"))
    kind = said.get(b"content-type", b"")
    if not kind.startswith(_TYPE) or kind[len(_TYPE) : len(_TYPE) + 1] not in (b"", b"+", b";"):
        return Head("", _NONE, _http_status(b"415"))
    path, method = methods.get(said[b":path"], ("", _NONE))
    if method is _NONE:
        return _refused(Unimplemented(f"there is no method {_shown(said[b':path'])}"))
    timeout, timeout_s = said.get(b"grpc-timeout"), None
    if timeout is not None:
        stated = _TIMEOUT.fullmatch(timeout)
        if stated is None:
            return _refused(InvalidArgument(f"grpc-timeout: no duration: {_shown(timeout)}"))
        timeout_s = int(stated[1]) * _SECONDS[stated[2]]
    encoding = said.get(b"grpc-encoding", b"identity")
    if encoding not in COMPRESSIONS:
        known = literal(b"grpc-accept-encoding", b",".join(COMPRESSIONS))
        error = Unimplemented(f"grpc-encoding {_shown(encoding)} is not read")
        return Head("", _NONE, OK_HEAD + known + error_fields(error)[1])
    return Head(path, method, b"", timeout_s, COMPRESSIONS[encoding], said.get(API_KEY))


def error_fields(error: PlatformError) -> tuple[str, bytes]:
    """An error as its status' name, and the fields that tell it."""
    code, text, trailing = status_of(error)
    number: Any = code.value[0]
    fields = literal(b"grpc-status", b"%d" % number)
    fields += literal(b"grpc-message", quote(text, safe=_READABLE).encode())
    for name, value in trailing:
        fields += literal(name.encode(), value.encode())
    return code.name, fields


def _refused(error: PlatformError) -> Head:
    return Head("", _NONE, OK_HEAD + error_fields(error)[1])


def _http_status(status: bytes) -> bytes:
    return b"\x08" + bytes([len(status)]) + status  # the static table's name


def _shown(sent: bytes) -> str:
    return sent.decode("latin-1")[:_MAX_TEXT]
