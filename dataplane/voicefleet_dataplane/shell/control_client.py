"""The gateway's side of the control API: requests to transceivers over mutual TLS.

Addresses move and slots reuse them, so the certificate is checked against the role's DNS name and not against the
address that is dialled; the transceiver checks ours the same way.

Owns: TLS, deadlines, and turning whatever happens into one of `Created`, `Refused`, `NotReached`, `Unknown`. Does not
own: which member is asked, nor what follows (owner_walk).
"""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import ValidationError

from voicefleet_contract import names
from voicefleet_contract.http_api import CreateSession, Refusal, SessionCreated
from voicefleet_contract.topology import Member

_CONNECT_TIMEOUT_S = 1.0  # the inner network: longer than this means that nobody is there
_EXTENSIONS = {"sni_hostname": names.inner_dns_name("transceiver")}


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

    async def create_session(self, member: Member, body: CreateSession, timeout_s: float | None = None) -> Outcome:
        """Ask a member to own a session. Repeating it with the same ``request_id`` makes no second one."""
        whole_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            # httpx limits each read; this limits the whole answer.
            async with asyncio.timeout(whole_s):
                response = await self._http.post(
                    _url(member, "/v1/sessions"),
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
                return Created(SessionCreated.model_validate_json(response.content))
            return Refused(response.status_code, _refusal(response))
        except ValidationError as error:
            return Unknown(f"unreadable answer: {error.errors()[0]['msg']}")

    async def hang_up(self, member: Member, call_id: str) -> bool | None:
        """End a session: True when it was there, False when not, None when the member cannot be reached."""
        try:
            response = await self._http.delete(_url(member, f"/v1/sessions/{call_id}"), extensions=_EXTENSIONS)
        except httpx.HTTPError:
            return None
        if response.status_code == httpx.codes.NOT_FOUND:
            return False
        return True if response.is_success else None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _url(member: Member, path: str) -> str:
    return f"https://{member.as_address()}{path}"


def _refusal(response: httpx.Response) -> Refusal | None:
    try:
        return Refusal.model_validate_json(response.content)
    except ValidationError:
        return None  # not one of ours: the status speaks


def _why(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
