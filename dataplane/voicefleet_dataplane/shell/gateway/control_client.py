"""The gateway's side of the control API: requests to transceivers over mutual TLS.

Addresses move and slots reuse them, so the certificate is checked against the role's DNS name and not against the
address that is dialled; the transceiver checks ours the same way.

Owns: TLS, deadlines, and turning whatever happens into one of `Created`, `Refused`, `NotReached`, `Unknown`. Does not
own: which member is asked, nor what follows (owner_search).
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import httpx
from pydantic import BaseModel

from voicefleet_contract import names
from voicefleet_contract.http_api import (
    CreateSession,
    IceUpdated,
    Refusal,
    Renegotiate,
    Renegotiated,
    SessionCreated,
    UpdateIce,
)
from voicefleet_contract.outside import OutsideError, parse_model
from voicefleet_contract.topology import Member
from voicefleet_dataplane.shell.process.event_sockets import CLOSE_WITHIN_S, HEARTBEAT_S

_CONNECT_TIMEOUT_S = 1.0  # the inner network: longer than this means that nobody is there
_SERVER_NAME = names.inner_dns_name("transceiver")
_EXTENSIONS = {"sni_hostname": _SERVER_NAME}
_MAX_ANSWER_BYTES = 1 << 20
_LARGEST_EVENT_BYTES = 8 << 20  # an agent's message has at most half of it
_Answer = TypeVar("_Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Created:
    """The member owns a session now."""

    session: SessionCreated


@dataclass(frozen=True, slots=True)
class Refused:
    """The member said no: ``status`` 422 blames the offer, anything else is about the member."""

    status: int
    refusal: Refusal | None


@dataclass(frozen=True, slots=True)
class NotReached:
    """No request arrived: there can be no session."""

    why: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may have arrived: there may be a session that nobody knows."""

    why: str


Outcome = Created | Refused | NotReached | Unknown


def client_context(tls_dir: Path) -> ssl.SSLContext:
    """Return a TLS context that shows our certificate and trusts the inner CA alone. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=str(tls_dir / names.TLS_CA_FILE))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(tls_dir / names.TLS_CERT_FILE, tls_dir / names.TLS_KEY_FILE)
    return context


class ControlClient:
    """Requests to transceivers, over kept-alive connections. One client serves one certificate: renewal makes another."""

    def __init__(self, context: ssl.SSLContext, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        timeout = httpx.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=60.0)
        # trust_env off: a proxy variable in a pod's environment must not divert control traffic.
        self._http = httpx.AsyncClient(verify=context, timeout=timeout, limits=limits, trust_env=False)
        self._context = context

    async def create_session(self, member: Member, body: CreateSession, timeout_s: float | None = None) -> Outcome:
        """Ask a member to own a session. Repeating it with the same ``request_id`` makes no second one."""
        return await self._create(member, "/v1/sessions", body, timeout_s)

    async def listen(self, member: Member, call_id: str, body: CreateSession) -> Outcome:
        """Ask the owner of a call for a session that hears its agent."""
        return await self._create(member, f"/v1/sessions/{call_id}/listeners", body, None)

    async def _create(self, member: Member, path: str, body: CreateSession, timeout_s: float | None) -> Outcome:
        whole_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            # httpx limits each read; this limits the whole answer.
            async with asyncio.timeout(whole_s):
                response = await self._http.post(
                    _url(member, path),
                    content=body.model_dump_json().encode(),
                    headers={"Content-Type": "application/json"},
                    extensions=_EXTENSIONS,
                    timeout=httpx.Timeout(whole_s, connect=min(_CONNECT_TIMEOUT_S, whole_s)),
                )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return NotReached(_why(error))
        except httpx.HTTPError as error:
            return Unknown(_why(error))
        except TimeoutError:
            return Unknown(f"no answer within {whole_s:g} s")
        try:
            if response.status_code == httpx.codes.CREATED:
                return Created(parse_model(SessionCreated, response.content, _MAX_ANSWER_BYTES))
            return Refused(response.status_code, _refusal(response))
        except OutsideError as error:
            return Unknown(f"unreadable answer: {error}")

    async def renegotiate(self, member: Member, call_id: str, body: Renegotiate) -> Renegotiated | Refused | NotReached:
        """Hand on a later offer."""
        return await self._ask(member, f"/v1/sessions/{call_id}/offer", body, Renegotiated)

    async def update_ice(self, member: Member, call_id: str, body: UpdateIce) -> IceUpdated | Refused | NotReached:
        """Hand on what a client says of ICE. Repeated: a second restart, which replaces the first."""
        return await self._ask(member, f"/v1/sessions/{call_id}/ice", body, IceUpdated)

    async def _ask(
        self, member: Member, path: str, body: BaseModel, answer: type[_Answer]
    ) -> _Answer | Refused | NotReached:
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._http.post(
                    _url(member, path),
                    content=body.model_dump_json().encode(),
                    headers={"Content-Type": "application/json"},
                    extensions=_EXTENSIONS,
                )
        except (httpx.HTTPError, TimeoutError) as error:
            return NotReached(_why(error))
        if not response.is_success:
            return Refused(response.status_code, _refusal(response))
        try:
            return parse_model(answer, response.content, _MAX_ANSWER_BYTES)
        except OutsideError as error:
            return NotReached(f"unreadable answer: {error}")

    async def hang_up(
        self, member: Member, call_id: str, tenant: str | None = None, *, replaced: bool = False
    ) -> bool | None:
        """End a session, of this tenant if one is named: True when it was there, False when not, None: not reached."""
        query = {"tenant": tenant} if tenant is not None else {}
        if replaced:
            query["replaced"] = ""
        try:
            response = await self._http.delete(
                _url(member, f"/v1/sessions/{call_id}"), params=query, extensions=_EXTENSIONS
            )
        except httpx.HTTPError:
            return None
        if response.status_code == httpx.codes.NOT_FOUND:
            return False
        return True if response.is_success else None

    @asynccontextmanager
    async def watch(
        self, member: Member, call_id: str, tenant: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse | int]:
        """Open the WebSocket of a session's events, or give the status that refused it; 0: the member cannot be reached.

        It has a connection of its own, which outlives this client: a new certificate ends no sideband.
        """
        timeout = aiohttp.ClientWSTimeout(ws_close=CLOSE_WITHIN_S)
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as http:
            found: aiohttp.ClientWebSocketResponse | int
            try:
                async with asyncio.timeout(self._timeout_s):
                    found = await http.ws_connect(
                        _url(member, f"/v1/sessions/{call_id}/events"),
                        params={"tenant": tenant},
                        ssl=self._context,
                        server_hostname=_SERVER_NAME,
                        heartbeat=HEARTBEAT_S,
                        max_msg_size=_LARGEST_EVENT_BYTES,
                        timeout=timeout,
                    )
            except aiohttp.WSServerHandshakeError as error:
                found = error.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                found = 0
            try:
                yield found
            finally:
                if not isinstance(found, int):
                    await found.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _url(member: Member, path: str) -> str:
    return f"https://{member.as_address()}{path}"


def _refusal(response: httpx.Response) -> Refusal | None:
    try:
        return parse_model(Refusal, response.content, _MAX_ANSWER_BYTES)
    except OutsideError:
        return None  # not one of ours: the status speaks


def _why(error: httpx.HTTPError | TimeoutError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
