"""The door: accepts connections while there are places, reads PROXY headers, and hands on what shook hands in time.

It accepts by itself, since asyncio's server would begin TLS before anybody could say no.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from prometheus_client import CollectorRegistry, Counter

from voicefleet_contract.addresses import from_kernel
from voicefleet_listener.bounds import Bounds, ConnectionPlace, Drop, Places
from voicefleet_listener.guard import Guard, tell_guard
from voicefleet_listener.proxy_protocol import ProxyHeaderError, bytes_wanted, parse_proxy_header

log = logging.getLogger("voicefleet.listener")

_BACKLOG = 512
_ACCEPTED_AT_ONCE = 64  # then the loop does other things
_PAUSE_S = 0.5  # when the process has no descriptors left
_GOODBYE_S = 2.0  # TLS' close_notify of the peer
_NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class _NotOfStrangers(logging.Filter):
    """Keeps out what is not HTTP: aiohttp would write a traceback for each such request, and fill disks."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_http_log = logging.getLogger("voicefleet.http")
_http_log.addFilter(_NotOfStrangers())


class ListenerDrops:
    """What the listeners of one process refused and ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counter = Counter(
            "voicefleet_listener_drops_total",
            "TCP connections refused or ended by a listener's bounds, by listener and reason.",
            ["listener", "reason"],
            registry=registry,
        )

    def count(self, listener: str, drop: Drop) -> None:
        """Count one."""
        self._counter.labels(listener, drop.value).inc()


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0: any. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


async def serve(
    app: web.Application,
    listening: socket.socket,
    name: str,
    bounds: Bounds,
    drops: ListenerDrops,
    ssl_context: ssl.SSLContext | None = None,
    **options: Any,
) -> web.AppRunner:
    """Serve an application on a listening socket until the runner that this returns is cleaned up.

    ``name`` is the listener's in metrics; ``options`` are the runner's.
    """
    app.middlewares.insert(0, tell_guard)
    # Lines are bounded by their head: one answer, 431, for all that is too long.
    size = bounds.max_head_bytes
    options |= {"max_line_size": size, "max_field_size": size}
    runner = web.AppRunner(app, access_log=None, logger=_http_log, **options)
    await runner.setup()
    try:
        await _Site(runner, _Door(runner, listening, name, bounds, drops, ssl_context)).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


class _Site(web.BaseSite):
    """What a runner knows of a door."""

    def __init__(self, runner: web.AppRunner, door: "_Door") -> None:
        super().__init__(runner)
        self._door = door

    @property
    def name(self) -> str:
        return str(self._door.sockets[0].getsockname())

    async def start(self) -> None:
        await super().start()
        self._server = self._door  # type: ignore[assignment]  # aiohttp asks it for its sockets and closes it
        self._door.open()


class _Door:
    def __init__(
        self,
        runner: web.AppRunner,
        listening: socket.socket,
        name: str,
        bounds: Bounds,
        drops: ListenerDrops,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        assert runner.server is not None  # `serve` set it up
        self._make_protocol, self._name, self._bounds, self._drops = runner.server, name, bounds, drops
        self._tls: dict[str, Any] = {}
        if ssl_context is not None:
            self._tls = {
                "ssl": ssl_context,
                "ssl_handshake_timeout": bounds.handshake_s,
                "ssl_shutdown_timeout": _GOODBYE_S,
            }
        listening.setblocking(False)
        self.sockets = [listening]
        self._places = Places(bounds)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None

    def open(self) -> None:
        self.sockets[0].listen(_BACKLOG)
        self._loop.add_reader(self.sockets[0], self._accept)

    def close(self) -> None:
        if not self.sockets:
            return
        if self._again is not None:
            self._again.cancel()
        listening = self.sockets.pop()
        self._loop.remove_reader(listening)
        listening.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                one, _ = self.sockets[0].accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    log.error("%s: accepts again in %g s: %s", self._name, _PAUSE_S, error)
                    self._loop.remove_reader(self.sockets[0])
                    self._again = self._loop.call_later(_PAUSE_S, self.open)
                return
            self._begin(one)

    def _begin(self, one: socket.socket) -> None:
        one.setblocking(False)
        try:
            peer = None if one.family == socket.AF_UNIX else from_kernel(one.getpeername()).host
        except OSError:  # it is gone already
            one.close()
            return
        proxied = peer is not None and self._places.is_proxy(peer)
        place = self._places.enter(None if proxied else self._counted(peer))
        if place is None:
            self._refuse(one, Drop.ADDRESS_CONNECTIONS)
            return
        task = self._loop.create_task(self._hand_on(one, place, proxied=proxied))
        place.end = lambda: self._make_room(task, None)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _counted(self, address: str | None) -> str | None:
        """Return the address if it is one client's."""
        return address if address is not None and self._places.is_one_client(address) else None

    def _make_room(self, task: asyncio.Task[None], guard: Guard | None) -> None:
        """End a connection for another one."""
        self._count(Drop.ALL_CONNECTIONS)
        if guard is not None and guard.was_made:
            guard.end()
        else:
            task.cancel()

    async def _hand_on(self, one: socket.socket, place: ConnectionPlace, *, proxied: bool) -> None:
        """Read the PROXY header, shake hands, and leave the rest to the guard."""
        named: str | None = None
        if proxied:
            try:
                async with asyncio.timeout(self._bounds.handshake_s):
                    named = await self._read_proxy_header(one)
            except (ProxyHeaderError, OSError, TimeoutError):
                self._places.leave(place)
                self._refuse(one, Drop.PROXY_HEADER)
                return
            except BaseException:
                self._places.leave(place)
                one.close()
                raise
            counted = self._counted(named)
            if counted is not None and not self._places.name(place, counted):
                self._places.leave(place)
                self._refuse(one, Drop.ADDRESS_CONNECTIONS)
                return
        guard: Guard | None = None
        task = asyncio.current_task()
        assert task is not None

        def leave() -> None:
            self._places.leave(place)

        def make() -> Guard:
            nonlocal guard
            guard = made = Guard(self._make_protocol, self._bounds, self._count, leave, named)
            place.end = lambda: self._make_room(task, made)
            return made

        try:
            await self._loop.connect_accepted_socket(make, one, **self._tls)
        except OSError:  # and TimeoutError, ssl.SSLError
            self._count(Drop.HANDSHAKE)
        except asyncio.CancelledError:
            if guard is None:  # else the transport has the socket, and closes it
                one.close()
            raise
        finally:
            if guard is None or not guard.was_made:
                leave()

    async def _read_proxy_header(self, one: socket.socket) -> str | None:
        data = b""
        while wanted := bytes_wanted(data):
            more = await self._loop.sock_recv(one, wanted)
            if not more:
                raise ProxyHeaderError("the connection ended")
            data += more
        return parse_proxy_header(data)

    def _refuse(self, one: socket.socket, drop: Drop) -> None:
        self._count(drop)
        with contextlib.suppress(OSError):
            one.close()

    def _count(self, drop: Drop) -> None:
        self._drops.count(self._name, drop)
