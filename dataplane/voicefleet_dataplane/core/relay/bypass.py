"""The kernel path beside a relay, as the relay's core sees it: a flow's media that no longer comes by here.

::

    bind ──▶ announce: the way out is open, the flow's checks name its flow port    (Flow.bare)
                │
                │                                                                   (Flow.awaits_owner until then)
                ├─ the owner answers under our own address: it understood ──▶ open: the way in, too
                └─ it answers under the header that came: a transceiver of before ──▶ close, and headers on everything
    forget ─▶ close

The core calls, and does not queue: the way out has to be open before the check that announces it leaves, since the owner
may answer with media at once.

Owns: the interface, and flow ports. Does not own: rules and hooks (fastpath), routes (shell/relay/kernel_path.py).
"""

from typing import Protocol

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.core.relay.flow import Flow


class Bypass(Protocol):
    """What can carry a flow's media past the process. None of it raises."""

    def announce(self, flow: Flow) -> Address | None:
        """Open the way from the owner; gives the address that its media is to name, or None: this flow stays here."""

    def open(self, flow: Flow) -> None:
        """Open the way to the owner."""

    def close(self, flow: Flow) -> None:
        """Close both ways. The next packet comes by here."""


class FlowPorts:
    """Port numbers of one relay, given out for each owner by itself: an owner tells flows apart by its peer's port.

    A number that was given back is the last to be given out again: the owner may still hold it for the flow before.
    """

    def __init__(self, ports: range, start: int = 0) -> None:
        """Begin at another place than the node's other relays do, so that they seldom meet."""
        self.ports = ports
        self._start = ports.start + start % len(ports)
        self._next: dict[Address, int] = {}
        self._taken: dict[Address, set[int]] = {}

    def take(self, owner: Address) -> int | None:
        """Return a number that no flow of the owner has; None when all are taken."""
        taken = self._taken.setdefault(owner, set())
        if len(taken) >= len(self.ports):
            return None
        port = self._next.get(owner, self._start)
        while port in taken:
            port = self._after(port)
        taken.add(port)
        self._next[owner] = self._after(port)
        return port

    def claim(self, owner: Address, port: int) -> None:
        """Note that a flow from before has a number."""
        self._taken.setdefault(owner, set()).add(port)

    def give_back(self, owner: Address, port: int) -> None:
        """A flow has ended."""
        taken = self._taken.get(owner)
        if taken is None:
            return
        taken.discard(port)
        if not taken:
            del self._taken[owner]
            if len(self._next) > _OWNERS_REMEMBERED:
                self._next.clear()

    def _after(self, port: int) -> int:
        return port + 1 if port + 1 < self.ports.stop else self.ports.start


_OWNERS_REMEMBERED = 4_096
