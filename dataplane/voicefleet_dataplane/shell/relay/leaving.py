"""How a relay leaves.

Readiness goes at once, the sockets stay for ``leave_grace_s`` and forward all the while. Then a relay that restarts hands
over at once: its successor waits for the ports (shell/process/udp.py) and the flow cache, or the next check of each client,
rebuilds its flows. A relay whose ingress is withdrawn, as the topology says of it by then, has no successor: it forwards
on, also new calls that were told its address just before, until no flow lives or ``drain_deadline_s`` is over
(docs/adr/0017). The operator writes that into the topology; for when it is away, the relay asks whether its VoiceRelay
is deleted.

Owns: whether there will be a successor, and when there is nothing left to wait for. Does not own: sockets, or what is closed then
(shell/relay/process.py).
"""

import asyncio
import logging
import time

from voicefleet_contract.settings import RelaySettings
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.shell.process.topology_source import Source

log = logging.getLogger("voicefleet.relay")

_LOOK_S = 0.5
_ASK_AGAIN_S = 5.0


class Leaving:
    """One relay's."""

    def __init__(self, settings: RelaySettings, topology: Source, core: Relay) -> None:
        self._settings = settings
        self._topology = topology
        self._core = core
        self._deleted = False  # the VoiceRelay is
        self.has_begun = False
        self.waiting = False  # for flows to end

    @property
    def withdrawn(self) -> bool:
        """Say whether nobody will answer here after this relay: the topology calls it leaving, or its VoiceRelay is deleted."""
        index = self._core.topology
        entry = index.relay_at(self._core.inner) if index is not None else None
        return self._deleted or (entry is not None and entry.leaving)

    async def leave(self) -> None:
        """Be unready from now on, and forward on: for the grace, or where nobody comes after us until no flow lives."""
        settings, flows = self._settings, self._core.flows
        self.has_begun = True
        log.info("leaving in %g s", settings.leave_grace_s)
        await asyncio.gather(asyncio.sleep(settings.leave_grace_s), self._ask_whether_deleted())
        if not self.withdrawn:
            return
        log.info("the ingress is withdrawn: %d flows, at most %g s", len(flows), settings.drain_deadline_s)
        self.waiting = True
        asked_at = time.monotonic()
        give_up_at = asked_at + settings.drain_deadline_s
        while self.withdrawn and flows.any_live(now := time.monotonic()):
            if now >= give_up_at:
                log.warning("the drain deadline is over: %d flows are left", len(flows))
                return
            await asyncio.sleep(min(_LOOK_S, give_up_at - now))
            if self._deleted and now - asked_at > _ASK_AGAIN_S:  # it may be made anew
                asked_at = now
                await self._ask_whether_deleted()
        log.info("no flow is left" if self.withdrawn else "the ingress is back: handing over")

    async def _ask_whether_deleted(self) -> None:
        if self._settings.relay_name:
            deleted = await self._topology.relay_is_gone(self._settings.relay_name)
            self._deleted = self._deleted if deleted is None else deleted
