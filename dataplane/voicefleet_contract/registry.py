"""What stands in Redis, and under which keys: this module is the only place that spells one.

Redis is a cache of what processes know themselves: losing it never ends a call, refuses one, or stops a hang-up.
Every record has a TTL; whoever writes it writes it again. Values are JSON of the models below and of `sessions`,
but for flows, which are many (cached_flow.py); a reader skips and counts what it cannot parse.

The braces are Redis Cluster's hash tags: what one slot writes together stands on one node, and slots spread over all of
them. Flows stand on one node, since they are read and written many at a time. Keys of the whole fleet are few: the list
of slots, the stream of session events, its epoch.
"""

import ipaddress

from pydantic import BaseModel, ConfigDict

VERSION = 1
HEARTBEAT_INTERVAL_S = 2.0
HEARTBEAT_TTL_S = 10
FIRST_MEDIA_S = 8.0  # from the answered offer to DTLS and SRTP; a mobile client needs two seconds on a bad day
SESSION_TTL_S = 60
ACK_TTL_S = 60
MAX_RECORD_BYTES = 256 * 1024  # of one value; an acknowledgement names each pool, a heartbeat each relay

_PREFIX = "vf1"  # the key space's version


def _slot(cluster: int, slot: int) -> str:
    return f"{_PREFIX}:{{{cluster}:{slot}}}"


def heartbeat_key(cluster: int, slot: int, generation: int) -> str:
    """Return the key of a transceiver's heartbeat."""
    return f"{_slot(cluster, slot)}:hb:{generation}"


def sessions_key(cluster: int, slot: int, generation: int) -> str:
    """Return the hash of a transceiver's sessions: call id → `sessions.SessionRecord`. One TTL for all of them."""
    return f"{_slot(cluster, slot)}:calls:{generation}"


def index_key(cluster: int, slot: int, generation: int, field: str, value: str) -> str:
    """Return the set of a transceiver's call ids whose field (`sessions.INDEXED`) has a value."""
    return f"{_slot(cluster, slot)}:ix:{generation}:{field}:{value}"


def slots_key(cluster: int) -> str:
    """Return the sorted set of the slots that write sessions: ``slot:generation`` by Unix time of the last heartbeat."""
    return f"{_PREFIX}:{{{cluster}}}:slots"


def events_key(cluster: int) -> str:
    """Return the stream of session events (`sessions.event_command`)."""
    return f"{_PREFIX}:{{{cluster}}}:events"


def epoch_key(cluster: int) -> str:
    """Return the key that says since when the stream of events is whole."""
    return f"{_PREFIX}:{{{cluster}}}:epoch"


def ack_key(cluster: int, process: str) -> str:
    """Return the key under which a process says which topology revision and key epochs it works with."""
    return f"{_PREFIX}:{cluster}:ack:{process}"


def flow_key(cluster: int, name: str) -> str:
    """Return the key under which the flow cache holds the owner of a client (its name: cached_flow.py)."""
    return f"{_PREFIX}:{{{cluster}:flow}}:{name}"


def call_records_key(cluster: int) -> str:
    """Return the stream of the records of ended calls (call_records.py)."""
    return f"{_PREFIX}:{{{cluster}:records}}"


class Record(BaseModel):
    """What all values have."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    version: int = VERSION


class Heartbeat(Record):
    """A transceiver's load. ``at`` is Unix time in seconds at the sender; ``counts`` is field → value → sessions."""

    slot: int
    generation: int
    pool: str
    state: str  # starting | active | draining
    pod: str = ""
    node: str = ""
    sessions: int
    capacity: int
    counts: dict[str, dict[str, int]] = {}
    oldest_session_age_s: float = 0.0
    setups_per_s: float = 0.0  # new sessions, over the last half minute
    media_up: int = 0  # calls since the start whose media came up …
    media_failed: int = 0  # … and did not within FIRST_MEDIA_S
    idle_since: float | None = None  # Unix time; None while it holds a session
    at: float


class Acknowledgement(Record):
    """Which topology and keys a process works with. ``ring_epochs`` by pool name.

    Who holds no such keys says nothing of them; who holds them and never signs names no signing epoch.
    """

    process: str
    topology_revision: int
    ring_epochs: dict[str, int] = {}
    key_epochs: tuple[int, ...] = ()  # of hint keys
    signing_epoch: int | None = None
    call_key_epochs: tuple[int, ...] = ()
    call_signing_epoch: int | None = None
    flows_left: int | None = None  # of a relay that waits for its flows before it leaves
    datapath: str = ""  # how a relay moves media, and why so
    datapath_reason: str = ""
    at: float


def client_network(host: str) -> str:
    """Return the /24 (IPv4) or /48 (IPv6) of a client: what records may show of an address."""
    if ":" not in host:
        return host.rsplit(".", 1)[0] + ".0/24"

    return str(ipaddress.IPv6Network((host, 48), strict=False))
