"""Connections that are ready before a call wants one: name resolved, TCP and TLS done, not a byte of HTTP sent.

Each connection that is taken is replaced in the background, by the same rules about where an agent may live. An agent sees an idle
connection and no session. One that nobody takes is closed after IDLE_S: pools with steady calls have one, idle pools have none.

A peer that has gone without a word looks like one that is there, until something is sent to it: what is sent first on a connection that
was ready must be acknowledged within GONE_AFTER_MS, or the connection fails and aiohttp asks for another (the opening of a WebSocket is a
GET). `proven` gives a connection its patience back.

Owns: which connections are ready, and for how long. Does not own: how one is made, nor connections that have carried a request
(aiohttp's own pool keeps those).
"""

import asyncio
import logging
import socket
from collections import defaultdict, deque
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey

log = logging.getLogger("voicefleet.transceiver")

IDLE_S = (
    50.0  # below the minute of nginx and the cloud's load balancers; Python's `websockets` closes after 10 s by itself
)
GONE_AFTER_MS = 1_000
_DIAL_WITHIN_S = 5.0


class WarmConnector(aiohttp.TCPConnector):
    """Keeps ``ready`` connections to each place that was dialled lately."""

    def __init__(self, ready: int, **options: Any) -> None:
        """``options``: TCPConnector's."""
        super().__init__(**options)
        self._wanted = ready
        self._ready: dict[ConnectionKey, deque[ResponseHandler]] = defaultdict(deque)
        self._dialling: dict[asyncio.Task[None], ConnectionKey] = {}

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  its base's
    ) -> ResponseHandler:
        """Give what was ready, or make one: the session asks here when its pool has none."""
        ready = self._ready[req.connection_key]
        while ready:
            connection = ready.pop()  # the youngest: least may have happened to it
            if connection.is_connected() and not connection.should_close:
                _set_patience(connection.transport, GONE_AFTER_MS)
                self._replace(req, timeout)
                return connection
            connection.close()
        made = await super()._create_connection(req, traces, timeout)
        self._replace(req, timeout)
        return made

    def close(self, *, abort_ssl: bool = False) -> Any:
        """Close everything, make no more."""
        self._wanted = 0
        for task in self._dialling:
            task.cancel()
        for ready in self._ready.values():
            while ready:
                ready.pop().close()
        return super().close(abort_ssl=abort_ssl)

    def _replace(self, req: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout) -> None:
        key = req.connection_key
        on_their_way = sum(other == key and not task.done() for task, other in self._dialling.items())
        for _ in range(self._wanted - len(self._ready[key]) - on_their_way):
            task = asyncio.create_task(self._dial(req, timeout))
            self._dialling[task] = key
            task.add_done_callback(self._dialling.pop)

    async def _dial(self, req: aiohttp.ClientRequest, patience: aiohttp.ClientTimeout) -> None:
        ready = self._ready[req.connection_key]
        try:
            async with asyncio.timeout(_DIAL_WITHIN_S):
                connection = await super()._create_connection(req, [], patience)
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            log.debug("no connection is ready for the next call: %s", error)  # that call will say it itself
            return
        ready.append(connection)
        asyncio.get_running_loop().call_later(IDLE_S, _drop, ready, connection)


def proven(opened: aiohttp.ClientWebSocketResponse) -> None:
    """The peer has answered: from now on TCP may be as patient as ever."""
    _set_patience(opened, 0)


def _set_patience(of: Any, milliseconds: int) -> None:
    """Set how long sent bytes may stay unacknowledged; 0: as long as the system likes. ``of`` has `get_extra_info`."""
    plain = of.get_extra_info("socket")
    if plain is not None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _drop(ready: deque[ResponseHandler], connection: ResponseHandler) -> None:
    """Nobody took it."""
    if connection in ready:
        ready.remove(connection)
        connection.close()
