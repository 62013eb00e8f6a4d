"""The hint: routing fields inside the server ufrag, so that the first packet of a call names its owner.

A client copies the server's ufrag into USERNAME of every STUN check (RFC 8445 §7.2.2). Whoever holds the fleet's key
reads from it, with no look-up, which transceiver owns the session::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-----+---------+-------------------------------+---------------+
    | ver |key epoch|            cluster            |      slot     :
    +-----+---------+---------------+---------------+---------------+
    :             slot              |          generation           |
    +-------------------------------+-------------------------------+
    |                             nonce                             |
    +---------------------------------------------------------------+
    |                     tag (truncated HMAC-SHA-256)              :
    +-------------------------------+-------------------------------+
    :              tag              |
    +-------------------------------+

18 bytes are exactly 24 base64 characters, and base64's alphabet ``A–Z a–z 0–9 + /`` is exactly RFC 8839's ice-char:
no padding, one spelling per hint.

The tag is a cheap first filter: 48 bits keep strangers from the second, dearer one, MESSAGE-INTEGRITY, whose password
is derived from the ufrag too (`ice_pwd`). A relay therefore authenticates a check with no state and no look-up. The
price: whoever steals the key can disturb the path of any call. They cannot decrypt one: DTLS keys are elsewhere.

Owns: the bytes. Does not own: whether slot and generation exist (topology), nor that a nonce is fresh (transceiver).
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

from voicefleet_contract.keys import KeyRing

VERSION = 1
UFRAG_CHARS = 24
MAX_GENERATION = 0xFFFF
MAX_SLOT = 0xFFFFFF

_BODY_BYTES = 12
_TAG_BYTES = 6
_ICE_CHARS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_TAG_PURPOSE = b"voicefleet hint v1 tag"
_PWD_PURPOSE = b"voicefleet hint v1 ice-pwd"


class HintError(ValueError):
    """Not a hint of ours. ``reason`` is one of: length, alphabet, version, key_epoch, tag."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a hint: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Hint:
    """The fields of a server ufrag. ``slot`` is unique in a cluster; ``generation`` counts the slot's pods."""

    key_epoch: int
    cluster: int
    slot: int
    generation: int
    nonce: int


def encode_hint(hint: Hint, keys: KeyRing) -> str:
    """Return the server ufrag (24 ice-chars). Raises ValueError for a field that does not fit or an unknown epoch."""
    body = bytes([VERSION << 5 | hint.key_epoch]) + b"".join(
        value.to_bytes(size, "big")
        for value, size in ((hint.cluster, 2), (hint.slot, 3), (hint.generation, 2), (hint.nonce, 4))
    )
    tag = _tag(body, hint.key_epoch, keys)
    if tag is None:
        raise ValueError(f"key epoch {hint.key_epoch} is not in the key ring {keys.epochs}")
    return base64.b64encode(body + tag).decode()


def decode_hint(ufrag: str | bytes, keys: KeyRing) -> Hint:
    """Return the fields of an authentic ufrag. Raises HintError and nothing else, whatever the bytes."""
    raw = _unpack(ufrag)
    hint = _fields(raw)
    tag = _tag(raw[:_BODY_BYTES], hint.key_epoch, keys)
    if tag is None:
        raise HintError("key_epoch")
    if not hmac.compare_digest(tag, raw[_BODY_BYTES:]):
        raise HintError("tag")
    return hint


def peek_hint(ufrag: str | bytes) -> Hint:
    """Return the fields without checking the tag: for people, and to drop a packet early. Never to forward one."""
    return _fields(_unpack(ufrag))


def ice_pwd(ufrag: str, key_epoch: int, keys: KeyRing) -> str:
    """Return the ice-pwd (32 ice-chars, 192 bits) that belongs to a ufrag. Raises HintError("key_epoch")."""
    key = keys.purpose_key(key_epoch, _PWD_PURPOSE)
    if key is None:
        raise HintError("key_epoch")
    return base64.b64encode(hmac.digest(key, ufrag.encode("ascii"), hashlib.sha256)[:24]).decode()


def _tag(body: bytes, key_epoch: int, keys: KeyRing) -> bytes | None:
    key = keys.purpose_key(key_epoch, _TAG_PURPOSE)
    return key and hmac.digest(key, body, hashlib.sha256)[:_TAG_BYTES]


def _unpack(ufrag: str | bytes) -> bytes:
    if len(ufrag) != UFRAG_CHARS:
        raise HintError("length")
    try:
        raw = ufrag.encode("ascii") if isinstance(ufrag, str) else ufrag
        if not _ICE_CHARS.issuperset(raw):
            raise HintError("alphabet")
        return binascii.a2b_base64(raw)
    except (UnicodeEncodeError, binascii.Error):
        raise HintError("alphabet") from None


def _fields(raw: bytes) -> Hint:
    if raw[0] >> 5 != VERSION:
        raise HintError("version")
    return Hint(
        key_epoch=raw[0] & 0x1F,
        cluster=int.from_bytes(raw[1:3], "big"),
        slot=int.from_bytes(raw[3:6], "big"),
        generation=int.from_bytes(raw[6:8], "big"),
        nonce=int.from_bytes(raw[8:12], "big"),
    )
