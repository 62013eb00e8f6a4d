"""Which port number a new transceiver gets.

A number is given to one pod of the whole fleet at a time, whatever node the scheduler chooses later: so any pod fits any
node, and two holders of one number on one node cannot be. A pod keeps its number until it is gone, also while it is
draining or terminating. The pods themselves are the record: there is nothing to lose.
"""

from collections.abc import Collection

from voicefleet_contract.resources import PortRange
from voicefleet_operator.desired.state import Component, Fleet


def ports_in_use(fleet: Fleet) -> set[int]:
    """Return every number that a pod of the fleet holds or a relay of it needs on its nodes."""
    held = {pod.port for pod in fleet.pods.values() if pod.component is Component.TRANSCEIVER}
    relays = {port for relay in fleet.relays.values() for port in (relay.spec.port, relay.spec.inner_port)}
    return held | relays


def choose_port(ports: PortRange, taken: Collection[int], slot: int, generation: int) -> int | None:
    """Return a free number of the range, or None if there is none.

    The search starts at a place that alternates between the halves of the range with the generation: what one rollout
    frees rests until the rollout after the next, so late packets of an ended call meet nobody.
    """
    start = slot + generation * ((ports.size + 1) // 2)
    for step in range(ports.size):
        port = ports.min + (start + step) % ports.size
        if port not in taken:
            return port
    return None
