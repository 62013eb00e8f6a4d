"""Who may ask the gateway: keys, rates and concurrency, checked in the order of their price.

The client's rate comes first, before the key: it also slows down guessing. Then the key, then the key's rate, then how
many requests run at once.

Owns: the limits and who a caller is. Does not own: where keys come from (gateway/files), bodies, errors' form (api/errors).
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from voicefleet_contract.ephemeral_keys import PREFIX, EphemeralKeyError, decode_ephemeral_key
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.networks import limit_key, parse_networks
from voicefleet_contract.settings import GatewaySettings
from voicefleet_dataplane.core.gateway.api_keys import ApiKeys, bearer_token
from voicefleet_dataplane.core.gateway.client_address import client_address
from voicefleet_dataplane.core.limits import ConcurrencyLimit, RateLimit
from voicefleet_dataplane.shell.gateway.api.errors import ApiError
from voicefleet_dataplane.shell.gateway.metrics import GatewayMetrics
from voicefleet_dataplane.shell.process.watched_files import Watched
from voicefleet_listener.guard import prove

_ANONYMOUS = "anonymous"
_BURST_S = 2.0  # a burst may hold so many seconds of the rate


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the tenant whose key was shown, and the client's address (behind trusted forwarders, what they say).

    ``session`` is what an ephemeral key says; None: a standard key, or anonymous.
    """

    tenant: str
    address: str
    session: Mapping[str, Any] | None = None


class Admission:
    """One gateway's door."""

    def __init__(
        self,
        settings: GatewaySettings,
        api_keys: Watched[ApiKeys],
        call_keys: Watched[KeyRing],
        metrics: GatewayMetrics,
    ) -> None:
        self._api_keys, self._call_keys, self._metrics = api_keys, call_keys, metrics
        self._allow_anonymous = settings.allow_anonymous_calls
        self._trusted = parse_networks(settings.trusted_forwarders)
        per_key, per_client = settings.calls_per_second_per_key, settings.calls_per_second_per_client
        self._key_rate = RateLimit(per_key, max(1.0, per_key * _BURST_S))
        self._client_rate = RateLimit(per_client, max(1.0, per_client * _BURST_S))
        self._all_running = ConcurrencyLimit(settings.max_concurrent_requests)
        self._key_running = ConcurrencyLimit(settings.max_concurrent_requests_per_key)
        self._client_running = ConcurrencyLimit(settings.max_concurrent_requests_per_client)

    @asynccontextmanager
    async def admitted(self, request: web.Request, *, ephemeral: bool = False) -> AsyncIterator[Caller]:
        """Let a request in under its client's and its key's limits. Raises ApiError 401, 403 or 429.

        ``ephemeral``: an ephemeral key opens this too.
        """
        address = self._address(request)
        client = limit_key(address)
        _within_rate(self._client_rate, client, "this client")
        tenant, session = self._identify(request, ephemeral)
        if tenant != _ANONYMOUS:
            prove()
        entered: list[tuple[ConcurrencyLimit, str]] = []
        try:
            for limit, key, whose in (
                (self._client_running, client, "this client"),
                (self._key_running, tenant, "this API key"),
                (self._all_running, "", "this gateway"),
            ):
                if not limit.enter(key):
                    message = f"too many requests of {whose} at once"
                    raise ApiError(429, "too_many_requests", message, retry_after_s=1)
                entered.append((limit, key))
            self._metrics.in_progress.set(len(self._all_running))
            yield Caller(tenant, address, session)
        finally:
            for limit, key in entered:
                limit.leave(key)
            self._metrics.in_progress.set(len(self._all_running))

    def _identify(self, request: web.Request, ephemeral: bool) -> tuple[str, Mapping[str, Any] | None]:
        """Return the tenant, and the session of an ephemeral key."""
        authorization = request.headers.get("Authorization")
        tenant, session = self._api_keys.value.tenant(authorization), None
        token = bearer_token(authorization)
        if tenant is None and token is not None and token.startswith(PREFIX):
            tenant, session = self._open_ephemeral(token)
            if not ephemeral:
                message = "an ephemeral key places calls and opens nothing else: send a standard API key"
                raise ApiError(403, "standard_key_required", message)
        if tenant is not None:
            _within_rate(self._key_rate, tenant, "this API key")
            return tenant, session
        if authorization is None and self._allow_anonymous:
            return _ANONYMOUS, None
        raise ApiError(401, "invalid_api_key", "no valid API key: send the header 'Authorization: Bearer KEY'")

    def _open_ephemeral(self, token: str) -> tuple[str, Mapping[str, Any]]:
        try:
            key = decode_ephemeral_key(token, self._call_keys.value, time.time())
        except EphemeralKeyError as error:
            if error.reason == "expired":
                message = (
                    "this ephemeral key has expired: ask your server for a new one (POST /v1/realtime/client_secrets)"
                )
                raise ApiError(401, "ephemeral_key_expired", message) from None
            raise ApiError(401, "invalid_api_key", "not an ephemeral key of this fleet") from None
        if key.tenant not in self._api_keys.value and not (key.tenant == _ANONYMOUS and self._allow_anonymous):
            message = "the API key that this ephemeral key was made with is no longer valid"
            raise ApiError(401, "invalid_api_key", message)
        return key.tenant, key.session

    def _address(self, request: web.Request) -> str:
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", []))
        return client_address(request.remote or "0.0.0.0", forwarded, self._trusted)


def _within_rate(limit: RateLimit, key: str, whose: str) -> None:
    wait_s = limit.take(key, time.monotonic())
    if wait_s:
        raise ApiError(429, "rate_limit_exceeded", f"too many requests of {whose}", retry_after_s=wait_s)
