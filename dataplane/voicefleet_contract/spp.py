"""Simple Proxy Protocol v1 for UDP (Cloudflare's SPP), in front of each datagram between relay and transceiver::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-------------------------------+-------------------------------+
    |        magic 0x56EC           |                               :
    +-------------------------------+    client address (128 bits)  :
    :                               +-------------------------------+
    :                               |                               :
    +-------------------------------+    relay address (128 bits)   :
    :                               +-------------------------------+
    :                               |          client port          |
    +-------------------------------+-------------------------------+
    |          relay port           |  the client's datagram ...
    +-------------------------------+

38 bytes; IPv4 addresses are IPv4-mapped. The transceiver so sees the true client address, and a call survives its flow
moving to another relay. The first byte 0x56 (86) is unassigned in RFC 7983: one byte tells SPP from the rest.

Owns: the bytes. Does not own: whom to believe. A header is only worth what its sender is: take it from a relay of the
topology, and never dial an address because a header names it.
"""

import struct
from functools import lru_cache

from voicefleet_contract.addresses import Address, from_mapped, to_mapped

MAGIC = 0x56EC
FIRST_BYTE = 0x56
HEADER_BYTES = 38
LARGEST_DATAGRAM_BYTES = 1_500  # of a client: neither relays nor transceivers take a longer one

_HEADER = struct.Struct("!H16s16sHH")


class SppError(ValueError):
    """The datagram carries no SPP header: too short, or another magic."""


def encode_spp(client: Address, relay: Address) -> bytes:
    """Return the 38-byte header; the datagram follows it. Build it once per flow: it does not change."""
    return _HEADER.pack(MAGIC, to_mapped(client.host), to_mapped(relay.host), client.port, relay.port)


def decode_spp(datagram: bytes) -> tuple[Address, Address]:
    """Return (client, relay) of a datagram whose payload starts at ``HEADER_BYTES``. Raises SppError only."""
    if len(datagram) < HEADER_BYTES or datagram[:2] != b"\x56\xec":
        raise SppError("not an SPP header")
    return _decode_header(datagram[:HEADER_BYTES])


@lru_cache(maxsize=65_536)  # one entry a flow: turning 16 bytes into text costs more than the rest of the path
def _decode_header(header: bytes) -> tuple[Address, Address]:
    _, client, relay, client_port, relay_port = _HEADER.unpack(header)
    return Address(from_mapped(client), client_port), Address(from_mapped(relay), relay_port)
