"""Where a process's records go: a connection to Redis that may come and go. Does not own: what they mean.

The registry may be one Redis, one behind Sentinels, or a Redis Cluster (contract, registry_url).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel

from voicefleet_contract.registry_url import RegistryUrl
from voicefleet_contract.sessions import Command
from voicefleet_contract.settings import GatewaySettings, RelaySettings, TransceiverSettings
from voicefleet_dataplane.shell.process.records import Record

_TIMEOUTS: dict[str, Any] = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0}

Client = redis.Redis | redis.RedisCluster


def open_redis(settings: RelaySettings | TransceiverSettings | GatewaySettings, **options: Any) -> Client:
    """Return a client that connects when it is used. Raises OSError for a password file that is not there, ValueError
    for a URL of no known form. ``options`` are the client library's.
    """
    password = Path(settings.redis_password_file).read_text().strip() if settings.redis_password_file else None
    where = RegistryUrl.parse(settings.redis_url)
    options = {**_TIMEOUTS, **options}
    if where.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in where.hosts]
        return redis.RedisCluster(startup_nodes=nodes, password=password, **options)
    if where.kind == "sentinel":
        sentinel = Sentinel(where.hosts, sentinel_kwargs=_TIMEOUTS, password=password, **options)  # type: ignore[no-untyped-call]
        master: redis.Redis = sentinel.master_for(where.master)
        return master
    return redis.from_url(settings.redis_url, password=password, **options)


class RedisSink:
    """Records into Redis, a round trip for all of a moment's."""

    def __init__(self, settings: RelaySettings | TransceiverSettings | GatewaySettings) -> None:
        self._redis = open_redis(settings)

    async def write(self, records: Sequence[Record], forgotten: Sequence[str]) -> None:
        """Write and delete in one round trip. Raises redis.RedisError or OSError."""
        pipeline = self._redis.pipeline(transaction=False)
        for record in records:
            pipeline.set(record.key, record.value, ex=record.ttl_s)
        for key in forgotten:
            pipeline.delete(key)
        await pipeline.execute()

    async def execute(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Execute commands in one round trip; none is none. Raises redis.RedisError or OSError."""
        if not commands:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute()
        return answers

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
