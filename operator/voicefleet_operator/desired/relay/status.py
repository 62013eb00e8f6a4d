"""The observed fleet → a VoiceRelay's status: where its relays stand, what clients are told, and why a node has none."""

from collections.abc import Iterable

from voicefleet_contract import names
from voicefleet_contract.resources import AdvertiseFrom, Datapath
from voicefleet_contract.topology import Relay, RelayState
from voicefleet_operator.desired.conditions import (
    Condition,
    conditions_before,
    listed,
    merge_conditions,
    pod_trouble,
    stalled,
)
from voicefleet_operator.desired.relay.conflicts import RelayConflict, relay_port_holders
from voicefleet_operator.desired.relay.leaving import flows_left, roughly, why_leaving
from voicefleet_operator.desired.state import Component, Fleet, Manifest, Pod, RelayResource


def relay_status(
    fleet: Fleet, resource: RelayResource, entries: Iterable[Relay], conflicts: list[RelayConflict], now: float
) -> Manifest:
    """Return a VoiceRelay's status. ``entries`` are its relays in the topology to publish."""
    pods = fleet.pods_of(Component.RELAY, resource.name)
    mine = sorted((entry for entry in entries if entry.relay == resource.name), key=lambda entry: entry.name)
    active = [entry for entry in mine if entry.state is RelayState.ACTIVE]
    leaving = [entry for entry in mine if entry.leaving]
    nodes = len([node for node in fleet.nodes.values() if not why_leaving(resource, node)])
    addresses = sorted({_endpoint(e.address, e.port) for entry in active for e in entry.advertise})
    unreachable = [entry.node for entry in mine if not entry.advertise and not entry.leaving]
    stuck = pod_trouble(pods)
    if resource.paused:
        ready = Condition("Ready", bool(active), "Paused", f"annotation {names.GROUP}/paused: nothing is changed")
    elif resource.spec.advertise.from_ is AdvertiseFrom.LOAD_BALANCER:
        text = "spec.advertise.from: LoadBalancer is not built yet; use addresses, NodeExternalIP or NodeInternalIP"
        ready = Condition("Ready", False, "LoadBalancerNotSupported", text)
    elif not nodes and leaving:
        ready = Condition("Ready", False, "AllDraining", "every relay drains: choose another node, or uncordon one")
    elif not nodes:
        ready = Condition("Ready", False, "NoNodes", "no node matches spec.placement.nodeSelector; label one")
    elif unreachable:
        what = (resource.spec.advertise.from_ or AdvertiseFrom.NODE_EXTERNAL_IP).value
        text = f"no address to advertise on {listed(unreachable)}: they have no {what}; set spec.advertise.addresses"
        ready = Condition("Ready", False, "NoAddress", text)
    elif len(active) < nodes:
        ready = Condition(
            "Ready", False, "RelaysNotReady", f"{len(active)} of {nodes} relays are ready. {stuck}".strip()
        )
    else:
        ready = Condition("Ready", True, "Ready", f"{nodes} relays take packets")
    moving = not resource.paused and len(active) < nodes
    conditions = [
        ready,
        Condition("Reconciling", moving, "RelaysStarting" if moving else "Settled", ""),
        stalled(fleet, "VoiceRelay", resource.name, stuck),
        _relay_ports(conflicts, relay_port_holders(fleet, resource)),
        _relays_draining(fleet, resource, leaving),
        _fast_path(fleet, resource, pods),
    ]
    return {
        "observedGeneration": resource.generation,
        "nodes": nodes,
        "ready": len(active),
        "draining": len(leaving),
        "addresses": addresses[:64],
        "conditions": merge_conditions(conditions_before(resource.status), conditions, resource.generation, now),
    }


def _fast_path(fleet: Fleet, resource: RelayResource, pods: list[Pod]) -> Condition:
    """Say whether media moves in the kernel as the spec asks for, from what the relays told the registry."""
    asked = resource.spec.datapath
    if asked is Datapath.USERSPACE:
        workers = resource.spec.worker_count
        several = f"; {workers} workers on each node forward, which only user space has" if workers > 1 else ""
        return Condition("FastPath", False, "NotAskedFor", f"spec.datapath: Userspace{several}")
    if fleet.datapaths is None:
        return Condition("FastPath", None, "RegistryAway", "no Redis, or not reachable: the relays cannot tell")
    told = {pod.node: fleet.datapaths[pod.name] for pod in pods if pod.name in fleet.datapaths and not pod.leaving}
    if not told:
        return Condition("FastPath", None, "NotToldYet", "no relay has told yet how it moves media")
    fallen = {node: reason for node, (mode, reason) in told.items() if mode == Datapath.USERSPACE}
    if fallen:
        whys = [f"{node}: {reason}" for node, reason in sorted(fallen.items())]
        return Condition("FastPath", False, "FellBackToUserspace", listed(whys))
    modes = sorted({mode for mode, _ in told.values()})
    # Behind the interfaces stands what was refused on the way here, and what was measured.
    more = {node: reason.partition("; ")[2] for node, (_, reason) in sorted(told.items())}
    notes = listed([f"{node}: {note}" for node, note in more.items() if note])
    return Condition(
        "FastPath", True, "InKernel", f"{', '.join(modes)} on {len(told)} nodes" + (f"; {notes}" if notes else "")
    )


def _relays_draining(fleet: Fleet, resource: RelayResource, leaving: list[Relay]) -> Condition:
    if not leaving:
        return Condition("Draining", False, "NoneDraining")
    said = []
    for entry in leaving:
        left, node = flows_left(fleet, entry), fleet.nodes.get(entry.node)
        why = why_leaving(resource, node) if node is not None else "the node is gone"
        flows = "flows not told yet" if left is None else f"about {roughly(left)} flows left"
        said.append(f"{entry.name}: {flows} ({why})")
    return Condition("Draining", True, "WaitingForFlows", listed(said))


def _relay_ports(conflicts: list[RelayConflict], holders: list[str]) -> Condition:
    if not conflicts and holders:
        text = f"{listed(holders)}; the relay there waits: free the number, or change spec.port or the nodes"
        return Condition("PortsAllocated", False, "PortConflict", text)
    if not conflicts:
        return Condition("PortsAllocated", True, "Allocated")
    parts = [
        f"VoiceRelay {conflict.other} wants port {listed(conflict.ports)} too, on {listed(conflict.nodes)}"
        for conflict in conflicts
    ]
    text = (
        f"{'; '.join(parts)}; the one that runs there stays, the other is not rolled out: change spec.port or the nodes"
    )
    return Condition("PortsAllocated", False, "PortConflict", text)


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
