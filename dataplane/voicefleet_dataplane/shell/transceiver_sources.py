"""Where a transceiver process gets its topology outside Kubernetes, and where its records go.

Owns: a topology file read again when it changes, and a connection to Redis that may come and go. Does not own: what either
of them means.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import redis.asyncio as redis

from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import Topology, TopologyError, TopologyIndex
from voicefleet_dataplane.shell.transceiver_records import Record

log = logging.getLogger("voicefleet.transceiver")

_REDIS_TIMEOUT_S = 1.0


class TopologyFile:
    """The topology in a file: the last good one stays in use whatever happens to the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._index: TopologyIndex | None = None

    def __call__(self) -> TopologyIndex | None:
        """The last good topology, after a look at the file; None before the first."""
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._seen:
                self._seen = stamp
                self._index = TopologyIndex(Topology.load(self._path.read_bytes()))
                log.info("topology revision %d from %s", self._index.topology.revision, self._path)
        except FileNotFoundError:
            self._seen = None
        except (OSError, TopologyError) as error:
            log.error("%s: %s; the topology read before stays in use", self._path, error)
        return self._index


class RedisSink:
    """Records into Redis, a round trip for all of a moment's."""

    def __init__(self, settings: TransceiverSettings) -> None:
        password = Path(settings.redis_password_file).read_text().strip() if settings.redis_password_file else None
        self._redis = redis.Redis.from_url(
            settings.redis_url,
            password=password,
            socket_timeout=_REDIS_TIMEOUT_S,
            socket_connect_timeout=_REDIS_TIMEOUT_S,
        )

    async def write(self, records: Sequence[Record], forgotten: Sequence[str]) -> None:
        """Write and delete in one round trip. Raises redis.RedisError or OSError."""
        pipeline = self._redis.pipeline(transaction=False)
        for record in records:
            pipeline.set(record.key, record.value, ex=record.ttl_s)
        if forgotten:
            pipeline.delete(*forgotten)
        await pipeline.execute()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
