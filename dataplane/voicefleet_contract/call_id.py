"""Call ids: unguessable names of sessions that carry their owner, so that a hang-up needs no registry.

``call_`` and 32 base64url characters::

    version:3 key_epoch:5 | cluster:16 | slot:24 | generation:16 | nonce:64 | tag:64      (24 bytes)

The tag is a truncated HMAC-SHA-256: ids are given by transceivers and read by gateways, and nobody else can make one.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

from voicefleet_contract.keys import KeyRing
from voicefleet_contract.outside import decode_base64_url

VERSION = 1
PREFIX = "call_"
_BODY_BYTES, _TAG_BYTES = 16, 8
_FORM = re.compile(PREFIX + r"[A-Za-z0-9_-]{32}")
_PURPOSE = b"voicefleet call id v1"


class CallIdError(ValueError):
    """Not a call id of this fleet. ``reason``: form, version, key_epoch, tag."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a call id: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CallId:
    """The fields of a call id; ``nonce`` is 64 random bits."""

    cluster: int
    slot: int
    generation: int
    nonce: int


def encode_call_id(call: CallId, keys: KeyRing) -> str:
    """Return the text of a call id, signed with the ring's signing epoch."""
    body = bytes([VERSION << 5 | keys.signing]) + b"".join(
        value.to_bytes(size, "big")
        for value, size in ((call.cluster, 2), (call.slot, 3), (call.generation, 2), (call.nonce, 8))
    )
    tag = _tag(body, keys.signing, keys)
    assert tag is not None  # a KeyRing holds its signing epoch
    return PREFIX + base64.urlsafe_b64encode(body + tag).decode()


def decode_call_id(text: str, keys: KeyRing) -> CallId:
    """Return the fields of an authentic call id. Raises CallIdError only."""
    raw = _unpack(text)
    tag = _tag(raw[:_BODY_BYTES], raw[0] & 0x1F, keys)
    if tag is None:
        raise CallIdError("key_epoch")
    if not hmac.compare_digest(tag, raw[_BODY_BYTES:]):
        raise CallIdError("tag")
    return _fields(raw)


def peek_call_id(text: str) -> CallId:
    """Return the fields without checking the tag: for people, never to act on. Raises CallIdError only."""
    return _fields(_unpack(text))


def _tag(body: bytes, key_epoch: int, keys: KeyRing) -> bytes | None:
    key = keys.purpose_key(key_epoch, _PURPOSE)
    return key and hmac.digest(key, body, hashlib.sha256)[:_TAG_BYTES]


def _unpack(text: str) -> bytes:
    if _FORM.fullmatch(text) is None:
        raise CallIdError("form")
    raw = decode_base64_url(text[len(PREFIX) :], _BODY_BYTES + _TAG_BYTES)
    if raw[0] >> 5 != VERSION:
        raise CallIdError("version")
    return raw


def _fields(raw: bytes) -> CallId:
    return CallId(
        cluster=int.from_bytes(raw[1:3], "big"),
        slot=int.from_bytes(raw[3:6], "big"),
        generation=int.from_bytes(raw[6:8], "big"),
        nonce=int.from_bytes(raw[8:16], "big"),
    )
