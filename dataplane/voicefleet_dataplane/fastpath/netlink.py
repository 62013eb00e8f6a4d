"""What the kernel knows of its interfaces and routes (rtnetlink, RFC 3549; generic netlink), as far as the fast path
needs it.

Not from /sys: a container's /sys may show another network namespace than the one that it is in.

Owns: asking and reading answers. Does not own: what follows from them (kernel.py).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

ARPHRD_ETHER = 1
_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_TCMSG = struct.Struct("=BxHiIII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR, _DONE = 2, 3
_GETLINK, _GETADDR, _GETROUTE, _GETFILTER = 18, 22, 26, 46
_REQUEST, _DUMP = 0x1, 0x300
_IFLA_IFNAME, _IFA_ADDRESS, _IFA_LOCAL = 3, 1, 2
_RTA_DST, _RTA_OIF, _RTA_PREFSRC = 1, 4, 7
_UP = 0x1
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_READ_BYTES = 65_536
# Generic netlink: a family has a name, and the number of the day.
_NETLINK_GENERIC = 16
_GENERIC = struct.Struct("=BBH")
_GET_FAMILY, _CONTROL, _FAMILY_ID, _FAMILY_NAME = 3, 16, 1, 2
_DEV_GET, _DEV_IFINDEX, _DEV_XDP_FEATURES = 1, 1, 3
XDP_FORWARDS, XDP_TAKES_REDIRECTED = 0x1 | 0x2, 0x4  # NETDEV_XDP_ACT_BASIC and _REDIRECT, _NDO_XMIT


class Interface(NamedTuple):
    """A network interface that is up."""

    ifindex: int
    name: str
    kind: int  # ARPHRD_…: 1 is Ethernet
    addresses: tuple[str, ...]


class Way(NamedTuple):
    """How this host reaches an address."""

    local: bool  # the address is this host's own
    ifindex: int
    source: str  # what a socket that is bound to no address sends from


def interfaces() -> list[Interface]:
    """Return the interfaces that are up, with their addresses."""
    addresses: dict[int, list[str]] = {}
    for message in _ask(_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0), dump=True):
        family, _, _, _, index = _IFADDR.unpack_from(message)
        found = _attributes(message[_IFADDR.size :])
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if packed is not None and family in (socket.AF_INET, socket.AF_INET6):
            addresses.setdefault(index, []).append(socket.inet_ntop(family, packed))
    found_interfaces = []
    for message in _ask(_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0), dump=True):
        _, kind, index, flags, _ = _IFINFO.unpack_from(message)
        name = _attributes(message[_IFINFO.size :]).get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
        if flags & _UP:
            found_interfaces.append(Interface(index, name, kind, tuple(addresses.get(index, ()))))
    return found_interfaces


class Routes:
    """Answers how addresses are reached, over one socket: a relay asks for each new client."""

    def __init__(self) -> None:
        self._link = _open()

    def way_to(self, host: str) -> Way | None:
        """Return how packets to ``host`` would leave; None when they would not."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        packed = socket.inet_pton(family, host)
        request = _RTMSG.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
        request += _attribute(_RTA_DST, packed)
        try:
            message = next(_exchange(self._link, _GETROUTE, request, dump=False))
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return None
            raise
        kind = _RTMSG.unpack_from(message)[7]
        found = _attributes(message[_RTMSG.size :])
        if kind not in (_RTN_UNICAST, _RTN_LOCAL) or _RTA_OIF not in found or _RTA_PREFSRC not in found:
            return None
        (index,) = struct.unpack("=I", found[_RTA_OIF])
        return Way(kind == _RTN_LOCAL, index, socket.inet_ntop(family, found[_RTA_PREFSRC]))

    def close(self) -> None:
        """Close the socket."""
        self._link.close()


def xdp_features(ifindex: int) -> int | None:
    """Return what native XDP can do on an interface (NETDEV_XDP_ACT_…); None from kernels that do not say (before 6.3)."""
    with _open(_NETLINK_GENERIC) as link:
        try:
            body = _GENERIC.pack(_GET_FAMILY, 1, 0) + _attribute(_FAMILY_NAME, b"netdev\0")
            family = _attributes(next(_exchange(link, _CONTROL, body, dump=False))[_GENERIC.size :])
            body = _GENERIC.pack(_DEV_GET, 1, 0) + _attribute(_DEV_IFINDEX, struct.pack("=I", ifindex))
            (number,) = struct.unpack("=H", family[_FAMILY_ID])
            found = _attributes(next(_exchange(link, number, body, dump=False))[_GENERIC.size :])
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                return None
            raise
    return int(struct.unpack("=Q", found[_DEV_XDP_FEATURES])[0]) if _DEV_XDP_FEATURES in found else None


def has_filters(ifindex: int) -> bool:
    """Say whether anything hangs on an interface's clsact hooks."""
    for parent in (0xFFFFFFF2, 0xFFFFFFF3):  # ingress, egress
        request = _TCMSG.pack(0, 0, ifindex, 0, parent, 0)
        if any(True for _ in _ask(_GETFILTER, request, dump=True)):
            return True
    return False


def _open(protocol: int = socket.NETLINK_ROUTE) -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    link.bind((0, 0))
    return link


def _ask(kind: int, body: bytes, *, dump: bool) -> Iterator[bytes]:
    with _open() as link:
        yield from _exchange(link, kind, body, dump=dump)


def _exchange(link: socket.socket, kind: int, body: bytes, *, dump: bool) -> Iterator[bytes]:
    """Send one request; give the body of each message of the answer. Raises OSError."""
    flags = _REQUEST | (_DUMP if dump else 0)
    link.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
    while True:
        data = link.recv(_READ_BYTES)
        while data:
            length, found, *_ = _HEADER.unpack_from(data)
            content, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
            if found == _DONE:
                return
            if found == _ERROR:
                code = -int(struct.unpack_from("=i", content)[0])
                if code:
                    raise OSError(code, f"netlink: {os.strerror(code)}")
                return
            yield content
            if not dump:
                return


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found
