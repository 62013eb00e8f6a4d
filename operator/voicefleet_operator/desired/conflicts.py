"""Contradictions between two resources: admission looks at one object at a time and cannot see them.

What runs keeps running: a VoiceRelay that would take another one's ports on a node is not rolled out, and both say why.
"""

from dataclasses import dataclass

from voicefleet_operator.desired.relay import chosen_nodes
from voicefleet_operator.desired.state import Fleet, RelayResource


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


def _numbers(relay: RelayResource) -> set[int]:
    return {relay.spec.port, relay.spec.inner_port}
