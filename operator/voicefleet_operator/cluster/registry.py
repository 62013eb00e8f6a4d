"""Reading what dataplane processes say in the registry: load, and which ring they work with.

The registry is a cache: when it is away, `acknowledgements` is None (conditions say Unknown) and nothing else changes.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel
from redis.exceptions import RedisClusterException, RedisError

from voicefleet_contract.outside import OutsideError, parse_model
from voicefleet_contract.registry import MAX_RECORD_BYTES, Acknowledgement, Heartbeat, ack_key, heartbeat_key
from voicefleet_operator.cluster.redis_client import Client, connect
from voicefleet_operator.desired.pool.gray import Counts
from voicefleet_operator.desired.state import Component, Fleet

_M = TypeVar("_M", bound=BaseModel)
log = logging.getLogger("voicefleet.operator")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the registry said; ``acknowledgements`` by process, None while the registry is away."""

    sessions: Mapping[tuple[int, int], int] = field(default_factory=dict)
    setups_per_s: Mapping[tuple[int, int], float] = field(default_factory=dict)
    idle_since: Mapping[tuple[int, int], float] = field(default_factory=dict)
    media: Mapping[tuple[int, int], Counts] | None = None
    acknowledgements: Mapping[str, Acknowledgement] | None = None

    @property
    def acknowledged(self) -> Mapping[str, Mapping[str, int]] | None:
        """Process → pool → ring epoch."""
        if self.acknowledgements is None:
            return None
        return {process: said.ring_epochs for process, said in self.acknowledgements.items()}

    @property
    def flows_left(self) -> Mapping[str, int]:
        """Relay process → flows that it waits for before it leaves."""
        said = (self.acknowledgements or {}).items()
        return {process: one.flows_left for process, one in said if one.flows_left is not None}

    @property
    def datapaths(self) -> Mapping[str, tuple[str, str]] | None:
        """Relay process → how it moves media, and why so."""
        if self.acknowledgements is None:
            return None
        said = self.acknowledgements.items()
        return {process: (one.datapath, one.datapath_reason) for process, one in said if one.datapath}


class RegistryReader:
    """One connection to the fleet's Redis, made again when the fleet names another."""

    def __init__(self, password_file: str) -> None:
        self._password_file = password_file
        self._url = ""
        self._client: Client | None = None
        self._away = False

    async def read(self, fleet: Fleet) -> Seen:
        """Read heartbeats and acknowledgements of the fleet's pods. Never raises for a registry that is away."""
        url = fleet.config.redis.url
        if not url:
            return Seen()
        cluster = fleet.config.cluster.id
        pods = sorted(fleet.pods.values(), key=lambda pod: pod.name)
        members = [pod for pod in pods if pod.component is Component.TRANSCEIVER]
        if not pods:
            return Seen(acknowledgements={})
        keys = [heartbeat_key(cluster, pod.slot, pod.generation) for pod in members]
        keys += [ack_key(cluster, pod.name) for pod in pods]
        try:
            async with asyncio.timeout(3):
                pipeline = self._connected(url).pipeline(transaction=False)
                for key in keys:
                    pipeline.get(key)
                values = await pipeline.execute()
        except (RedisError, RedisClusterException, OSError, ValueError, TimeoutError) as error:
            if not self._away:
                log.warning("registry away: %s", error)
            self._away = True
            return Seen()
        self._away = False
        sessions, setups_per_s, idle_since, media = {}, {}, {}, {}
        for pod, value in zip(members, values[: len(members)], strict=True):
            beat = _parsed(Heartbeat, value)
            if beat is not None:
                sessions[pod.slot, pod.generation] = beat.sessions
                setups_per_s[pod.slot, pod.generation] = beat.setups_per_s
                media[pod.slot, pod.generation] = Counts(beat.media_up, beat.media_failed)
                if beat.idle_since is not None:
                    idle_since[pod.slot, pod.generation] = beat.idle_since
        acknowledgements = {}
        for pod, value in zip(pods, values[len(members) :], strict=True):
            said = _parsed(Acknowledgement, value)
            if said is not None:
                acknowledgements[pod.name] = said
        return Seen(sessions, setups_per_s, idle_since, media, acknowledgements)

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    def _connected(self, url: str) -> Client:
        if self._client is None or url != self._url:
            self._client, self._url = connect(url, self._password_file), url
        return self._client


def _parsed(model: type[_M], value: bytes | str | None) -> _M | None:
    try:
        return None if value is None else parse_model(model, value, MAX_RECORD_BYTES)
    except OutsideError:
        return None
