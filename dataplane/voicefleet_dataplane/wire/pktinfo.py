"""Which of our addresses a datagram came to, and which one it is to leave from: control messages of recvmsg and sendmsg on Linux.

A socket that is bound to all addresses answers from the one that the route to the client prefers. On a node with several, or
with one that moves between nodes, that is not always the one that the client sent to, and a client takes an answer from nowhere
else (RFC 8445 section 7.2.5.2.1).

::

    cmsghdr  length:8  level:4  type:4   in_pktinfo   interface:4  from:4  to:4               28 bytes, padded to 32
    cmsghdr  length:8  level:4  type:4   in6_pktinfo  address:16  interface:4                 36 bytes, padded to 40

A dual-stack socket spells IPv4 as mapped IPv6. No interface is named on the way out: the route chooses it.
"""

import ipaddress
from struct import Struct

from voicefleet_contract.addresses import from_mapped, to_mapped
from voicefleet_dataplane.wire.sockaddr import IPV4_FAMILY

CONTROL_BYTES = 40  # room for either

_HEAD = Struct("=Qii")
_V4 = Struct("=i4s4s")
_V6 = Struct("=16si")
_LEVEL_V4, _IP_PKTINFO = 0, 8  # Linux
_LEVEL_V6, _IPV6_PKTINFO = 41, 50


def parse_arrival(control: bytes, family: int) -> str:
    """Return our host that a datagram came to, in our one spelling; empty when the kernel did not say."""
    size, level, kind = _HEAD.unpack_from(control)
    if family == IPV4_FAMILY:
        if (level, kind) != (_LEVEL_V4, _IP_PKTINFO) or size != _HEAD.size + _V4.size:
            return ""
        return str(ipaddress.IPv4Address(_V4.unpack_from(control, _HEAD.size)[2]))
    if (level, kind) != (_LEVEL_V6, _IPV6_PKTINFO) or size != _HEAD.size + _V6.size:
        return ""
    return from_mapped(_V6.unpack_from(control, _HEAD.size)[0])


def build_departure(host: str, family: int) -> bytes:
    """Return the control message, `CONTROL_BYTES` long, that has a datagram leave from our host.

    The unspecified address of the client's family leaves it to the route. Raises ValueError for an IPv6 host and an IPv4 socket.
    """
    if family == IPV4_FAMILY:
        source = ipaddress.IPv4Address(host).packed
        message = _HEAD.pack(_HEAD.size + _V4.size, _LEVEL_V4, _IP_PKTINFO) + _V4.pack(0, source, bytes(4))
    else:
        message = _HEAD.pack(_HEAD.size + _V6.size, _LEVEL_V6, _IPV6_PKTINFO) + _V6.pack(to_mapped(host), 0)
    return message.ljust(CONTROL_BYTES, b"\0")


def control_bytes(family: int) -> int:
    """Return what `build_departure` fills of its room, as sendmsg wants to know it."""
    return 32 if family == IPV4_FAMILY else 40
