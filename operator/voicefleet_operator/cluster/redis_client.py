"""A connection to the registry: one Redis, one behind Sentinels, or a Redis Cluster.

| URL | what |
|---|---|
| ``redis://host:6379/0``, ``rediss://…`` | one server |
| ``redis+sentinel://host:26379,host:26379/name`` | the master that Sentinels name |
| ``redis+cluster://host:6379,host:6379`` | a cluster; any of its nodes will do to begin with |
"""

from pathlib import Path
from typing import Any

import redis.asyncio
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from voicefleet_contract.registry_url import RegistryUrl

_STALE_CONNECTIONS = 8

Client = redis.asyncio.Redis | redis.asyncio.RedisCluster


def connect(url: str, password_file: str, timeout_s: float = 2.0) -> Client:
    """Return a client, which connects at its first command. Raises ValueError for a URL of another form, OSError."""
    password = Path(password_file).read_text("utf-8").strip() if password_file else None
    where = RegistryUrl.parse(url)
    # A server that was restarted closed the connections that we keep: the next one is tried at once.
    retry = Retry(NoBackoff(), _STALE_CONNECTIONS)
    timeouts: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": retry}
    if where.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in where.hosts]
        return redis.asyncio.RedisCluster(startup_nodes=nodes, password=password, **timeouts)
    if where.kind == "sentinel":
        sentinel = Sentinel(where.hosts, sentinel_kwargs=timeouts, password=password, **timeouts)  # type: ignore[no-untyped-call]
        master: redis.asyncio.Redis = sentinel.master_for(where.master)
        return master
    return redis.asyncio.from_url(url, password=password, **timeouts)
