"""The observed fleet → the topology that it publishes.

What is published is itself observed: a relay whose pod is being replaced stays (draining) while its node is still
chosen, so that its flows find their owners' trust again; one that leaves for good stays while its pod does, and so hears
that it leaves (relay/leaving.py); and a ring epoch moves only when the ring does.
"""

from collections.abc import Iterable, Mapping

from voicefleet_contract.topology import (
    Endpoint,
    Member,
    MemberState,
    Pool,
    Relay,
    RelayState,
    Topology,
    TopologySlice,
    join,
    split,
)
from voicefleet_operator.desired.publish.ring import active_weights, next_epoch, weight_of
from voicefleet_operator.desired.publish.unrecognized import kept_pools, kept_relays
from voicefleet_operator.desired.relay.daemonset import advertised_addresses
from voicefleet_operator.desired.relay.leaving import ownerless_relays, why_leaving, why_withdrawn
from voicefleet_operator.desired.state import Component, Fleet, Pod, PoolResource, RelayResource


def desired_slices(fleet: Fleet) -> dict[str, TopologySlice]:
    """Return the slices to publish, by name."""
    cluster = fleet.config.cluster
    ours = [part for part in fleet.slices.values() if part.cluster == cluster.id]
    published = join(ours) if ours else Topology(cluster=cluster.id)
    topology = Topology(
        cluster=cluster.id,
        cluster_name=cluster.name,
        relays=(
            *(relay for resource in _by_name(fleet.relays.values()) for relay in _relays(fleet, resource, published)),
            *ownerless_relays(fleet, published.relays),
            *kept_relays(fleet, published),
        ),
        pools=(*(_pool(fleet, name, published) for name in sorted(fleet.pools)), *kept_pools(fleet, published)),
    )
    slices = _with_own_epochs(split(topology), fleet.slices)
    # A process takes an empty topology for "nothing published": one slice is always there.
    return slices or {"empty-0": TopologySlice(cluster=cluster.id, cluster_name=cluster.name)}


def _with_own_epochs(
    slices: dict[str, TopologySlice], published: Mapping[str, TopologySlice]
) -> dict[str, TopologySlice]:
    """Let each slice carry the ring epoch at which its own part of the ring changed last.

    Readers take the highest epoch of a pool's slices. Were the pool's epoch in all of them, one pod's loss would rewrite
    them all: 50 objects, 1.2 MB, in a pool of ten thousand.
    """
    found = dict(slices)
    highest: dict[str, int] = {}
    for name, part in slices.items():
        before = published.get(name)
        if part.pool is None:
            continue
        if before is not None and before.pool is not None and before.pool.name == part.pool.name:
            was, now = before.pool.members, part.pool.members
            same = was == now or active_weights(was) == active_weights(now)
            if same and before.pool.ring_epoch < part.pool.ring_epoch:
                found[name] = _with_epoch(part, part.pool, before.pool.ring_epoch)
        kept = found[name].pool
        highest[part.pool.name] = max(highest.get(part.pool.name, -1), kept.ring_epoch if kept else -1)
    for name, part in slices.items():  # a slice that went away with its last member took the news with it
        if part.pool is not None and highest[part.pool.name] < part.pool.ring_epoch:
            found[name], highest[part.pool.name] = part, part.pool.ring_epoch
    return found


def _with_epoch(part: TopologySlice, pool: Pool, epoch: int) -> TopologySlice:
    return part.model_copy(update={"pool": pool.model_copy(update={"ring_epoch": epoch})})


def _by_name(resources: Iterable[RelayResource]) -> list[RelayResource]:
    return sorted(resources, key=lambda resource: resource.name)


def relay_entry_name(resource: str, node: str) -> str:
    """Return the name of a relay: its place, not its pod, since its flows belong to the place."""
    return f"{resource}-{node}"


def _relays(fleet: Fleet, resource: RelayResource, published: Topology) -> list[Relay]:
    pods: dict[str, list[Pod]] = {}
    for pod in fleet.pods_of(Component.RELAY, resource.name):
        if pod.node:
            pods.setdefault(pod.node, []).append(pod)
    known = {relay.name for relay in published.relays}
    nodes = sorted(fleet.nodes.values(), key=lambda node: node.name)
    found = []
    for node in nodes:
        here = pods.get(node.name, [])
        name = relay_entry_name(resource.name, node.name)
        leaving = bool(why_leaving(resource, node))
        # Without a pod: one that was there and will be again.
        if not here and (name not in known or why_withdrawn(resource, node)):
            continue
        inner = next((pod.host_ip for pod in here if pod.host_ip), node.internal)
        if not inner:
            continue
        addresses = advertised_addresses(resource, node, nodes)
        ready = any(pod.ready and not pod.leaving for pod in here) and not leaving
        location = resource.spec.location
        found.append(
            Relay(
                name=name,
                relay=resource.name,
                node=node.name,
                region=location.region,
                latitude=location.latitude,
                longitude=location.longitude,
                advertise=tuple(Endpoint(address=address, port=resource.spec.port) for address in addresses),
                inner=tuple(Endpoint(address=inner, port=port) for port in resource.spec.inner_ports),
                state=RelayState.ACTIVE if ready and addresses else RelayState.DRAINING,
                leaving=leaving,
            )
        )
    return found


def _pool(fleet: Fleet, name: str, published: Topology) -> Pool:
    resource = fleet.pools[name]
    before = next((pool for pool in published.pools if pool.name == name), Pool(name=name))
    known = {(member.slot, member.generation): member for member in before.members}
    members = tuple(
        member
        for pod in fleet.pods_of(Component.TRANSCEIVER, name)
        if (member := _member(pod, resource, known.get((pod.slot, pod.generation)))) is not None
    )
    status_epoch = int(resource.status.get("ringEpoch") or 0)
    return Pool(
        name=name, ring_epoch=next_epoch(before.members, before.ring_epoch, status_epoch, members), members=members
    )


PROBATION_SHARE = 10


def _member(pod: Pod, pool: PoolResource, published: Member | None = None) -> Member | None:
    """Return a pod's entry: the very object that is published if it says the same. Ten thousand new ones a plan cost more
    than all other steps, and equal objects that are one are compared at no cost.
    """
    if not pod.host_ip or pod.finished:
        return None  # nothing listens there
    if pod.leaving or pool.deleting:
        state = MemberState.DRAINING
    else:
        # A member that is out is said to be starting, which readers of every version know to take no new calls.
        state = MemberState.ACTIVE if pod.ready and not pod.ejected else MemberState.STARTING
    weight = weight_of(pod.capacity, pool.spec.capacity.sessions)
    if pod.verdict is not None:
        weight = max(1, weight // PROBATION_SHARE)
    gray = pod.verdict is not None
    said = (pod.name, pod.node, pod.host_ip, pod.port, state, weight, gray)
    if published is not None and said == _said(published):
        return published
    return Member(
        slot=pod.slot,
        generation=pod.generation,
        name=pod.name,
        node=pod.node,
        address=pod.host_ip,
        port=pod.port,
        state=state,
        weight=weight,
        gray=gray,
    )


def _said(member: Member) -> tuple[object, ...]:
    """Return what `_member` decides of a slot and generation."""
    return (member.name, member.node, member.address, member.port, member.state, member.weight, member.gray)
