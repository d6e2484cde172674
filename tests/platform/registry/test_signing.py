"""A blessing is worth the key that signed it."""

import hashlib
import hmac
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import DataCorrupt, FailedPrecondition, InvalidArgument
from mlplatform.registry.signing import VARIABLE, require_signed, sign, signing_key

KEY = b"k" * 32
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.dictionaries(st.text(), VALUES, min_size=1, max_size=4).filter(
    lambda record: "signature" not in record
)


@pytest.fixture(autouse=True)
def no_key_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_signature_is_an_hmac_of_the_records_canonical_json() -> None:
    # RFC 2104 spelled out: H(key xor opad, H(key xor ipad, text)), on the text as it is stored.
    text = b'{\n "blessed": true,\n "files": {}\n}\n'
    block = KEY.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + text).digest()
    expected = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()
    assert sign({"files": {}, "blessed": True}, KEY)["signature"] == expected


@given(RECORDS)
def test_a_signed_record_survives_storage(record: dict[str, Any]) -> None:
    signed = sign(record, KEY)
    require_signed(signed, KEY, "here")
    require_signed(json.loads(json.dumps(signed)), KEY, "here")
    assert sign(signed, KEY) == signed
    assert {name: value for name, value in signed.items() if name != "signature"} == record


@given(RECORDS, st.data())
def test_any_change_shows(record: dict[str, Any], data: st.DataObject) -> None:
    signed = sign(record, KEY)
    name = data.draw(st.sampled_from([*record, "more"]))
    value = data.draw(VALUES)
    changed = {**signed, name: value}
    if json.dumps(changed, sort_keys=True) != json.dumps(signed, sort_keys=True):
        with pytest.raises(FailedPrecondition, match="here"):
            require_signed(changed, KEY, "here")
    with pytest.raises(FailedPrecondition, match="another key"):
        require_signed(signed, KEY[1:] + b"!", "here")


def test_numbers_as_names_sign_as_they_are_stored() -> None:
    signed = sign({"checks": {2: "b", 10: "a"}}, KEY)  # in JSON "10" comes before "2"
    require_signed(json.loads(json.dumps(signed)), KEY, "here")


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: bool(compared.append(pair)))
    with pytest.raises(FailedPrecondition):
        require_signed(sign({"a": 1}, KEY), KEY, "here")
    ((found, made),) = compared
    assert found == made


def test_the_first_use_makes_a_key_for_its_owner_alone(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "registry"
    before = os.umask(0)
    try:
        key = signing_key(root)
    finally:
        os.umask(before)
    assert len(key) == 32 and key != signing_key(tmp_path / "another")
    path = root / "signing.key"
    assert path.read_text() == key.hex()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signing_key(root) == key
    assert sorted(os.listdir(root)) == ["registry.lock", "signing.key"]


def test_the_environments_key_comes_first_and_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "x" * 32)
    assert signing_key(tmp_path / "registry") == b"x" * 32
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize("given", ["", "secret", "x" * 31])
def test_a_short_key_is_refused_and_not_shown(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(InvalidArgument, match=f"at least 32 characters, got {len(given)}") as found:
        signing_key(tmp_path)
    assert not given or f"{given!r}" not in str(found.value)


@pytest.mark.parametrize("content", [b"", b"5e" * 31, b"zz" * 32, b"\xff" * 64, b"5e" * 33])
def test_a_damaged_key_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "signing.key").write_bytes(content)
    with pytest.raises(DataCorrupt, match=r"signing\.key: expected 64 hexadecimal"):
        signing_key(tmp_path)
