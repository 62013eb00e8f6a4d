"""Where a process's records go: a connection to Redis that may come and go. Does not own: what they mean."""

from collections.abc import Sequence
from pathlib import Path

import redis.asyncio as redis

from voicefleet_contract.sessions import Command
from voicefleet_contract.settings import GatewaySettings, RelaySettings, TransceiverSettings
from voicefleet_dataplane.shell.records import Record

_REDIS_TIMEOUT_S = 1.0


def open_redis(settings: RelaySettings | TransceiverSettings | GatewaySettings) -> redis.Redis:
    """Return a client that connects when it is used. Raises OSError for a password file that is not there."""
    password = Path(settings.redis_password_file).read_text().strip() if settings.redis_password_file else None
    return redis.Redis.from_url(
        settings.redis_url,
        password=password,
        socket_timeout=_REDIS_TIMEOUT_S,
        socket_connect_timeout=_REDIS_TIMEOUT_S,
    )


class RedisSink:
    """Records into Redis, a round trip for all of a moment's."""

    def __init__(self, settings: RelaySettings | TransceiverSettings | GatewaySettings) -> None:
        self._redis = open_redis(settings)

    async def write(self, records: Sequence[Record], forgotten: Sequence[str]) -> None:
        """Write and delete in one round trip. Raises redis.RedisError or OSError."""
        pipeline = self._redis.pipeline(transaction=False)
        for record in records:
            pipeline.set(record.key, record.value, ex=record.ttl_s)
        if forgotten:
            pipeline.delete(*forgotten)
        await pipeline.execute()

    async def execute(self, commands: Sequence[Command]) -> None:
        """Execute commands in one round trip; none is none. Raises redis.RedisError or OSError."""
        if not commands:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        await pipeline.execute()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
