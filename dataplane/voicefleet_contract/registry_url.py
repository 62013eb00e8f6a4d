"""Where the registry is: one URL for the three ways in which Redis is run.

``redis://`` and ``rediss://`` are what every client library reads. Sentinel and Cluster have no URL that everybody agrees
on, so they are spelt here once for all of our processes.
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

_DEFAULT_PORT = {"sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class RegistryUrl:
    """A parsed URL. ``hosts`` and ``master`` are of sentinel and cluster; a single server's URL is read by the library."""

    kind: Literal["single", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...] = ()
    master: str = ""

    @classmethod
    def parse(cls, url: str) -> "RegistryUrl":
        """Raises ValueError that says which forms there are."""
        scheme, _, rest = url.partition("://")
        if scheme in ("redis", "rediss") and rest:
            return cls("single")
        if scheme == "redis+cluster":
            return cls("cluster", _hosts(url, rest.rstrip("/"), _DEFAULT_PORT["cluster"]))
        if scheme == "redis+sentinel":
            hosts, _, master = rest.partition("/")
            if not master:
                raise ValueError(f"{url!r}: the master's name is missing: write redis+sentinel://HOST:PORT,…/MASTER")
            return cls("sentinel", _hosts(url, hosts, _DEFAULT_PORT["sentinel"]), master)
        raise ValueError(
            f"{url!r} is no registry: write redis://HOST:PORT/DB, rediss://…, redis+sentinel://HOST:PORT,…/MASTER "
            "or redis+cluster://HOST:PORT,…"
        )


def _hosts(url: str, text: str, default: int) -> tuple[tuple[str, int], ...]:
    found = []
    for one in text.split(","):
        try:
            parts = urlsplit(f"//{one}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.path:
            raise ValueError(f"{url!r}: {one!r} is not HOST or HOST:PORT")
        found.append((host, port or default))
    return tuple(found)
