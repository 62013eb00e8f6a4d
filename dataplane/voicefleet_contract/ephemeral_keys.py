"""Ephemeral keys (``ek_…``): what a server gives to a browser so that it may place calls for a while. Stateless.

``ek_`` and base64url, without padding, of::

    version:3 key_epoch:5 | salt:128 | AES-256-GCM( zlib( JSON{tenant, expires_at, session} ) ) | tag:128

Any gateway makes one and any gateway takes it: nothing is stored. Sealed and not only signed, because the session holds
instructions that are not for the browser's user to read. Each key is sealed with a key of its own, HMAC(purpose key, salt), so
there is no nonce that could come twice.

Owns: the format. Does not own: who may ask for one, whose tenant is still welcome (shell/gateway/admission.py).
"""

import base64
import hashlib
import hmac
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from voicefleet_contract.http_api import MAX_SESSION_BYTES
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.outside import OutsideError, decode_base64_url, parse_json
from voicefleet_contract.session_object import write_session

VERSION = 1
PREFIX = "ek_"
SALT_BYTES = 16
MIN_LIFE_S, DEFAULT_LIFE_S, MAX_LIFE_S = 10, 600, 7_200  # the Realtime API's
# A key travels in one header line. Gateways take this much; proxies in front may have to be told (docs/openai.md).
MAX_KEY_CHARS = 16_000

_PURPOSE = b"voicefleet ephemeral key v1"
_NO_NONCE = bytes(12)  # each key has its own secret
_FORM = re.compile(PREFIX + r"[A-Za-z0-9_-]{24,}")
_MAX_PLAIN_BYTES = MAX_SESSION_BYTES + 4_096


class EphemeralKeyError(ValueError):
    """Not a key that opens anything. ``reason``: form, version, key_epoch, tag, expired."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not an ephemeral key: {reason}")
        self.reason = reason


class SessionTooLargeError(ValueError):
    """The session makes a key that no header would carry."""


@dataclass(frozen=True, slots=True)
class EphemeralKey:
    """What a key says. ``expires_at``: Unix seconds."""

    tenant: str
    expires_at: int
    session: Mapping[str, Any] = field(default_factory=dict)


def encode_ephemeral_key(key: EphemeralKey, keys: KeyRing, salt: bytes) -> str:
    """Return the text of a key, sealed with the ring's signing epoch; ``salt``: fresh random bytes. Raises SessionTooLargeError."""
    assert len(salt) == SALT_BYTES
    plain = write_session({"tenant": key.tenant, "expires_at": key.expires_at, "session": dict(key.session)})
    head = bytes([VERSION << 5 | keys.signing])
    cipher = _cipher(keys, keys.signing, salt)
    assert cipher is not None  # a KeyRing holds its signing epoch
    sealed = cipher.encrypt(_NO_NONCE, zlib.compress(plain, 9), head)
    text = PREFIX + base64.urlsafe_b64encode(head + salt + sealed).rstrip(b"=").decode()
    if len(text) > MAX_KEY_CHARS or len(plain) > _MAX_PLAIN_BYTES:
        raise SessionTooLargeError(
            f"the session makes a key of {len(text)} characters, and a key, which travels in a header, has at most {MAX_KEY_CHARS}"
        )
    return text


def decode_ephemeral_key(text: str, keys: KeyRing, now: float) -> EphemeralKey:
    """Return what an authentic key says that has not expired at ``now`` (Unix seconds). Raises EphemeralKeyError only."""
    if len(text) > MAX_KEY_CHARS or _FORM.fullmatch(text) is None:
        raise EphemeralKeyError("form")
    body = text[len(PREFIX) :]
    try:
        raw = decode_base64_url(body, MAX_KEY_CHARS)
    except OutsideError:
        raise EphemeralKeyError("form") from None
    if raw[0] >> 5 != VERSION:
        raise EphemeralKeyError("version")
    head, salt, sealed = raw[:1], raw[1 : 1 + SALT_BYTES], raw[1 + SALT_BYTES :]
    cipher = _cipher(keys, raw[0] & 0x1F, salt)
    if cipher is None:
        raise EphemeralKeyError("key_epoch")
    try:
        packed = cipher.decrypt(_NO_NONCE, sealed, head)
    except (InvalidTag, ValueError):  # ValueError: shorter than a tag
        raise EphemeralKeyError("tag") from None
    said = parse_json(
        zlib.decompressobj().decompress(packed, _MAX_PLAIN_BYTES), _MAX_PLAIN_BYTES
    )  # ours: the tag says so
    if now >= said["expires_at"]:
        raise EphemeralKeyError("expired")
    return EphemeralKey(said["tenant"], said["expires_at"], said["session"])


def _cipher(keys: KeyRing, epoch: int, salt: bytes) -> AESGCM | None:
    key = keys.purpose_key(epoch, _PURPOSE)
    return None if key is None else AESGCM(hmac.digest(key, salt, hashlib.sha256))
