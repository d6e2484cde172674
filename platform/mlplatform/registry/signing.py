"""Signatures: a record that only a holder of the registry's key can have made.

Enters: a record (a mapping that JSON can hold) and a key.  Leaves: the record with a `signature`,
an HMAC-SHA256 (RFC 2104) of its canonical JSON, so that a blessing cannot be written by hand,
carried over to other files, or altered after the fact.

The key is the environment's, where a fleet shares one, or else the registry's own file.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, FailedPrecondition, InvalidArgument
from mlplatform.registry.locks import WRITERS, locked

VARIABLE = "MLPLATFORM_SIGNING_KEY"
KEY_FILE = "signing.key"
SIGNATURE = "signature"
_SHORTEST = 32


def signing_key(root: Path) -> bytes:
    """The key that signs for the registry at `root`.

    It is `MLPLATFORM_SIGNING_KEY` where that is set, otherwise `root/signing.key`, which the first
    call creates: 32 random bytes in hex, for its owner alone.

    Raises:
        InvalidArgument: the environment's key is shorter than 32 characters.
        DataCorrupt: the file is not a key.
    """
    given = os.environ.get(VARIABLE)
    if given is not None:
        if len(given) < _SHORTEST:
            raise InvalidArgument(
                f"{VARIABLE}: expected at least {_SHORTEST} characters, got {len(given)}; set a "
                f"longer key, or unset it to use the registry's own {root / KEY_FILE}"
            )
        return given.encode()
    path = root / KEY_FILE
    if not path.exists():
        artifacts.make_directories(root)
        with locked(root / WRITERS):  # whoever comes first: two keys would be one too many
            if not path.exists():
                key = secrets.token_hex(_SHORTEST).encode()
                artifacts.write_file_atomically(path, key, mode=0o600)
    text = path.read_bytes()
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _SHORTEST:
        raise DataCorrupt(
            f"{path}: expected {2 * _SHORTEST} hexadecimal digits, got {len(text)} bytes that are "
            "not; restore the file, or delete it and judge and push the bundles again"
        )
    return key


def sign(record: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """The record with its signature, in place of any that it had."""
    return {**_unsigned(record), SIGNATURE: _signature(record, key)}


def require_signed(record: Mapping[str, Any], key: bytes, where: object) -> None:
    """See that a record is as the key's holder signed it.

    Args:
        where: what the record belongs to, for the message.

    Raises:
        FailedPrecondition: it has no signature, or was altered, or signed with another key.
    """
    found = record.get(SIGNATURE)
    if not isinstance(found, str):
        raise FailedPrecondition(
            f"{where}: its blessing is not signed, so anyone may have written it; let the gate "
            "judge the bundle"
        )
    if not hmac.compare_digest(found.encode(), _signature(record, key).encode()):
        raise FailedPrecondition(
            f"{where}: its blessing was altered, or signed with another key than this registry's "
            f"({VARIABLE}, else its {KEY_FILE}); let the gate judge the bundle with this key"
        )


def _signature(record: Mapping[str, Any], key: bytes) -> str:
    # Through JSON and back first: a record signs alike before it is stored and after it is read.
    plain = json.loads(artifacts.to_json(_unsigned(record)))
    return hmac.new(key, artifacts.to_json(plain), hashlib.sha256).hexdigest()


def _unsigned(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != SIGNATURE}
