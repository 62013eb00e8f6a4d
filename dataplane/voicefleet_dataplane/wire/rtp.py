"""RTP packets (RFC 3550 section 5.1), header extensions as far as we send them (RFC 8285, MID of RFC 9143).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    |                           timestamp                           |
    |           synchronization source (SSRC) identifier            |
    |            contributing source (CSRC) identifiers ...         |
    |    extension profile and length, extension ... (if X)         |
    |                            payload ...    | padding (if P)    |

Owns the bytes of one clear packet. Does not own encryption (core/call/srtp.py) or who sent what (core/call/streams.py).
Input that is not RTP gives None, never an exception: the bytes come from the network.
"""

import struct
from typing import NamedTuple

FIXED_HEADER_BYTES = 12

_HEADER = struct.Struct("!BBHII")


class RtpPacket(NamedTuple):
    """One clear RTP packet: what a backend may look at, and nothing of its extensions or CSRCs."""

    marker: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def peek_sequence(datagram: bytes) -> int:
    """Return the sequence number of a packet of at least FIXED_HEADER_BYTES, encrypted or not."""
    return int.from_bytes(datagram[2:4])


def peek_ssrc(datagram: bytes) -> int:
    """The SSRC of an RTP packet that is long enough to have one; it is not encrypted by SRTP."""
    return int.from_bytes(datagram[8:12])


def peek_payload_type(datagram: bytes) -> int:
    """The payload type of an RTP packet that has one; SRTP does not encrypt it either."""
    return datagram[1] & 0x7F


def parse_rtp(packet: bytes) -> RtpPacket | None:
    """A clear RTP packet, or None when the lengths in it contradict each other."""
    if len(packet) < FIXED_HEADER_BYTES:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(packet)
    if first >> 6 != 2:
        return None
    start = FIXED_HEADER_BYTES + 4 * (first & 0x0F)
    if first & 0x10:
        if len(packet) < start + 4:
            return None
        start += 4 + 4 * (packet[start + 2] << 8 | packet[start + 3])
    end = len(packet)
    if first & 0x20:
        padding_bytes = packet[-1]
        if padding_bytes == 0:
            return None
        end -= padding_bytes
    if end < start:
        return None
    return RtpPacket(second > 127, second & 0x7F, sequence, timestamp, ssrc, packet[start:end])


def build_rtp(packet: RtpPacket, extension: bytes = b"") -> bytes:
    """The packet as bytes; `extension` is a whole extension block as build_mid_extension makes it, or empty."""
    header = _HEADER.pack(
        0x90 if extension else 0x80,
        (0x80 if packet.marker else 0) | packet.payload_type,
        packet.sequence,
        packet.timestamp,
        packet.ssrc,
    )
    return header + extension + packet.payload


def build_mid_extension(extension_id: int, mid: str) -> bytes:
    """The block that carries MID alone, in the one-byte form (RFC 8285 section 4.2); empty if it does not fit that form."""
    value = mid.encode()
    if not (1 <= extension_id <= 14 and 1 <= len(value) <= 16):
        return b""
    element = bytes(((extension_id << 4) | (len(value) - 1),)) + value
    element += bytes(-len(element) % 4)
    return struct.pack("!HH", 0xBEDE, len(element) // 4) + element
