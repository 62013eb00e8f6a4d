"""Transport addresses as every process writes them: one text for one address.

An IPv4 client that reaches a dual-stack socket appears as ``::ffff:192.0.2.1``. Were both texts kept, a flow, an
allow-list or a limit could be passed by spelling (CVE-2026-27624 in TURN servers), so addresses are normalised where
they enter and compared as text afterwards.
"""

import ipaddress
from functools import lru_cache
from typing import NamedTuple

UNSPECIFIED = ("0.0.0.0", "::")  # what a socket is bound to that listens on all addresses of its host
_LONGEST = 64  # characters: 45, and an interface's name
_MAPPED_PREFIX = b"\x00" * 10 + b"\xff\xff"


class Address(NamedTuple):
    """A UDP or TCP address: ``host`` in canonical text (see `normalise`), ``port`` 0–65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@lru_cache(maxsize=8192)  # a topology says the same thousand nodes ten thousand times
def normalise(host: str) -> str:
    """Return the canonical text of an IP address: IPv4-mapped IPv6 becomes IPv4. Raises ValueError."""
    if len(host) > _LONGEST:  # of a scope, Python takes any length; and what is taken is kept for a while
        raise ValueError(f"{host[:_LONGEST]!r}… is not an IP address")
    if ":" not in host and host.count(".") == 3:
        return str(ipaddress.IPv4Address(host))
    parsed = ipaddress.IPv6Address(host)
    return str(parsed.ipv4_mapped or parsed)


def from_kernel(source: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    """Return the address that ``recvfrom`` gave. The kernel's text is canonical but for IPv4-mapped IPv6."""
    host = source[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return Address(host, source[1])


@lru_cache(maxsize=65_536)  # one entry a client: it is asked for a few times for each flow
def to_mapped(host: str) -> bytes:
    """Return 16 bytes: IPv6 as it is, IPv4 as IPv4-mapped. What SPP headers and the kernel's tables hold."""
    if ":" in host:
        return ipaddress.IPv6Address(host).packed
    return _MAPPED_PREFIX + bytes(map(int, host.split(".")))  # canonical text: a tenth of what ipaddress takes


def from_mapped(packed: bytes) -> str:
    """Return the canonical text of what `to_mapped` gives."""
    if packed[:12] == _MAPPED_PREFIX:
        return f"{packed[12]}.{packed[13]}.{packed[14]}.{packed[15]}"
    return str(ipaddress.IPv6Address(packed))
