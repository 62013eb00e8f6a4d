"""What kopf's connections say about its watches: when each kind was last heard of, and whether it was listed anew.

kopf tells handlers of events only. A watch that died without a word looks like a fleet in which nothing happens, and
objects that vanished before a new list was made (after 410 Gone) are never spoken of again. So kopf works over a session
of ours (its documented AiohttpSession), whose streams we can look at: the server sends a bookmark each minute.

Owns: the session, ages of watches, the count of lists. Does not own: reading events (handlers.watch).
"""

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import aiohttp
import kopf

from voicefleet_operator.cluster.api import Counted

_POOL_LIMIT = 0  # each watch holds a connection


class Watches:
    """The watches of this process, by kind."""

    def __init__(self, kinds: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        """``kinds``: URL path of a collection → what to call it."""
        self._kinds = kinds
        self._clock = clock
        self._streams: dict[str, aiohttp.StreamReader] = {}
        self._heard: dict[str, tuple[int, float]] = {}  # kind → bytes so far, and when that last changed
        self.lists: dict[str, int] = {}  # kind → how often it was listed from the beginning

    def begin(self) -> None:
        """Every kind is expected to be heard of from now on."""
        self._heard = {kind: (0, self._clock()) for kind in self._kinds.values()}

    def opened(self, path: str, stream: aiohttp.StreamReader) -> None:
        """A watch of a kind was answered."""
        kind = self._kinds.get(path)
        if kind is not None:
            self._streams[kind], self._heard[kind] = stream, (0, self._clock())

    def listed(self, path: str) -> None:
        """A kind is being listed from the beginning."""
        kind = self._kinds.get(path)
        if kind is not None:
            self.lists[kind] = self.lists.get(kind, 0) + 1

    def ages_s(self) -> dict[str, float]:
        """Return kind → seconds since its watch said anything. Empty before `begin`."""
        now = self._clock()
        for kind, stream in self._streams.items():
            if stream.total_bytes != self._heard[kind][0]:
                self._heard[kind] = (stream.total_bytes, now)
        return {kind: now - at for kind, (_, at) in self._heard.items()}


def watching_session(login: kopf.ConnectionInfo, watches: Watches, counted: Counted) -> kopf.AiohttpSession:
    """Return the session for kopf to work over, with the same credentials."""

    async def ended(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        query, path, status = params.url.query, params.url.path, params.response.status
        is_watch = query.get("watch") == "true"
        counted("watch" if is_watch else "list", status)
        if status != 200:
            return
        if is_watch:
            watches.opened(path, params.response.content)
        elif "continue" not in query:
            watches.listed(path)

    async def failed(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        counted("watch" if params.url.query.get("watch") == "true" else "list", 0)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(ended)
    trace.on_request_exception.append(failed)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_POOL_LIMIT, ssl=login.as_ssl_context()),
        headers=login.as_http_headers(),
        trust_env=login.trust_env,
        trace_configs=[trace],
    )
    return kopf.AiohttpSession(
        server=login.server,
        default_namespace=login.default_namespace,
        priority=login.priority,
        expiration=login.expiration,
        aiohttp_session=session,
    )
