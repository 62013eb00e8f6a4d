"""STUN as ICE uses it (RFC 8489, RFC 8445): Binding requests and their answers, short-term credentials.

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+---------------------------+-------------------------------+
    |0 0|     message type          |  length (without this header) |
    +---+---------------------------+-------------------------------+
    |                   magic cookie 0x2112A442                     |
    +---------------------------------------------------------------+
    |                   transaction id (96 bits)                    |
    +-------------------------------+-------------------------------+
    |        attribute type         |        attribute length       |
    +-------------------------------+-------------------------------+
    |  value, padded to four bytes …                                |
    +---------------------------------------------------------------+

Owns: the bytes of a message, MESSAGE-INTEGRITY and FINGERPRINT. Does not own: whom a ufrag belongs to, what an agent
does with a check, retransmission.

Invariants: network bytes raise StunError and nothing else; its ``reason`` is the drop reason to count. A message that
parses has the exact length that it states, and its FINGERPRINT, if it has one, is right (RFC 8445 asks agents to send
one; an absent one is tolerated because MESSAGE-INTEGRITY covers what matters). Nothing after MESSAGE-INTEGRITY is
believed but MESSAGE-INTEGRITY-SHA256 and FINGERPRINT (RFC 8489 §14.5). Of a repeated attribute the first counts (§14).

ICE (RFC 8445) has MESSAGE-INTEGRITY; who has read RFC 8489 may send MESSAGE-INTEGRITY-SHA256 beside it or alone. Where it is
there it is the one that must be right (§9.1.3), and the answer carries the one that the check was verified by and no other.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from zlib import crc32

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason

MAGIC_COOKIE = 0x2112A442
HEADER_BYTES = 20
TRANSACTION_ID_BYTES = 12

BINDING_REQUEST = 0x0001
BINDING_SUCCESS = 0x0101
BINDING_ERROR = 0x0111

USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
MESSAGE_INTEGRITY_SHA256 = 0x001C
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A
XOR_MAPPED_ADDRESS = 0x0020
PRIORITY = 0x0024
USE_CANDIDATE = 0x0025
SOFTWARE = 0x8022
FINGERPRINT = 0x8028
ICE_CONTROLLED = 0x8029
ICE_CONTROLLING = 0x802A

# Below this, an attribute that one does not know must not be ignored (RFC 8489 §14).
_FIRST_COMPREHENSION_OPTIONAL = 0x8000
_INTEGRITY_BYTES = 4 + 20
_SHA256_BYTES = 32  # a shorter one is for usages that say so (RFC 8489 §14.6), and ICE does not
_FINGERPRINT_BYTES = 4 + 4
_FINGERPRINT_XOR = 0x5354554E  # "STUN"
_PEEKED_ATTRIBUTES = 8  # clients put USERNAME first, or behind one or two
_MAX_USERNAME_BYTES = 508  # RFC 8489 §14.3: less than 509

FORBIDDEN = 403  # to whom checks whether there is consent: there is none any more (RFC 7675 section 5.2)
_ERROR_REASONS = {
    400: b"Bad Request",
    401: b"Unauthenticated",
    403: b"Forbidden",
    420: b"Unknown Attribute",
    487: b"Role Conflict",
}

_sha1 = hashlib.sha1  # what RFC 8489 section 14.5 has
_SHA1_BLOCK_BYTES = 64
_INNER_PAD, _OUTER_PAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))

_REQUESTS = frozenset({BINDING_REQUEST})
_RESPONSES = frozenset({BINDING_SUCCESS, BINDING_ERROR})
_RESPONSE_HEADS = frozenset(kind.to_bytes(2) for kind in _RESPONSES)

_HEADER = Struct("!HHI12s")
_ATTRIBUTE = Struct("!HH")
_U16 = Struct("!H")
_U32 = Struct("!I")
_U64 = Struct("!Q")


class StunError(ValueError):
    """Not a STUN message that we read. ``reason`` is the drop reason to count."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(f"not a usable STUN message: {reason}")
        self.reason = reason


@dataclass(slots=True)
class BindingRequest:
    """A well-formed connectivity check, **not yet authentic**: see `verify_integrity`."""

    data: bytes
    transaction_id: bytes
    server_ufrag: bytes
    client_ufrag: bytes
    priority: int | None = None
    use_candidate: bool = False
    ice_controlling: int | None = None  # the tie-breaker
    ice_controlled: int | None = None
    unknown_attributes: tuple[int, ...] = ()  # comprehension-required ones: an agent must not act on the request (420)
    integrity_offset: int = 0  # 0: none
    sha256_offset: int = 0


@dataclass(slots=True)
class BindingResponse:
    """The answer to a check, **not yet authentic**: see `verify_integrity`. Either ``mapped`` or ``error_code``."""

    data: bytes
    transaction_id: bytes
    mapped: Address | None
    error_code: int | None
    integrity_offset: int
    sha256_offset: int = 0


def peek_server_ufrag(data: bytes) -> bytes | None:
    """Return the server ufrag that a check seems to carry, looking at its first attributes only: to sort checks before any of
    them is parsed. Never to believe one. None when there is none.
    """
    offset = HEADER_BYTES
    for _ in range(_PEEKED_ATTRIBUTES):
        if offset + 4 > len(data):
            return None
        kind, length = _ATTRIBUTE.unpack_from(data, offset)
        if kind == USERNAME:
            return data[offset + 4 : offset + 4 + length].partition(b":")[0]
        offset += 4 + (length + 3 & ~3)
    return None


def parse_binding_request(data: bytes) -> BindingRequest:
    """Return the Binding request in a datagram. Raises StunError only."""
    transaction_id = _parse_header(data, _REQUESTS)
    size = len(data)
    username: bytes | None = None
    priority = controlling = controlled = None
    use_candidate = False
    integrity_offset = sha256_offset = 0
    unknown: list[int] = []
    offset = HEADER_BYTES
    while offset < size:
        kind, length, end = _parse_attribute_head(data, offset, size)
        value = offset + 4
        if kind == FINGERPRINT:
            _check_fingerprint(data, offset, length, end, size)
        elif kind == MESSAGE_INTEGRITY_SHA256:
            sha256_offset = sha256_offset or _sha256_at(offset, length)
        elif integrity_offset or sha256_offset:
            pass
        elif kind == USERNAME:
            if username is None:
                username = data[value : value + length]
        elif kind == MESSAGE_INTEGRITY:
            if length != 20:
                raise StunError(DropReason.STUN_MALFORMED)
            integrity_offset = offset
        elif kind == PRIORITY:
            if length != 4:
                raise StunError(DropReason.STUN_MALFORMED)
            (priority,) = _U32.unpack_from(data, value)
        elif kind == USE_CANDIDATE:
            use_candidate = True
        elif kind in (ICE_CONTROLLING, ICE_CONTROLLED):
            if length != 8:
                raise StunError(DropReason.STUN_MALFORMED)
            if kind == ICE_CONTROLLING:
                (controlling,) = _U64.unpack_from(data, value)
            else:
                (controlled,) = _U64.unpack_from(data, value)
        elif kind < _FIRST_COMPREHENSION_OPTIONAL:
            unknown.append(kind)
        offset = end
    if username is None:
        raise StunError(DropReason.STUN_NO_USERNAME)
    # RFC 8445 §7.2.2: the receiver's ufrag, a colon, the sender's. A colon is no ice-char.
    server_ufrag, colon, client_ufrag = username.partition(b":")
    if not colon or not server_ufrag or not client_ufrag or len(username) > _MAX_USERNAME_BYTES:
        raise StunError(DropReason.STUN_NO_USERNAME)
    return BindingRequest(
        data,
        transaction_id,
        server_ufrag,
        client_ufrag,
        priority,
        use_candidate,
        controlling,
        controlled,
        tuple(unknown),
        integrity_offset,
        sha256_offset,
    )


def is_response(data: bytes) -> bool:
    """Say whether a STUN message is the answer to a check, by its first two bytes."""
    return data[:2] in _RESPONSE_HEADS


def parse_binding_response(data: bytes) -> BindingResponse:
    """Return the answer to a Binding request: for clients and tests; a lite agent sends no checks. StunError only."""
    transaction_id = _parse_header(data, _RESPONSES)
    size = len(data)
    mapped: Address | None = None
    error_code: int | None = None
    integrity_offset = sha256_offset = 0
    offset = HEADER_BYTES
    while offset < size:
        kind, length, end = _parse_attribute_head(data, offset, size)
        value = offset + 4
        if kind == FINGERPRINT:
            _check_fingerprint(data, offset, length, end, size)
        elif kind == MESSAGE_INTEGRITY_SHA256:
            sha256_offset = sha256_offset or _sha256_at(offset, length)
        elif integrity_offset or sha256_offset:
            pass
        elif kind == MESSAGE_INTEGRITY:
            if length != 20:
                raise StunError(DropReason.STUN_MALFORMED)
            integrity_offset = offset
        elif kind == XOR_MAPPED_ADDRESS:
            mapped = mapped or _parse_xor_address(data[value : value + length], transaction_id)
        elif kind == ERROR_CODE:
            if length < 4:
                raise StunError(DropReason.STUN_MALFORMED)
            error_code = (data[value + 2] & 7) * 100 + data[value + 3]
        offset = end
    return BindingResponse(data, transaction_id, mapped, error_code, integrity_offset, sha256_offset)


def verify_integrity(message: BindingRequest | BindingResponse, key: bytes) -> bool:
    """Say whether the message's integrity is there and made with ``key`` (the ICE password of the one who answers checks)."""
    data, offset = message.data, message.sha256_offset
    if offset:
        found = data[offset + 4 : offset + 4 + _SHA256_BYTES]
        return hmac.compare_digest(hmac.digest(key, _covered(data, offset, _SHA256_BYTES), "sha256"), found)
    offset = message.integrity_offset
    if not offset:
        return False
    covered = _covered(data, offset, _INTEGRITY_BYTES - 4)
    return hmac.compare_digest(hmac_sha1(key, covered), data[offset + 4 : offset + _INTEGRITY_BYTES])


def _covered(data: bytes, offset: int, value_bytes: int) -> bytes:
    """The HMAC covers the message up to the attribute, with a length field as if the attribute were its end."""
    return b"".join((data[:2], _U16.pack(offset + 4 + value_bytes - HEADER_BYTES), data[4:offset]))


def hmac_sha1(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA1 (RFC 2104), spelled out.

    `hmac.digest` has OpenSSL find its HMAC by name for each message: 1.6 times the time in a loop, and more than twice in a
    relay whose media goes through the kernel, where each check finds cold caches and this is its dearest step.
    """
    if len(key) > _SHA1_BLOCK_BYTES:
        key = _sha1(key).digest()
    key = key.ljust(_SHA1_BLOCK_BYTES, b"\0")
    inner = _sha1(key.translate(_INNER_PAD) + message).digest()
    return _sha1(key.translate(_OUTER_PAD) + inner).digest()


def build_binding_success(transaction_id: bytes, mapped: Address, key: bytes, *, sha256: bool = False) -> bytes:
    """Return the success response (64 bytes for IPv4, 76 for IPv6: less than any check a browser sends; 12 more with ``sha256``)."""
    mapped_address = (XOR_MAPPED_ADDRESS, _build_xor_address(mapped, transaction_id))
    return _seal(BINDING_SUCCESS, transaction_id, [mapped_address], key, sha256=sha256)


def build_binding_error(
    transaction_id: bytes, code: int, key: bytes, unknown_attributes: Iterable[int] = (), *, sha256: bool = False
) -> bytes:
    """Return an error response. A lite agent needs 487 (the peer claims the controlled role), 403 (its call is over) and, where it
    chooses to answer at all, 420 (with the attributes that it does not know).
    """
    attributes = [(ERROR_CODE, bytes((0, 0, code // 100, code % 100)) + _ERROR_REASONS.get(code, b""))]
    unknown = b"".join(map(_U16.pack, unknown_attributes))
    if unknown:
        attributes.append((UNKNOWN_ATTRIBUTES, unknown))
    return _seal(BINDING_ERROR, transaction_id, attributes, key, sha256=sha256)


def build_binding_request(
    transaction_id: bytes,
    username: str,
    key: bytes | None,
    *,
    priority: int = 0x6E7F1EFF,
    use_candidate: bool = False,
    ice_controlling: int | None = 1,
    ice_controlled: int | None = None,
    extra: Iterable[tuple[int, bytes]] = (),
    sha1: bool = True,
    sha256: bool = False,
) -> bytes:
    """Return a connectivity check: for clients and tests. ``username`` is ``server_ufrag:client_ufrag``; no ``key``
    means no MESSAGE-INTEGRITY of either kind; ``extra`` attributes stand before it.
    """
    attributes = [(USERNAME, username.encode()), (PRIORITY, _U32.pack(priority))]
    if use_candidate:
        attributes.append((USE_CANDIDATE, b""))
    if ice_controlling is not None:
        attributes.append((ICE_CONTROLLING, _U64.pack(ice_controlling)))
    if ice_controlled is not None:
        attributes.append((ICE_CONTROLLED, _U64.pack(ice_controlled)))
    return _seal(BINDING_REQUEST, transaction_id, [*attributes, *extra], key, sha1=sha1, sha256=sha256)


def _parse_header(data: bytes, message_types: frozenset[int]) -> bytes:
    if len(data) < HEADER_BYTES:
        raise StunError(DropReason.STUN_MALFORMED)
    message_type, length, cookie, transaction_id = _HEADER.unpack_from(data)
    if cookie != MAGIC_COOKIE or length & 3 or length + HEADER_BYTES != len(data) or message_type & 0xC000:
        raise StunError(DropReason.STUN_MALFORMED)
    if message_type not in message_types:
        raise StunError(DropReason.STUN_NOT_REQUEST)
    return bytes(transaction_id)


def _parse_attribute_head(data: bytes, offset: int, size: int) -> tuple[int, int, int]:
    # size and offset are multiples of four, so four bytes of head are there.
    kind, length = _ATTRIBUTE.unpack_from(data, offset)
    end = offset + 4 + (length + 3 & ~3)
    if end > size:
        raise StunError(DropReason.STUN_MALFORMED)
    return kind, length, end


def _check_fingerprint(data: bytes, offset: int, length: int, end: int, size: int) -> None:
    if length != 4 or end != size:  # RFC 8489 §14.7: the last attribute
        raise StunError(DropReason.STUN_MALFORMED)
    if _U32.unpack_from(data, offset + 4)[0] != crc32(data[:offset]) ^ _FINGERPRINT_XOR:
        raise StunError(DropReason.STUN_BAD_FINGERPRINT)


def _build_xor_address(address: Address, transaction_id: bytes) -> bytes:
    packed = ipaddress.ip_address(address.host).packed
    family = 1 if len(packed) == 4 else 2
    mask = _U32.pack(MAGIC_COOKIE) + transaction_id
    xored = bytes(a ^ b for a, b in zip(packed, mask, strict=False))
    return bytes((0, family)) + _U16.pack(address.port ^ MAGIC_COOKIE >> 16) + xored


def _parse_xor_address(value: bytes, transaction_id: bytes) -> Address:
    family_bytes = {1: 4, 2: 16}.get(value[1]) if len(value) >= 4 else None
    if family_bytes is None or len(value) != 4 + family_bytes:
        raise StunError(DropReason.STUN_MALFORMED)
    mask = _U32.pack(MAGIC_COOKIE) + transaction_id
    packed = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    return Address(str(ipaddress.ip_address(packed)), _U16.unpack_from(value, 2)[0] ^ MAGIC_COOKIE >> 16)


def _sha256_at(offset: int, length: int) -> int:
    if length != _SHA256_BYTES:
        raise StunError(DropReason.STUN_MALFORMED)
    return offset


def _seal(
    message_type: int,
    transaction_id: bytes,
    attributes: list[tuple[int, bytes]],
    key: bytes | None,
    *,
    sha1: bool | None = None,
    sha256: bool = False,
) -> bytes:
    """Frame the attributes and close them with MESSAGE-INTEGRITY (if there is a key; by default of one kind) and FINGERPRINT."""
    body = b"".join(_ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4) for kind, value in attributes)
    if key is not None and (not sha256 if sha1 is None else sha1):
        head = _HEADER.pack(message_type, len(body) + _INTEGRITY_BYTES, MAGIC_COOKIE, transaction_id)
        body += _ATTRIBUTE.pack(MESSAGE_INTEGRITY, 20) + hmac_sha1(key, head + body)
    if key is not None and sha256:
        head = _HEADER.pack(message_type, len(body) + 4 + _SHA256_BYTES, MAGIC_COOKIE, transaction_id)
        body += _ATTRIBUTE.pack(MESSAGE_INTEGRITY_SHA256, _SHA256_BYTES) + hmac.digest(key, head + body, "sha256")
    head = _HEADER.pack(message_type, len(body) + _FINGERPRINT_BYTES, MAGIC_COOKIE, transaction_id)
    fingerprint = crc32(head + body) ^ _FINGERPRINT_XOR
    return head + body + _ATTRIBUTE.pack(FINGERPRINT, 4) + _U32.pack(fingerprint)
