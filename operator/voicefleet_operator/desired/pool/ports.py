"""The host-port ledger: who holds which port number where, and which number a new transceiver gets.

Built anew from every observation, so there is nothing to lose and nothing to disagree with: our pods hold their numbers
until they are gone (also while they drain), relays need theirs on their nodes, other people's pods declare host ports,
and what only a failed bind could tell stands in quarantine for a time.

A number is given to one pod of the whole fleet at a time, whatever node the scheduler chooses later: so any pod fits any
node, and two holders of one number on one node cannot be. A number that a foreign pod has on some nodes is given only when
no better one is left: the scheduler then finds one of the other nodes.

Owns: the choice of numbers, and the names of who is in the way. Does not own: when a pod is made or replaced (steps).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from voicefleet_contract.resources import PortRange
from voicefleet_operator.desired.state import Component, Fleet, ForeignPod, Place, PoolResource


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A number of a pool's range that somebody else has. ``until`` is the end of a quarantine."""

    place: Place
    holder: str
    until: float | None = None

    def __str__(self) -> str:
        """Say who holds what where, as conditions do."""
        where = f"{self.place.port} on {self.place.node or 'a node'}"
        return f"{where} is held by {self.holder}"


class PortLedger:
    """The numbers as they are now; `choose` marks what it gives."""

    def __init__(self, fleet: Fleet, now: float) -> None:
        self._nodes = fleet.nodes
        self._ours = {pod.port for pod in fleet.pods.values() if pod.component is Component.TRANSCEIVER}
        self._ours |= {port for relay in fleet.relays.values() for port in (relay.spec.port, *relay.spec.inner_ports)}
        self._foreign: dict[int, list[ForeignPod]] = {}
        for foreign in fleet.foreign.values():
            for port in foreign.ports:
                self._foreign.setdefault(port, []).append(foreign)
        self._quarantine = {place: until for place, until in fleet.quarantine.items() if until > now}
        self._candidate_nodes: dict[str, set[str]] = {}
        self._shut = {place.port for place in self._quarantine}

    def choose(self, pool: PoolResource, slot: int, generation: int) -> int | None:
        """Give a number of the pool's range to a new pod; None when there is none."""
        port = self._best(pool, slot, generation)
        if port is not None:
            self._ours.add(port)
        return port

    def spare(self, pool: PoolResource) -> int:
        """Return how many numbers pods of the pool could be given now."""
        nodes, ports = self._candidates(pool), pool.spec.ports
        return sum(self._held_on(port, nodes) is not None for port in range(ports.min, ports.max + 1))

    def _best(self, pool: PoolResource, slot: int, generation: int) -> int | None:
        """Return the number to give, or None.

        The search starts at a place that alternates between the halves of the range with the generation: what one rollout
        frees rests until the rollout after the next, so late packets of an ended call meet nobody.
        """
        nodes, ports = self._candidates(pool), pool.spec.ports
        start = slot + generation * ((ports.size + 1) // 2)
        second_best: tuple[int, int] | None = None  # (nodes on which it is held, number)
        for step in range(ports.size):
            port = ports.min + (start + step) % ports.size
            held_on = self._held_on(port, nodes)
            if held_on == 0:
                return port
            if held_on is not None and (second_best is None or held_on < second_best[0]):
                second_best = (held_on, port)
        return None if second_best is None else second_best[1]

    def _held_on(self, port: int, nodes: set[str]) -> int | None:
        """Return on how many of these nodes foreign pods hold a number; None if nobody can be given it."""
        if port in self._ours or port in self._shut:
            return None
        held_on = len({foreign.node for foreign in self._foreign.get(port, ())} & nodes)
        return held_on if held_on == 0 or held_on < len(nodes) else None

    def shut(self, place: Place, until: float) -> None:
        """Give nobody this number any more, until then."""
        self._quarantine[place] = until
        self._shut.add(place.port)

    def obstacles(self, pool: PoolResource) -> list[Obstacle]:
        """Return what keeps numbers of the pool's range from it, in a stable order."""
        found = [
            Obstacle(place, self._holder(place), until)
            for place, until in self._quarantine.items()
            if place.port in pool.spec.ports
        ]
        known = {item.place for item in found}
        nodes = self._candidates(pool)
        for port in filter(pool.spec.ports.__contains__, self._foreign):
            for foreign in self._foreign[port]:
                place = Place(foreign.node, port)
                if foreign.node in nodes and place not in known:
                    found.append(Obstacle(place, f"pod {foreign.name}"))
        return sorted(found, key=lambda item: (item.place.port, item.place.node, item.holder))

    def _holder(self, place: Place) -> str:
        pods = sorted(foreign.name for foreign in self._foreign.get(place.port, ()) if place.node in ("", foreign.node))
        if pods:
            return f"pod {pods[0]}"
        return "a process on the node" if place.node else "a pod that the operator may not see"

    def _candidates(self, pool: PoolResource) -> set[str]:
        if pool.name not in self._candidate_nodes:  # a thousand nodes are not gone through for each of a thousand pods
            wanted = pool.spec.placement.node_selector.items()
            self._candidate_nodes[pool.name] = {
                name for name, node in self._nodes.items() if all(node.labels.get(k) == v for k, v in wanted)
            }
        return self._candidate_nodes[pool.name]


def overlapping_pools(pools: Mapping[str, PoolResource], mine: PoolResource) -> list[tuple[str, PortRange]]:
    """Return the pools whose ranges share numbers with this one's, and the numbers."""
    found: list[tuple[str, PortRange]] = []
    for name in sorted(pools):
        low = max(mine.spec.ports.min, pools[name].spec.ports.min)
        high = min(mine.spec.ports.max, pools[name].spec.ports.max)
        if name != mine.name and low <= high:
            found.append((name, PortRange(min=low, max=high)))
    return found
