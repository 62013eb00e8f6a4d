"""The observed fleet as small frozen records: all that desired state is computed from.

Kubernetes objects are large and full of what changes by itself (timestamps, resource versions); observation keeps only
what a decision needs, so that two observations of the same fleet are equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from voicefleet_contract.drain import DrainRequest
from voicefleet_contract.resources import TransceiverSpec, VoiceRelaySpec
from voicefleet_contract.topology import TopologySlice
from voicefleet_operator.desired.config import FleetConfig
from voicefleet_operator.desired.ledger import Ledger

Manifest = dict[str, Any]
REFUSAL_RETRY_S = 30.0  # an object that the API server refused is asked for again after this


class Component(StrEnum):
    """Whose pod it is: the label app.kubernetes.io/component."""

    RELAY = "relay"
    TRANSCEIVER = "transceiver"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Node:
    """A node's labels and addresses, and whether it is to be emptied; its heartbeats are nobody's business here."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    internal: str = ""
    external: str = ""
    leaving: str = ""  # why it is to be emptied: "cordoned", "tainted …"
    drain: DrainRequest | None = None  # somebody asked for it
    drain_problem: str = ""  # somebody asked for it in words that say nothing


class PortRefusal(StrEnum):
    """Who said that a pod cannot have its port number on a node."""

    NODE = "node"  # the process could not bind it: something holds it that Kubernetes need not know
    SCHEDULER = "scheduler"  # a pod that declares it stands on every node that would do otherwise


@dataclass(frozen=True, slots=True)
class ForeignPod:
    """Somebody else's pod on a node, with the host ports that it declares. ``name`` is namespace/name."""

    name: str
    node: str
    ports: frozenset[int]


class Place(NamedTuple):
    """A port number on a node; no node: wherever it was that the scheduler spoke of."""

    node: str
    port: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a member is out of placement, or on probation (gray.py). ``at``: out until then, or on probation since."""

    out: bool
    at: float
    times: int
    why: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A dataplane pod. ``resource`` names its Transceiver or VoiceRelay; slot, generation and port are a transceiver's."""

    name: str
    uid: str
    component: Component
    resource: str
    slot: int = -1
    generation: int = -1
    port: int = 0
    capacity: int = 0  # sessions; 0: made before pods said so
    template: str = ""  # the digest of what it was made from
    node: str = ""
    avoids: tuple[str, ...] = ()  # nodes on which it may not be placed: they were to be emptied when it was made
    host_ip: str = ""
    running: bool = False  # its process runs: it may hold sessions
    ran: bool = False  # its process has run at some time
    ready: bool = False
    ready_since: float = 0.0  # of its present readiness
    restarts: int = 0
    finished: bool = False  # phase Failed or Succeeded: it will not run again
    deleting: bool = False
    gone_at: float | None = None  # when the kubelet kills what is left of a pod that is being deleted
    idle: bool = False  # marked: it may be evicted
    drain: DrainRequest | None = None  # somebody asked for it
    drain_problem: str = ""
    draining_since: float | None = None  # the fence
    created_at: float = 0.0
    verdict: Verdict | None = None
    trouble: str = ""  # why it does not start, as Kubernetes says: ImagePullBackOff, CrashLoopBackOff, Unschedulable
    trouble_message: str = ""
    port_refused: PortRefusal | None = None

    @property
    def ejected(self) -> bool:
        """It is out of placement for now (gray.py)."""
        return self.verdict is not None and self.verdict.out

    @property
    def leaving(self) -> bool:
        """It takes no new sessions and will go."""
        return self.deleting or self.finished or self.draining_since is not None


@dataclass(frozen=True, slots=True)
class RelayResource:
    """A VoiceRelay."""

    name: str
    uid: str
    generation: int
    spec: VoiceRelaySpec
    status: Mapping[str, Any] = field(default_factory=dict)
    deleting: bool = False
    paused: bool = False


@dataclass(frozen=True, slots=True)
class PoolResource:
    """A Transceiver."""

    name: str
    uid: str
    generation: int
    spec: TransceiverSpec
    status: Mapping[str, Any] = field(default_factory=dict)
    deleting: bool = False
    paused: bool = False
    drain: DrainRequest | None = None  # the whole pool
    drain_problem: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """A VoiceRelay or Transceiver that says what this release does not understand (publish/unrecognized.py)."""

    generation: int
    problem: str
    status: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Applied:
    """An object that the operator applied: the digest of what it was made from."""

    kind: str
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Drained:
    """What a draining transceiver said when it was asked. Times are Unix seconds; None while it holds no session."""

    state: str
    sessions: int
    oldest_started_at: float | None = None
    newest_started_at: float | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How many replicas the load needed at a time: when members that said nothing were idle, and when they were full."""

    at: float
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server said to an object that a resource needs, and when to ask again."""

    message: str
    retry_at: float


@dataclass(frozen=True)
class Fleet:
    """Everything observed, at one time. Keys are names, but `drained` is by pod uid."""

    namespace: str
    config: FleetConfig
    config_name: str
    config_uid: str
    ledger: Ledger = field(default_factory=Ledger)
    relays: Mapping[str, RelayResource] = field(default_factory=dict)
    pools: Mapping[str, PoolResource] = field(default_factory=dict)
    unread: Mapping[tuple[str, str], Unread] = field(default_factory=dict)  # by (kind, name)
    pods: Mapping[str, Pod] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    slices: Mapping[str, TopologySlice] = field(default_factory=dict)
    applied: Mapping[tuple[str, str], Applied] = field(default_factory=dict)
    drained: Mapping[str, Drained] = field(default_factory=dict)
    foreign: Mapping[str, ForeignPod] = field(default_factory=dict)
    quarantine: Mapping[Place, float] = field(default_factory=dict)  # until when (Unix time)
    sessions: Mapping[tuple[int, int], int] = field(default_factory=dict)  # (slot, generation) → load, if known
    setups_per_s: Mapping[tuple[int, int], float] = field(default_factory=dict)  # likewise
    idle_since: Mapping[tuple[int, int], float] = field(default_factory=dict)  # likewise, of those without a session
    horizontal_autoscalers: Mapping[str, str] = field(
        default_factory=dict
    )  # those that target a Transceiver → its name
    recommendations: Mapping[str, tuple[Recommendation, ...]] = field(default_factory=dict)  # by pool, oldest first
    flows_left: Mapping[str, int] = field(default_factory=dict)  # relay process → flows it waits for, if it said so
    # relay process → how it moves media, and why so; None while the registry is away
    datapaths: Mapping[str, tuple[str, str]] | None = None
    # process → pool → ring epoch, from the registry; None while it is away
    acknowledged: Mapping[str, Mapping[str, int]] | None = None
    media: Mapping[tuple[int, int], tuple[Any, ...]] = field(default_factory=dict)  # gray.History
    refused: Mapping[tuple[str, str], Refusal] = field(default_factory=dict)  # by (kind, name) of the resource

    def refused_until(self, kind: str, name: str, now: float) -> float | None:
        """Return when what a resource needs may be asked for again, if it was refused lately."""
        refusal = self.refused.get((kind, name))
        return refusal.retry_at if refusal is not None and now < refusal.retry_at else None

    def is_unread(self, kind: str, name: str) -> bool:
        """Tell whether a resource is there that this release does not understand."""
        return (kind, name) in self.unread

    def pods_of(self, component: Component, resource: str) -> list[Pod]:
        """Return the pods of one resource in a stable order."""
        return list(self._pods_by_resource.get((component, resource), ()))

    @cached_property
    def _pods_by_resource(self) -> Mapping[tuple[Component, str], list[Pod]]:
        """Sorted once a plan: at ten thousand pods a sort for each question was a third of the plan."""
        found: dict[tuple[Component, str], list[Pod]] = {}
        for pod in sorted(self.pods.values(), key=lambda pod: (pod.slot, pod.generation, pod.name)):
            found.setdefault((pod.component, pod.resource), []).append(pod)
        return found
