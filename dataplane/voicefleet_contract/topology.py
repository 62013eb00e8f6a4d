"""The topology: the one document that the operator publishes and every dataplane process works from.

It says which relays stand where, which transceivers own which slots, and where both listen on the inner network. A
process keeps its last good copy and works from it when the API server is away (fail static).

Ten thousand members are over a megabyte, past what one Kubernetes object may hold, and one member's change must not
resend the rest: so the document is cut into slices of bounded size (`split`), one object each, and put together again
(`join`). Outside Kubernetes the same document is one JSON file.

Owns: the models, cutting and joining, and the look-ups that packets need (`TopologyIndex`). Does not own: how slices
travel.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from voicefleet_contract.addresses import Address, normalise
from voicefleet_contract.outside import OutsideError, parse_model
from voicefleet_contract.ring import MAX_WEIGHT, WEIGHT, Ring

VERSION = 1
MEMBERS_PER_SLICE = 200  # about 30 KB of JSON: EndpointSlice's order of size


class TopologyError(ValueError):
    """The document is not a topology; the text names the field and the fix."""


class _Model(BaseModel):
    # Fields of a later version are ignored: a rollout may meet in any order.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Endpoint(_Model):
    """An ip:port in JSON."""

    address: str
    port: int = Field(ge=1, le=65535)

    @field_validator("address")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return normalise(value)

    def as_address(self) -> Address:
        """Return it as the dataplane's Address."""
        return Address(self.address, self.port)


class RelayState(StrEnum):
    """``active`` is advertised to new calls; ``draining`` still forwards; ``gone`` is kept for nobody."""

    ACTIVE = "active"
    DRAINING = "draining"
    GONE = "gone"


class MemberState(StrEnum):
    """``starting`` and ``draining`` take no new calls; ``gone`` ends the member's flows in relays."""

    STARTING = "starting"
    ACTIVE = "active"
    DRAINING = "draining"
    GONE = "gone"


class Relay(_Model):
    """One relay pod: where clients reach it (advertise) and where transceivers do (inner)."""

    name: str
    relay: str = ""  # the VoiceRelay that it belongs to
    node: str = ""
    region: str = ""
    latitude: float = Field(default=0.0, ge=-90, le=90)
    longitude: float = Field(default=0.0, ge=-180, le=180)
    advertise: tuple[Endpoint, ...] = ()
    inner: tuple[Endpoint, ...] = ()
    state: RelayState = RelayState.ACTIVE
    leaving: bool = False  # its ingress is withdrawn: it drains by its flows, and does not come back (docs/adr/0017)
    weight: int = Field(default=100, ge=0)


class Member(_Model):
    """One transceiver pod. ``port`` is UDP for media and TCP for the control API."""

    slot: int = Field(ge=0, le=0xFFFFFF)
    generation: int = Field(ge=0, le=0xFFFF)
    name: str = ""
    node: str = ""
    address: str
    port: int = Field(ge=1, le=65535)
    state: MemberState = MemberState.ACTIVE
    weight: int = Field(default=WEIGHT, ge=0, le=MAX_WEIGHT)  # its share of the ring: what it holds, beside the others
    gray: bool = False  # out of placement for now, or on probation: for people and tools, the state says what to do

    @field_validator("address")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return normalise(value)

    def as_address(self) -> Address:
        """Return its media (and control) address."""
        return Address(self.address, self.port)


class Pool(_Model):
    """The members of one Transceiver resource. ``ring_epoch`` moves when the active members or their weights do."""

    name: str
    ring_epoch: int = 0
    members: tuple[Member, ...] = ()


class Topology(_Model):
    """The whole document. ``revision`` grows with each change."""

    version: int = VERSION
    cluster: int = Field(ge=0, le=0xFFFF)
    cluster_name: str = ""
    revision: int = Field(default=0, ge=0)
    relays: tuple[Relay, ...] = ()
    pools: tuple[Pool, ...] = ()

    @classmethod
    def load(cls, text: str | bytes) -> "Topology":
        """Parse the JSON document. Raises TopologyError."""
        return _parsed(cls, text)

    def dump(self) -> str:
        """Write the JSON document, one spelling for one topology."""
        return self.model_dump_json(exclude_defaults=False)


class TopologySlice(_Model):
    """A part of a topology: some relays or some members of one pool. The header fields repeat in each."""

    version: int = VERSION
    cluster: int = Field(ge=0, le=0xFFFF)
    cluster_name: str = ""
    revision: int = Field(default=0, ge=0)
    relays: tuple[Relay, ...] = ()
    pool: Pool | None = None

    @classmethod
    def load(cls, text: str | bytes) -> "TopologySlice":
        """Parse one slice. Raises TopologyError."""
        return _parsed(cls, text)


def split(topology: Topology, members_per_slice: int = MEMBERS_PER_SLICE) -> dict[str, TopologySlice]:
    """Cut a topology into named slices.

    A member's slice is chosen by its slot, so that one member's change rewrites one slice. A slice's ``revision`` is 0:
    it would change every slice at every change; an object store versions the slices itself.
    """
    empty = TopologySlice(version=topology.version, cluster=topology.cluster, cluster_name=topology.cluster_name)
    slices: dict[str, TopologySlice] = {}
    by_resource: dict[str, list[Relay]] = {}
    for relay in sorted(topology.relays, key=lambda relay: relay.name):
        by_resource.setdefault(relay.relay or relay.name, []).append(relay)
    for resource, relays in by_resource.items():
        for part, start in enumerate(range(0, len(relays), members_per_slice)):
            chunk = tuple(relays[start : start + members_per_slice])
            slices[f"relays-{resource}-{part}"] = empty.model_copy(update={"relays": chunk})
    for pool in topology.pools:
        parts: dict[int, list[Member]] = {}
        for member in sorted(pool.members, key=lambda member: (member.slot, member.generation)):
            parts.setdefault(member.slot // members_per_slice, []).append(member)
        for part, members in (parts or {0: []}).items():  # an empty pool exists all the same
            kept = pool.model_copy(update={"members": tuple(members)})
            slices[f"pool-{pool.name}-{part}"] = empty.model_copy(update={"pool": kept})
    return slices


def join(slices: Iterable[TopologySlice], revision: int = 0) -> Topology:
    """Put slices together, in any order. Raises TopologyError when they are of different clusters, or none."""
    parts = list(slices)
    if not parts:
        raise TopologyError("no topology slice: has the operator published one?")
    if len({part.cluster for part in parts}) > 1:
        raise TopologyError(f"slices of several clusters: {sorted({part.cluster for part in parts})}")
    pools: dict[str, list[Pool]] = {}
    for part in parts:
        if part.pool is not None:
            pools.setdefault(part.pool.name, []).append(part.pool)
    return Topology(
        version=min(part.version for part in parts),
        cluster=parts[0].cluster,
        cluster_name=parts[0].cluster_name,
        revision=revision,
        relays=tuple(sorted((r for part in parts for r in part.relays), key=lambda relay: relay.name)),
        pools=tuple(
            Pool(
                name=name,
                ring_epoch=max(pool.ring_epoch for pool in same),
                members=tuple(sorted((m for pool in same for m in pool.members), key=lambda m: (m.slot, m.generation))),
            )
            for name, same in sorted(pools.items())
        ),
    )


class TopologyIndex:
    """A topology with the look-ups that packets and calls need, each one dict access."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.cluster = topology.cluster
        self._members: dict[tuple[int, int], Member] = {}
        self._member_at: dict[Address, Member] = {}
        self._pool_of_slot: dict[int, str] = {}
        self._pools = {pool.name: pool for pool in topology.pools}
        self._relay_inner = {e.as_address(): relay for relay in topology.relays for e in relay.inner}
        self._rings: dict[str, Ring] = {}
        self._active: dict[str, dict[int, Member]] = {}
        for pool in topology.pools:
            for member in pool.members:
                self._members[member.slot, member.generation] = member
                self._pool_of_slot[member.slot] = pool.name
                if member.state is not MemberState.GONE:
                    self._member_at[member.as_address()] = member

    def member(self, slot: int, generation: int) -> Member | None:
        """Return the pod that a hint or call id names."""
        return self._members.get((slot, generation))

    def member_at(self, address: Address) -> Member | None:
        """Return the member that sends from an inner address; None for strangers and members that are gone."""
        return self._member_at.get(address)

    def relay_at(self, inner: Address) -> Relay | None:
        """Return the relay that sends from an inner address; None for strangers."""
        return self._relay_inner.get(inner)

    def pool(self, name: str) -> Pool | None:
        """Return a pool by the name of its Transceiver resource."""
        return self._pools.get(name)

    def pool_of_slot(self, slot: int) -> str | None:
        """Return the name of the pool that a slot belongs to."""
        return self._pool_of_slot.get(slot)

    def active(self, pool: str) -> dict[int, Member]:
        """Return slot → member for the members that take new calls; of two generations the newer one. To be read only."""
        if pool not in self._active:
            found = self._pools.get(pool)
            members = () if found is None else found.members
            ordered = sorted((m for m in members if m.state is MemberState.ACTIVE), key=lambda m: m.generation)
            self._active[pool] = {member.slot: member for member in ordered}
        return self._active[pool]

    def ring(self, pool: str) -> Ring:
        """Return the ring over the pool's active slots, by weight."""
        if pool not in self._rings:
            found = self._pools.get(pool)
            weights = {slot: member.weight for slot, member in self.active(pool).items()}
            self._rings[pool] = Ring(weights, epoch=found.ring_epoch if found else 0)
        return self._rings[pool]


MAX_TOPOLOGY_BYTES = 64 << 20  # the whole of a fleet of 10,000 pods has four
_M = TypeVar("_M", bound=_Model)


def _parsed(model: type[_M], text: str | bytes) -> _M:
    try:
        return parse_model(model, text, MAX_TOPOLOGY_BYTES)
    except OutsideError as error:
        raise TopologyError(f"topology: {error.param or 'document'}: {error}") from None
