"""WebSockets to agents: one HTTP session for all calls of a process, and the rules about whom it may dial.

Owns: resolving with the address rules, refusing redirects, the key's header, bounds of a message. Does not own: what is said
(shell/agent_link.py).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from voicefleet_contract.trace_context import HEADER
from voicefleet_dataplane.media.agent_address import Network, refusal_of_address

MAX_MESSAGE_BYTES = 4 << 20  # a delta of 40 s of speech; agents that send more in one message are broken


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
    """Opens WebSockets. ``key`` is asked for each one: a Secret may change."""

    def __init__(self, network: Network, key: Callable[[], str], headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._network = network
        self._key = key
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None

    async def open(
        self, url: str, timeout_s: float, subprotocols: tuple[str, ...], traceparent: str = ""
    ) -> aiohttp.ClientWebSocketResponse:
        """Connect. Raises OSError, aiohttp.ClientError or TimeoutError, which say why not."""
        host = urlsplit(url).hostname or ""
        if _is_address(host):  # aiohttp resolves no address, so nobody else would look at it
            why = refusal_of_address(host, self._network)
            if why is not None:
                raise AgentRefusedError(f"{host} {why}")
        session = self._open_session()
        headers = dict(self._headers)
        if traceparent:
            headers[HEADER] = traceparent
        key = self._key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        timeout = aiohttp.ClientWSTimeout(ws_close=1.0)
        try:
            async with asyncio.timeout(timeout_s):
                return await session.ws_connect(
                    url,
                    headers=headers,
                    protocols=subprotocols,
                    timeout=timeout,
                    autoping=False,  # pongs are what tells an agent that hangs (shell/agent_link.py)
                    max_msg_size=MAX_MESSAGE_BYTES,
                    compress=0,
                )
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AgentRefusedError):
                raise error.os_error from None
            raise

    async def close(self) -> None:
        """Close what is idle; a call closes its own."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_request_redirect.append(_refuse_redirect)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=_CheckedResolver(self._network), limit=0, ttl_dns_cache=10),
                trace_configs=[tracing],
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


async def _refuse_redirect(session: aiohttp.ClientSession, context: Any, parameters: Any) -> None:
    location = parameters.response.headers.get("Location", "")[:200]
    raise AgentRefusedError(f"the agent redirects to {location!r}; put the final URL into spec.backend.url")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return False
    return True
