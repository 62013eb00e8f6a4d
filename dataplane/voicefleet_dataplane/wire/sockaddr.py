"""Addresses as Linux writes them into memory (struct sockaddr_in, sockaddr_in6), for system calls that take many at once.

::

    sockaddr_in   family:2 (ours)  port:2 (network)  address:4   zero:8                       16 bytes
    sockaddr_in6  family:2 (ours)  port:2 (network)  flow:4      address:16   scope:4 (ours)  28 bytes

Two datagrams of one sender carry the same bytes here (the kernel zeroes what it does not use), so the bytes themselves are
a key, with no text made of them. A dual-stack socket spells IPv4 as mapped IPv6; `parse_sockaddr` normalises it.
"""

import ipaddress
from struct import Struct

from voicefleet_contract.addresses import Address, from_mapped, to_mapped

IPV4_FAMILY, IPV6_FAMILY = 2, 10  # Linux
IPV4_BYTES, IPV6_BYTES = 16, 28

_FAMILY = Struct("=H")
_PORT = Struct("!H")


def sockaddr_bytes(family: int) -> int:
    """Return the size of a family's addresses."""
    return IPV4_BYTES if family == IPV4_FAMILY else IPV6_BYTES


def parse_sockaddr(name: bytes) -> Address:
    """Return the address in our one spelling. The bytes are the kernel's, so they are not doubted."""
    (port,) = _PORT.unpack_from(name, 2)
    if len(name) == IPV4_BYTES:
        return Address("{}.{}.{}.{}".format(*name[4:8]), port)  # three times as fast as ipaddress: floods pass here
    return Address(from_mapped(name[8:24]), port)


def build_sockaddr(address: Address, family: int) -> bytes:
    """Return the bytes for a socket of this family. Raises ValueError for an IPv6 address and an IPv4 socket."""
    head = _FAMILY.pack(family) + _PORT.pack(address.port)
    if family == IPV4_FAMILY:
        return head + ipaddress.IPv4Address(address.host).packed + bytes(8)
    return head + bytes(4) + to_mapped(address.host) + bytes(4)
