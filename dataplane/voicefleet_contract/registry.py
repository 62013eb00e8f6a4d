"""What stands in Redis, and under which keys: this module is the only place that spells one.

Redis is a cache of what processes know themselves: losing it never ends a call, refuses one, or stops a hang-up.
Every record has a TTL; whoever writes it writes it again. Values are JSON of the models below; a reader skips and
counts what it cannot parse.
"""

import ipaddress

from pydantic import BaseModel, ConfigDict

VERSION = 1
HEARTBEAT_INTERVAL_S = 2.0
HEARTBEAT_TTL_S = 10
SESSION_TTL_S = 60
ACK_TTL_S = 60

_PREFIX = "vf1"  # the key space's version


def heartbeat_key(cluster: int, slot: int, generation: int) -> str:
    """Return the key of a transceiver's heartbeat."""
    return f"{_PREFIX}:{cluster}:hb:{slot}:{generation}"


def session_key(cluster: int, call_id: str) -> str:
    """Return the key of a session record."""
    return f"{_PREFIX}:{cluster}:call:{call_id}"


def ack_key(cluster: int, process: str) -> str:
    """Return the key under which a process says which topology revision and key epochs it works with."""
    return f"{_PREFIX}:{cluster}:ack:{process}"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    version: int = VERSION


class Heartbeat(_Record):
    """A transceiver's load. ``at`` is Unix time in seconds at the sender."""

    slot: int
    generation: int
    pool: str
    state: str  # starting | active | draining
    sessions: int
    capacity: int
    oldest_session_age_s: float = 0.0
    at: float


class SessionRecord(_Record):
    """A session as the registry shows it: no SDP, no key, the client's network and not its address."""

    call_id: str
    pool: str
    slot: int
    generation: int
    pod: str
    node: str
    relay: str
    region: str
    client_network: str
    state: str
    started_at: float
    rtt_ms: float | None = None
    loss: float | None = None
    jitter_ms: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0


class Acknowledgement(_Record):
    """Which topology and keys a process works with. ``ring_epochs`` by pool name."""

    process: str
    topology_revision: int
    ring_epochs: dict[str, int] = {}
    key_epochs: tuple[int, ...] = ()
    at: float


def client_network(host: str) -> str:
    """Return the /24 (IPv4) or /48 (IPv6) of a client: what records may show of an address."""
    if ":" not in host:
        return host.rsplit(".", 1)[0] + ".0/24"

    return str(ipaddress.IPv6Network((host, 48), strict=False))
