"""UDP sockets of the packet path: plain and non-blocking, no asyncio endpoint.

asyncio's datagram endpoint allocates 256 KiB for each read and makes a call back for each packet; a reader that drains a
plain socket took less than half the time per packet.

Ports are bound exclusively. SO_REUSEPORT would let a successor bind while its predecessor leaves, but the kernel then
spreads one client's way in and its owner's way back over both, and two relays set to one port by mistake would halve
each other's calls in silence. A successor waits for the port instead, and says so. The workers of one relay do share
its port: one process binds for all of them, under a lock that stands for the exclusive bind (`bind_shared`).

Owns: making sockets, and spelling addresses for them. Does not own: reading loops (each role's own).
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from typing import TypeVar

from voicefleet_contract.addresses import Address, from_kernel

log = logging.getLogger("voicefleet.udp")

T = TypeVar("T")

RECEIVE_BUFFER_BYTES = 4 << 20  # a second of a thousand calls; the kernel gives less if net.core.rmem_max says so
LARGEST_READ_BYTES = 2_048
PACKETS_PER_WAKE = 64  # so that other sockets, control requests and timers get their turn under load
_SOURCES_REMEMBERED = 65_536
ANY_PORT_ATTEMPTS = 20
_RETRY_S = 0.05


def bind_udp(host: str, port: int) -> socket.socket:
    """Return a bound UDP socket. ``::`` takes IPv4 too, as mapped addresses. Raises OSError naming the address."""
    one = _udp_socket(host)
    _bind(one, "UDP", host, port)
    return one


def _udp_socket(host: str) -> socket.socket:
    one = socket.socket(_family(host), socket.SOCK_DGRAM)
    one.setblocking(False)
    if host == "::":
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return one


def bind_shared(host: str, port: int, count: int) -> tuple[list[socket.socket], socket.socket]:
    """Return ``count`` sockets of one address, over which the kernel spreads senders, and the lock that keeps others out.

    SO_REUSEPORT lets any process of our user join, so the port is tried exclusively first, and a name of this network
    namespace is held for as long as it is used. Raises OSError naming the address.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made: list[socket.socket] = []
    try:
        alone = bind_udp(host, port)
        port = alone.getsockname()[1]
        alone.close()
        _bind_name(lock, f"voicefleet-relay/udp/{port}", Address(host, port))
        made.extend(_udp_socket(host) for _ in range(count))
        for one in made:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            _bind(one, "UDP", host, port)
    except OSError:
        for one in (lock, *made):
            one.close()
        raise
    return made, lock


def bind_pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a listening TCP socket of one port number (0: any that is free on both). Raises OSError."""
    for attempts_left in reversed(range(ANY_PORT_ATTEMPTS)):
        udp = bind_udp(host, port)
        tcp = socket.socket(_family(host), socket.SOCK_STREAM)
        tcp.setblocking(False)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger are no listener
        try:
            _bind(tcp, "TCP", host, udp.getsockname()[1])
        except OSError:
            udp.close()
            if port or not attempts_left:
                raise
        else:
            return udp, tcp
    raise AssertionError  # the last attempt returned or raised


async def when_free(bind: Callable[[], T], patience_s: float) -> T:
    """Bind, waiting up to ``patience_s`` for whoever holds the port (a predecessor that leaves). Raises OSError."""
    loop = asyncio.get_running_loop()
    give_up_at, told = loop.time() + patience_s, False
    while True:
        try:
            return bind()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or loop.time() >= give_up_at:
                raise
            if not told:
                log.warning("%s: waiting up to %g s for its holder to leave", error.strerror, patience_s)
                told = True
        await asyncio.sleep(_RETRY_S)


def sender(target: socket.socket) -> Callable[[bytes, Address], int]:
    """Return its sendto. A dual-stack socket wants IPv4 addresses in IPv6 spelling."""
    if target.family == socket.AF_INET:
        return target.sendto
    send = target.sendto
    return lambda data, to: send(data, to if ":" in to.host else ("::ffff:" + to.host, to.port))


class Sources:
    """Addresses as recvfrom gave them → as we spell them; remembered, because a client sends fifty packets a second."""

    def __init__(self) -> None:
        self._known: dict[object, Address] = {}

    def __getitem__(self, source: tuple[str, int]) -> Address:
        known = self._known.get(source)
        if known is None:
            if len(self._known) >= _SOURCES_REMEMBERED:
                self._known.clear()  # a cache: everybody is spelt once more
            known = self._known[source] = from_kernel(source)
        return known


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bind(one: socket.socket, protocol: str, host: str, port: int) -> None:
    try:
        one.bind((host, port))
    except OSError as error:
        one.close()
        message = f"cannot bind {protocol} {Address(host, port)}: {error.strerror}"
        raise OSError(error.errno, message) from None


def _bind_name(lock: socket.socket, name: str, address: Address) -> None:
    try:
        lock.bind(f"\0{name}")  # abstract: gone with its holder, whatever ends it
    except OSError as error:
        message = f"cannot bind UDP {address}: another relay with workers holds it"
        raise OSError(error.errno, message) from None
