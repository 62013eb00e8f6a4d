"""SCTP packets and chunks as bytes (RFC 9260 section 3; FORWARD-TSN: RFC 3758; RE-CONFIG: RFC 6525).

::

    packet: source port:16 destination port:16 tag:32 CRC32c:32 (little endian), then chunks
    chunk:  type:8 flags:8 length:16 (header and value, not padding) value, padded to four bytes

A malformed packet or chunk gives None. Every list in a chunk is bounded by the packet, which DTLS bounds.
"""

from dataclasses import dataclass
from struct import Struct, error, pack, unpack_from

import google_crc32c

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT = range(7)
SHUTDOWN, SHUTDOWN_ACK, ERROR, COOKIE_ECHO, COOKIE_ACK = range(7, 12)
SHUTDOWN_COMPLETE, RE_CONFIG, FORWARD_TSN = 14, 130, 192

# Flags of DATA.
ENDS, BEGINS, UNORDERED, AT_ONCE = 1, 2, 4, 8
# ABORT and SHUTDOWN COMPLETE: the tag is the one that their receiver chose for us (RFC 9260 section 8.4).
REFLECTED = 1

# Causes of ERROR and ABORT (RFC 9260 section 3.3.10).
INVALID_STREAM, MISSING_PARAMETER, STALE_COOKIE, UNRECOGNIZED_CHUNK, INVALID_PARAMETER = 1, 2, 3, 6, 7
UNRECOGNIZED_PARAMETERS, COOKIE_WHILE_SHUTTING_DOWN, USER_ABORT, VIOLATION = 8, 10, 12, 13

HEADER_BYTES = 12
DATA_HEADER_BYTES = 16

_HEADER = Struct("!HHLL")
_CHUNK = Struct("!BBH")
_DATA = Struct("!BBHLHHL")
_SACK = Struct("!BBHLLHH")
_INIT = Struct("!LLHHL")
_NO_CHECKSUM = bytes(4)
_PADDING = (b"", bytes(3), bytes(2), bytes(1))

Chunk = tuple[int, int, bytes]  # type, flags, value


@dataclass(frozen=True, slots=True)
class Init:
    """INIT or INIT ACK. ``parameters`` are (type, value) in their order."""

    tag: int
    window: int
    outbound_streams: int
    inbound_streams: int
    tsn: int
    parameters: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Sack:
    """``gaps`` are offsets from the cumulative TSN, first and last of each block."""

    cumulative: int
    window: int
    gaps: tuple[tuple[int, int], ...]


def parse_packet(packet: bytes) -> tuple[int, list[Chunk]] | None:
    """Return the verification tag and the chunks. Ports say nothing: a DTLS association carries one of SCTP (RFC 8841)."""
    if len(packet) < HEADER_BYTES + _CHUNK.size:
        return None
    _, _, tag, _ = _HEADER.unpack_from(packet)
    if int.from_bytes(packet[8:12], "little") != google_crc32c.value(packet[:8] + _NO_CHECKSUM + packet[12:]):
        return None
    chunks: list[Chunk] = []
    at, end = HEADER_BYTES, len(packet)
    while at + _CHUNK.size <= end:
        kind, flags, length = _CHUNK.unpack_from(packet, at)
        if length < _CHUNK.size or at + length > end:
            return None
        chunks.append((kind, flags, packet[at + 4 : at + length]))
        at += (length + 3) & ~3
    return tag, chunks


def build_packet(ports: tuple[int, int], tag: int, chunks: list[bytes]) -> bytes:
    """Join built chunks to a packet; ``ports`` are ours and the peer's."""
    head = pack("!HHL", *ports, tag)
    body = b"".join(chunks)
    checksum = google_crc32c.value(head + _NO_CHECKSUM + body)
    return head + int(checksum).to_bytes(4, "little") + body


def build_chunk(kind: int, value: bytes = b"", flags: int = 0) -> bytes:
    """Build any chunk from its value, padded."""
    return _CHUNK.pack(kind, flags, 4 + len(value)) + value + _PADDING[len(value) & 3]


def build_data(flags: int, tsn: int, stream: int, ssn: int, protocol: int, payload: bytes) -> bytes:
    """Build DATA; numbers are as on the wire."""
    length = DATA_HEADER_BYTES + len(payload)
    return _DATA.pack(DATA, flags, length, tsn, stream, ssn, protocol) + payload + _PADDING[length & 3]


def parse_data(value: bytes) -> tuple[int, int, int, int, bytes] | None:
    """Return TSN, stream, SSN, payload protocol and payload. DATA without payload is a violation (section 6.9)."""
    if len(value) <= 12:
        return None
    tsn, stream, ssn, protocol = unpack_from("!LHHL", value)
    return tsn, stream, ssn, protocol, value[12:]


def build_sack(cumulative: int, window: int, gaps: list[tuple[int, int]], duplicates: list[int]) -> bytes:
    """Build SACK; gaps are offsets from the cumulative TSN."""
    flat = [edge for gap in gaps for edge in gap]
    length = _SACK.size + 2 * len(flat) + 4 * len(duplicates)
    head = _SACK.pack(SACK, 0, length, cumulative, window, len(gaps), len(duplicates))
    return bytes(head + pack(f"!{len(flat)}H{len(duplicates)}L", *flat, *duplicates))


def parse_sack(value: bytes) -> Sack | None:
    """Return a SACK without its duplicates, which nothing here reads."""
    if len(value) < 12:
        return None
    cumulative, window, gaps, duplicates = unpack_from("!LLHH", value)
    if 12 + 4 * (gaps + duplicates) > len(value):
        return None
    edges = unpack_from(f"!{2 * gaps}H", value, 12)
    return Sack(cumulative, window, tuple(zip(edges[::2], edges[1::2], strict=True)))


def build_forward_tsn(tsn: int, skipped: list[tuple[int, int]]) -> bytes:
    """Build FORWARD-TSN; ``skipped`` are streams and the last SSN that is given up in each."""
    return build_chunk(FORWARD_TSN, pack("!L", tsn) + b"".join(pack("!HH", *one) for one in skipped))


def parse_forward_tsn(value: bytes) -> tuple[int, list[tuple[int, int]]] | None:
    """Return the new cumulative TSN, and streams with SSNs."""
    if len(value) < 4 or len(value) % 4:
        return None
    numbers = unpack_from(f"!L{(len(value) - 4) // 2}H", value)
    return numbers[0], list(zip(numbers[1::2], numbers[2::2], strict=True))


def build_init(kind: int, init: Init) -> bytes:
    """Build INIT or INIT ACK."""
    fixed = _INIT.pack(init.tag, init.window, init.outbound_streams, init.inbound_streams, init.tsn)
    return build_chunk(kind, fixed + build_parameters(init.parameters))


def parse_init(value: bytes) -> Init | None:
    """Return INIT or INIT ACK."""
    if len(value) < _INIT.size:
        return None
    parameters = parse_parameters(value[_INIT.size :])
    if parameters is None:
        return None
    tag, window, outbound_streams, inbound_streams, tsn = _INIT.unpack_from(value)
    return Init(tag, window, outbound_streams, inbound_streams, tsn, tuple(parameters))


def build_parameters(parameters: tuple[tuple[int, bytes], ...]) -> bytes:
    """Build parameters or causes. All but the last are padded, and its padding is the chunk's (section 3.2.1)."""
    built = b""
    for kind, value in parameters:
        built += _PADDING[len(built) & 3] + pack("!HH", kind, 4 + len(value)) + value
    return built


def parse_parameters(value: bytes) -> list[tuple[int, bytes]] | None:
    """Return parameters or causes as (type, value)."""
    parameters, at = [], 0
    try:
        while at < len(value):
            kind, length = unpack_from("!HH", value, at)
            if length < 4 or at + length > len(value):
                return None
            parameters.append((kind, value[at + 4 : at + length]))
            at += (length + 3) & ~3
    except error:  # fewer than four bytes are left
        return None
    return parameters


def build_causes(kind: int, code: int, info: bytes = b"", flags: int = 0) -> bytes:
    """Build ERROR or ABORT with one cause."""
    return build_chunk(kind, build_parameters(((code, info),)), flags)


class Violation(Exception):  # noqa: N818  # RFC 9260's word for it: the cause "Protocol Violation"
    """The peer did what ends the association."""
