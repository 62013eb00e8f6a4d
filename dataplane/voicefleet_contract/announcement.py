"""An announcement: a relay tells an owner that a flow is with it now, without a packet of the client to carry the news.

It follows the SPP header of the flow (spp.py), where otherwise the client's datagram would::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +---------------------------------------------------------------+
    |          SPP header: client, relay (38 bytes) ...             |
    +---------------+-----+---------+-------------------------------+
    |     0x56      | ver |key epoch|                               :
    +---------------+-----+---------+                               :
    :                  Unix time in ms (48 bits)                    |
    +---------------------------------------------------------------+
    |                                                               |
    |              tag (truncated HMAC-SHA-256, 128 bits)           |
    |                                                               |
    +---------------------------------------------------------------+

62 bytes. SPP inside SPP means nothing else, so an owner of an older version takes it for a packet of an unknown kind, counts and
drops it, and learns the relay from the client's next check, as ever.

The tag covers the header, the time, and the cluster, slot and generation of the owner: an announcement says one thing about one
client to one owner. The time is there against repetition: the owner believes a client's announcements in ascending order only
(core/call/ice.py), so one that was believed once is never believed again.

Owns: the bytes. Does not own: what an owner does on hearing it (core/transceiver/transceiver.py).
"""

import hashlib
import hmac
from dataclasses import dataclass

from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import FIRST_BYTE

VERSION = 1
ANNOUNCEMENT_BYTES = 24  # behind the SPP header
MAX_UNIX_MS = (1 << 48) - 1

_SAID_BYTES = 8
_PURPOSE = b"voicefleet announcement v1"


class AnnouncementError(ValueError):
    """Not an announcement to this owner. ``reason`` is one of: length, version, key_epoch, tag."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not an announcement: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Addressee:
    """The owner that an announcement is for."""

    cluster: int
    slot: int
    generation: int


def encode_announcement(header: bytes, to: Addressee, unix_ms: int, keys: KeyRing) -> bytes:
    """Return the whole datagram: the flow's SPP header, and the announcement."""
    said = bytes([FIRST_BYTE, VERSION << 5 | keys.signing]) + unix_ms.to_bytes(6, "big")
    tag = _tag(header, said, to, keys.signing, keys)
    assert tag is not None, "a key ring holds the epoch that signs"
    return header + said + tag


def decode_announcement(payload: bytes, header: bytes, to: Addressee, keys: KeyRing) -> int:
    """Return when an authentic announcement was made, in Unix ms. Raises AnnouncementError and nothing else."""
    if len(payload) < 2 or payload[0] != FIRST_BYTE or payload[1] >> 5 != VERSION:
        raise AnnouncementError("version")
    if len(payload) != ANNOUNCEMENT_BYTES:
        raise AnnouncementError("length")
    said = payload[:_SAID_BYTES]
    tag = _tag(header, said, to, payload[1] & 0x1F, keys)
    if tag is None:
        raise AnnouncementError("key_epoch")
    if not hmac.compare_digest(tag, payload[_SAID_BYTES:]):
        raise AnnouncementError("tag")
    return int.from_bytes(said[2:], "big")


def _tag(header: bytes, said: bytes, to: Addressee, key_epoch: int, keys: KeyRing) -> bytes | None:
    key = keys.purpose_key(key_epoch, _PURPOSE)
    if key is None:
        return None
    place = to.cluster.to_bytes(2, "big") + to.slot.to_bytes(3, "big") + to.generation.to_bytes(2, "big")
    return hmac.digest(key, header + said + place, hashlib.sha256)[: ANNOUNCEMENT_BYTES - _SAID_BYTES]
