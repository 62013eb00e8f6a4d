"""Which relays leave for good: their ingress is withdrawn, nobody comes after them, so they wait for their flows.

A relay process is told by SIGTERM that it ends, and not why. The topology tells it (docs/adr/0017): ``leaving`` on its entry
means that no successor will bind its address. Level-triggered like everything here: the answer follows from what is observed.

Owns: who leaves and why. Does not own: the rest of a relay's entry (topology), how long it waits (the relay, spec.drain).
"""

from collections.abc import Iterable

from voicefleet_contract.topology import Relay, RelayState
from voicefleet_operator.desired.pool.drain import why_emptied
from voicefleet_operator.desired.relay.daemonset import chosen_nodes
from voicefleet_operator.desired.state import Component, Fleet, Node, RelayResource


def why_withdrawn(resource: RelayResource, node: Node) -> str:
    """Return why no relay is wanted on this node; "" when one is."""
    if resource.deleting:
        return "the VoiceRelay is deleted"
    if not chosen_nodes(resource, [node]):
        return "spec.placement no longer chooses the node"
    return ""


def why_leaving(resource: RelayResource, node: Node) -> str:
    """Return why the relay on this node is to end its flows: none is wanted, or the node is to be emptied."""
    return why_withdrawn(resource, node) or why_emptied(node)


def ownerless_relays(fleet: Fleet, published: Iterable[Relay]) -> list[Relay]:
    """Return relays whose VoiceRelay is gone and whose pods are not: they leave, and owners go on trusting them."""
    there = {(pod.resource, pod.node) for pod in fleet.pods.values() if pod.component is Component.RELAY}
    return [
        entry.model_copy(update={"state": RelayState.DRAINING, "leaving": True})
        for entry in published
        if entry.relay not in fleet.relays
        and not fleet.is_unread("VoiceRelay", entry.relay)
        and (entry.relay, entry.node) in there
    ]


def flows_left(fleet: Fleet, entry: Relay) -> int | None:
    """Return how many flows a leaving relay last said it holds; None: it has not said."""
    pods = (pod.name for pod in fleet.pods_of(Component.RELAY, entry.relay) if pod.node == entry.node)
    said = [fleet.flows_left[name] for name in pods if name in fleet.flows_left]
    return sum(said) if said else None


def roughly(flows: int) -> int:
    """Round up to two digits: a status that counts down a hundred thousand flows one by one would be written for ever."""
    unit: int = 10 ** max(0, len(str(flows)) - 2)
    return -(-flows // unit) * unit
