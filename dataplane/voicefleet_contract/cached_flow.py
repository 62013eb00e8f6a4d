"""A flow as it stands in the flow cache: who owns a client address, under a MAC, 16 bytes::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-----+---------+-----------------------------------------------+
    | ver |key epoch|                     slot                      |
    +-----+---------+---------------+-------------------------------+
    |          generation           |                               :
    +-------------------------------+                               :
    :                tag (truncated HMAC-SHA-256)                   |
    +---------------------------------------------------------------+

A relay that gets media of a client that it does not know reads here who owns it. The record names a slot and a generation and
never an address: what is not in the topology cannot be named, and a record of a replaced pod (an older generation) leads nowhere.
The tag covers cluster and client too, so that a record moved to another client's key is no record. Who can write to Redis
without the fleet's keys can therefore take records away and bring old ones back, and nothing else.

It stands under a name that is a keyed hash of the client's address: Redis knows no client.

Owns: the bytes, and the name. Does not own: the key around the name (registry), or whether the owner is there (topology).
"""

import base64
import hashlib
import hmac

from voicefleet_contract.addresses import Address
from voicefleet_contract.keys import KeyRing

VERSION = 1
CACHED_FLOW_BYTES = 16

_BODY_BYTES = 6
_NAME_BYTES = 15  # 20 characters
_PURPOSE = b"voicefleet cached flow v1"
_NAME_PURPOSE = b"voicefleet cached flow v1 name"


class CachedFlowError(ValueError):
    """Not a record of ours for this client. ``reason`` is one of: length, version, key_epoch, tag."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a cached flow: {reason}")
        self.reason = reason


def cached_flow_name(client: Address, cluster: int, keys: KeyRing) -> str:
    """Return the name of a client's record. It moves with the epoch that signs: the cache then fills anew."""
    key = keys.purpose_key(keys.signing, _NAME_PURPOSE)
    assert key is not None, "a key ring holds the epoch that signs"
    digest = hmac.digest(key, cluster.to_bytes(2, "big") + str(client).encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:_NAME_BYTES]).decode()


def encode_cached_flow(client: Address, owner: tuple[int, int], cluster: int, keys: KeyRing) -> bytes:
    """Return the record of a client whose owner is (slot, generation)."""
    slot, generation = owner
    body = bytes([VERSION << 5 | keys.signing]) + slot.to_bytes(3, "big") + generation.to_bytes(2, "big")
    tag = _tag(body, client, cluster, keys.signing, keys)
    assert tag is not None, "a key ring holds the epoch that signs"
    return body + tag


def decode_cached_flow(record: bytes, client: Address, cluster: int, keys: KeyRing) -> tuple[int, int]:
    """Return the owner (slot, generation) that an authentic record names. Raises CachedFlowError and nothing else."""
    if len(record) != CACHED_FLOW_BYTES:
        raise CachedFlowError("length")
    if record[0] >> 5 != VERSION:
        raise CachedFlowError("version")
    body = record[:_BODY_BYTES]
    tag = _tag(body, client, cluster, record[0] & 0x1F, keys)
    if tag is None:
        raise CachedFlowError("key_epoch")
    if not hmac.compare_digest(tag, record[_BODY_BYTES:]):
        raise CachedFlowError("tag")
    return int.from_bytes(body[1:4], "big"), int.from_bytes(body[4:6], "big")


def _tag(body: bytes, client: Address, cluster: int, key_epoch: int, keys: KeyRing) -> bytes | None:
    key = keys.purpose_key(key_epoch, _PURPOSE)
    if key is None:
        return None
    said = body + cluster.to_bytes(2, "big") + str(client).encode()
    return hmac.digest(key, said, hashlib.sha256)[: CACHED_FLOW_BYTES - _BODY_BYTES]
