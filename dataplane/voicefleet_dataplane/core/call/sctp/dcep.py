"""What a data channel says in SCTP messages: opening (RFC 8832) and users' messages (RFC 8831 section 6.6)."""

from dataclasses import dataclass
from struct import unpack_from

DCEP, TEXT, BYTES, EMPTY_TEXT, EMPTY_BYTES = 50, 51, 53, 56, 57  # payload protocol identifiers
ACK = b"\x02"
MAX_NAME_BYTES = 4_096  # of a label, and of a protocol
_OPEN = 3
_OPEN_BYTES = 12
_UNORDERED, _RESENDS, _LIFETIME = 0x80, 1, 2


@dataclass(frozen=True, slots=True)
class Terms:
    """What a channel promises. At most one of the last two is set; none: everything arrives."""

    label: str = ""
    protocol: str = ""
    ordered: bool = True
    max_resends: int | None = None
    lifetime_ms: int | None = None


def parse_open(message: bytes) -> Terms | None:
    """Return the terms of a DATA_CHANNEL_OPEN; None for another message, and for a malformed one."""
    if len(message) < _OPEN_BYTES or message[0] != _OPEN:
        return None
    kind, _, bound, label_bytes, protocol_bytes = unpack_from("!BHLHH", message, 1)
    names = message[_OPEN_BYTES:]
    if max(label_bytes, protocol_bytes) > MAX_NAME_BYTES or label_bytes + protocol_bytes > len(names):
        return None
    try:
        label = names[:label_bytes].decode()
        protocol = names[label_bytes : label_bytes + protocol_bytes].decode()
    except UnicodeDecodeError:
        return None
    reliability = kind & ~_UNORDERED
    if reliability not in {0, _RESENDS, _LIFETIME}:
        return None
    return Terms(
        label,
        protocol,
        ordered=not kind & _UNORDERED,
        max_resends=bound if reliability == _RESENDS else None,
        lifetime_ms=bound if reliability == _LIFETIME else None,
    )


def encode_message(message: str | bytes) -> tuple[int, bytes]:
    """Return the payload protocol and the bytes of a user's message: SCTP carries no empty ones."""
    if isinstance(message, str):
        return (TEXT, message.encode()) if message else (EMPTY_TEXT, b"\0")
    return (BYTES, message) if message else (EMPTY_BYTES, b"\0")


def decode_message(protocol: int, data: bytes) -> str | bytes | None:
    """Return a user's message; None for what is none, or no UTF-8."""
    if protocol == TEXT:
        try:
            return data.decode()
        except UnicodeDecodeError:
            return None
    if protocol == EMPTY_TEXT:
        return ""
    if protocol == EMPTY_BYTES:
        return b""
    return data if protocol == BYTES else None
