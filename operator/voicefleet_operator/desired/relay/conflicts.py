"""Contradictions between two resources: admission looks at one object at a time and cannot see them.

What runs keeps running: a VoiceRelay that would take another one's ports on a node is not rolled out, and both say why.
A relay's port is not the operator's to choose: who else holds it on a node is said, and left to people.
"""

from dataclasses import dataclass

from voicefleet_operator.desired.relay.daemonset import chosen_nodes
from voicefleet_operator.desired.state import Component, Fleet, Pod, PortRefusal, RelayResource


@dataclass(frozen=True, slots=True)
class RelayConflict:
    """Another VoiceRelay wants the same port numbers on the same nodes."""

    other: str
    ports: tuple[int, ...]
    nodes: tuple[str, ...]


def relay_conflicts(fleet: Fleet) -> dict[str, list[RelayConflict]]:
    """Return VoiceRelay → its conflicts; each stands on both sides."""
    nodes = list(fleet.nodes.values())
    relays = [fleet.relays[name] for name in sorted(fleet.relays) if not fleet.relays[name].deleting]
    chosen = {relay.name: {node.name for node in chosen_nodes(relay, nodes)} for relay in relays}
    found: dict[str, list[RelayConflict]] = {}
    for relay in relays:
        for other in relays:
            ports, shared = _numbers(relay) & _numbers(other), chosen[relay.name] & chosen[other.name]
            if relay is not other and ports and shared:
                conflict = RelayConflict(other.name, tuple(sorted(ports)), tuple(sorted(shared)))
                found.setdefault(relay.name, []).append(conflict)
    return found


def held_relays(fleet: Fleet, wanted: dict[str, str], conflicts: dict[str, list[RelayConflict]]) -> set[str]:
    """Return the VoiceRelays that must not be rolled out now. ``wanted`` are the digests of their DaemonSets.

    Whoever has its DaemonSet already is first; of two newcomers the first by name. Were both rolled out, the pods of one
    would wait on the shared nodes, and take the port when the other's next update lets go of it.
    """
    applied = {name: record.digest for (kind, name), record in fleet.applied.items() if kind == "DaemonSet"}

    def turn(relay: str) -> tuple[bool, str]:
        return (f"{relay}-relay" not in applied, relay)

    def is_news(relay: str) -> bool:
        return applied.get(f"{relay}-relay") != wanted.get(f"{relay}-relay")

    return {
        relay
        for relay, others in conflicts.items()
        if is_news(relay) and any(turn(conflict.other) < turn(relay) for conflict in others)
    }


def relay_port_holders(fleet: Fleet, relay: RelayResource) -> list[str]:
    """Return who holds what where, of the numbers that pods of a VoiceRelay were refused."""
    pods = fleet.pods_of(Component.RELAY, relay.name)
    refused = [pod for pod in pods if pod.port_refused is not None and not pod.leaving]
    numbers = _numbers(relay)
    either = " or ".join(map(str, sorted(numbers)[:4]))
    found = [
        f"{either} on {pod.node} is held by a process on the node"
        for pod in refused
        if pod.port_refused is PortRefusal.NODE
    ]
    if any(pod.port_refused is PortRefusal.SCHEDULER for pod in refused):
        # The scheduler does not say which node it means: one of those that want a relay and have none.
        without = {node.name for node in chosen_nodes(relay, list(fleet.nodes.values()))} - {pod.node for pod in pods}
        seen = _holders(fleet, numbers, without)
        found += seen or [f"{either} is held by a pod that the operator may not see"]
    return found


def _holders(fleet: Fleet, numbers: set[int], nodes: set[str]) -> list[str]:
    foreign = [
        (port, pod.node, f"pod {pod.name}")
        for pod in fleet.foreign.values()
        if pod.node in nodes
        for port in pod.ports & numbers
    ]
    ours = [
        (pod.port, pod.node, _name(pod)) for pod in fleet.pods.values() if pod.node in nodes and pod.port in numbers
    ]
    return [f"{port} on {node} is held by {who}" for port, node, who in sorted({*foreign, *ours})]


def _name(pod: Pod) -> str:
    return f"pod {pod.name} of Transceiver {pod.resource}"


def _numbers(relay: RelayResource) -> set[int]:
    return {relay.spec.port, *relay.spec.inner_ports}
