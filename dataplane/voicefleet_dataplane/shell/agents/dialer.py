"""WebSockets and requests to agents: one HTTP session for all calls of a process, and the rules about whom it may dial.

Owns: resolving with the address rules, refusing redirects, the key's header, bounds of a message. Does not own: what is said
(shell/agents/connection.py).
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from voicefleet_contract.trace_context import HEADER
from voicefleet_dataplane.media.agent import MAX_MESSAGE_BYTES
from voicefleet_dataplane.media.agent_address import Network, refusal_of_address
from voicefleet_dataplane.shell.agents.warm_connections import IDLE_S, WarmConnector, proven


class AgentRefusedError(OSError):
    """We may not, or will not, go where the agent's URL leads."""


class _CheckedResolver(AbstractResolver):
    """Resolves as ever, and drops every address that may not be dialled."""

    def __init__(self, network: Network) -> None:
        self._resolver = aiohttp.ThreadedResolver()
        self._network = network

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        refused = {one["host"]: refusal_of_address(one["host"], self._network) for one in found}
        allowed = [one for one in found if refused[one["host"]] is None]
        if not allowed:
            raise AgentRefusedError("; ".join(f"{host} is at {at}, which {why}" for at, why in refused.items()))
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


class AgentSockets:
    """Opens WebSockets. ``key`` is asked for each one: a Secret may change. ``warm``: connections that are ready for the next calls."""

    def __init__(
        self, network: Network, key: Callable[[], str], headers: tuple[tuple[str, str], ...] = (), *, warm: int = 0
    ) -> None:
        self._network = network
        self._warm = warm
        self._key = key
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None

    async def open(
        self, url: str, timeout_s: float, subprotocols: tuple[str, ...], traceparent: str = ""
    ) -> aiohttp.ClientWebSocketResponse:
        """Connect. Raises OSError, aiohttp.ClientError or TimeoutError, which say why not."""
        self._judge(url)
        with _refusals():
            async with asyncio.timeout(timeout_s):
                opened = await self._open_session().ws_connect(
                    url,
                    headers=self._with_key(dict(self._headers), traceparent),
                    protocols=subprotocols,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                    autoping=False,  # pongs are what tells an agent that hangs (shell/agents/connection.py)
                    max_msg_size=MAX_MESSAGE_BYTES,
                    compress=0,
                )
        proven(opened)
        return opened

    async def post(
        self, url: str, body: bytes, headers: dict[str, str], connect_s: float, traceparent: str = ""
    ) -> aiohttp.ClientResponse:
        """Send a request and return its answer, not yet read; how long that may take is the caller's business.

        Raises OSError, aiohttp.ClientError or TimeoutError.
        """
        self._judge(url)
        with _refusals():
            response = await self._open_session().post(
                url,
                data=body,
                headers=self._with_key(headers, traceparent),
                timeout=aiohttp.ClientTimeout(total=None, connect=connect_s),
                allow_redirects=False,
            )
        if 300 <= response.status < 400:
            location = response.headers.get("Location", "")
            response.close()
            raise _redirected(location)
        return response

    async def close(self) -> None:
        """Close what is idle; a call closes its own."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _judge(self, url: str) -> None:
        host = urlsplit(url).hostname or ""
        if _is_address(host):  # aiohttp resolves no address, so nobody else would look at it
            why = refusal_of_address(host, self._network)
            if why is not None:
                raise AgentRefusedError(f"{host} {why}")

    def _with_key(self, headers: dict[str, str], traceparent: str) -> dict[str, str]:
        if traceparent:
            headers[HEADER] = traceparent
        key = self._key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_request_redirect.append(_refuse_redirect)
            self._session = aiohttp.ClientSession(
                connector=WarmConnector(
                    self._warm,
                    resolver=_CheckedResolver(self._network),
                    limit=0,
                    ttl_dns_cache=10,
                    keepalive_timeout=IDLE_S,  # of requests that are done: a conversation's next question comes after 15 s
                ),
                trace_configs=[tracing],
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


async def _refuse_redirect(session: aiohttp.ClientSession, context: Any, parameters: Any) -> None:
    raise _redirected(parameters.response.headers.get("Location", ""))


def _redirected(location: str) -> AgentRefusedError:
    return AgentRefusedError(f"the agent redirects to {location[:200]!r}; put the final URL into spec.backend.url")


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Say why an address was refused, not that a connection could not be made."""
    try:
        yield
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, AgentRefusedError):
            raise error.os_error from None
        raise


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return False
    return True
