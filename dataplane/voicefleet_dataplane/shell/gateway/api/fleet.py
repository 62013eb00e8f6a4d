"""`GET /v1/fleet`: relays, transceivers and their loads, for API keys that the operator of the gateway named.

The topology comes from memory, the loads from the registry: read when somebody looks, at most once in `_FRESH_S` however many
look. Without the registry the fleet is shown without loads, and says so.

Owns: who may see it, that reading. Does not own: what is shown (core/gateway/fleet_view.py).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import redis
from aiohttp import web
from redis.exceptions import RedisClusterException

from voicefleet_contract.outside import OutsideError, parse_model
from voicefleet_contract.registry import MAX_RECORD_BYTES, Heartbeat, heartbeat_key
from voicefleet_contract.sessions import Command
from voicefleet_contract.topology import MemberState, TopologyIndex
from voicefleet_dataplane.core.gateway.fleet_view import Beats, fleet_view
from voicefleet_dataplane.shell.gateway.admission import Admission
from voicefleet_dataplane.shell.gateway.api.errors import ApiError
from voicefleet_dataplane.shell.gateway.api.openapi import KEY_ERRORS, STANDARD_KEY, Paths, json_content, ok, operation

FLEET_PATH = "/v1/fleet"
_FRESH_S = 2.0  # as often as heartbeats come
_READ_AT_ONCE = 500  # calls are placed on this loop too


class Registry(Protocol):
    """Where heartbeats are."""

    async def execute(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Execute commands in one round trip. Raises redis.RedisError or OSError."""


class FleetApi:
    """Handlers. ``viewers`` are the names of the API keys that may see the fleet."""

    def __init__(
        self,
        admission: Admission,
        topology: Callable[[], TopologyIndex | None],
        registry: Registry | None,
        viewers: frozenset[str],
    ) -> None:
        self._admission, self._topology, self._registry, self._viewers = admission, topology, registry, viewers
        self._read_at = -_FRESH_S
        self._known: tuple[Beats, str] = ({}, "")
        self._reading = asyncio.Lock()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve this interface."""
        router.add_get(FLEET_PATH, self.fleet)

    def describe(self) -> Paths:
        """Return the paths."""
        fleet = operation(
            "fleet",
            "Relays, transceivers and their loads",
            {200: ok("The fleet.", json_content({"type": "object", "required": ["cluster", "relays", "pools"]}))},
            (*KEY_ERRORS, 403, 503),
            security=STANDARD_KEY,
        )
        return {FLEET_PATH: {"get": fleet}}

    async def fleet(self, request: web.Request) -> web.Response:
        """Return the fleet."""
        async with self._admission.admitted(request) as caller:
            if caller.tenant not in self._viewers:
                message = f"the API key {caller.tenant!r} may not see the fleet: the chart's gateway.fleetViewKeys names those that may"
                raise ApiError(403, "fleet_view_not_allowed", message)
            index = self._topology()
            if index is None:
                raise ApiError(503, "no_topology", "the gateway has no topology yet", retry_after_s=2)
            beats, problem = await self._beats(index)
            return web.json_response(fleet_view(index.topology, beats, problem), headers={"Cache-Control": "no-store"})

    async def _beats(self, index: TopologyIndex) -> tuple[Beats, str]:
        async with self._reading:
            if time.monotonic() - self._read_at >= _FRESH_S:
                self._known = await self._read(index)
                self._read_at = time.monotonic()
            return self._known

    async def _read(self, index: TopologyIndex) -> tuple[Beats, str]:
        if self._registry is None:
            return {}, "this gateway has no registry"
        places = [
            (member.slot, member.generation)
            for pool in index.topology.pools
            for member in pool.members
            if member.state is not MemberState.GONE
        ]
        beats: dict[tuple[int, int], Heartbeat] = {}
        try:
            for start in range(0, len(places), _READ_AT_ONCE):
                some = places[start : start + _READ_AT_ONCE]
                commands: list[Command] = [("GET", heartbeat_key(index.cluster, *place)) for place in some]
                for place, value in zip(some, await self._registry.execute(commands), strict=True):
                    beat = _parsed(value)
                    if beat is not None:
                        beats[place] = beat
        except (redis.RedisError, RedisClusterException, OSError) as error:
            return {}, f"the registry does not answer ({type(error).__name__})"
        return beats, ""


def _parsed(value: Any) -> Heartbeat | None:
    if value is None:
        return None
    try:
        return parse_model(Heartbeat, value, MAX_RECORD_BYTES)
    except OutsideError:
        return None  # of a version that we do not know: as if it had not been heard
