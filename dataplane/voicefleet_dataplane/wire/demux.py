"""What a datagram is, from its first bytes (RFC 7983 §7, RFC 5761 §4).

::

    first byte      what                     who reads it
      0 …   3       STUN                     relay (requests) and owner
     16 …  19       ZRTP                     nobody here: unknown
     20 …  63       DTLS                     owner
     64 …  79       TURN channel data        nobody here: unknown
     86 = 0x56      Simple Proxy Protocol    between relay and owner, inner socket only
    128 … 191       RTP, or RTCP when the
                    second byte is 192 … 223 owner
    all others      unknown

0x56 lies in a range (80 … 127) that RFC 9443 gives to QUIC, which never shares a socket with us. Classification says
nothing about validity: each kind has its own parser.
"""

from enum import IntEnum


class Kind(IntEnum):
    """The protocols that can share one of our sockets."""

    UNKNOWN = 0
    STUN = 1
    DTLS = 2
    RTP = 3
    RTCP = 4
    SPP = 5


SPP_FIRST_BYTE = 0x56

_BY_FIRST_BYTE: tuple[Kind, ...] = tuple(
    Kind.STUN
    if byte <= 3
    else Kind.DTLS
    if 20 <= byte <= 63
    else Kind.SPP
    if byte == SPP_FIRST_BYTE
    else Kind.RTP
    if 128 <= byte <= 191
    else Kind.UNKNOWN
    for byte in range(256)
)


def classify(data: bytes | memoryview) -> Kind:
    """Return the kind of a datagram. Never raises: an empty one is unknown."""
    if not data:
        return Kind.UNKNOWN
    kind = _BY_FIRST_BYTE[data[0]]
    # RFC 5761: RTP payload types 64–95 are not used beside RTCP, so 192–223 in the second byte (with marker) is RTCP.
    if kind is Kind.RTP and len(data) > 1 and 192 <= data[1] <= 223:
        return Kind.RTCP
    return kind
