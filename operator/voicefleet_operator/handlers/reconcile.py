"""The one loop: wait until something changed, plan, carry out, again.

Changes that come close together make one plan. What fails is planned again after a pause that grows; a plan that finds
nothing to do writes nothing.
"""

import asyncio
import logging
import time

from voicefleet_operator.cluster.api import KubeApi, KubeError
from voicefleet_operator.cluster.apply import LedgerStore, apply_plan
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.handlers.store import FleetStore

log = logging.getLogger("voicefleet.operator")

SETTLE_S = 0.1  # a rollout's or a node's events come in bursts
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Reconciler:
    """Plans and carries out, one at a time."""

    def __init__(self, api: KubeApi, store: FleetStore, ledger: LedgerStore) -> None:
        self._api, self._store, self._ledger = api, store, ledger
        self._failures = 0
        self.last_pass_at = time.monotonic()  # for liveness
        self.passes = 0

    async def run(self) -> None:
        """Reconcile for ever."""
        while True:
            pause_s = await self.once()
            try:
                async with asyncio.timeout(pause_s):
                    await self._store.dirty.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(SETTLE_S if not self._failures else _PAUSES_S[0])

    async def once(self) -> float:
        """Make one pass; return after how many seconds to look again at the latest."""
        self._store.dirty.clear()
        self.last_pass_at = time.monotonic()
        fleet = self._store.fleet()
        if fleet is None:
            log.warning("waiting: %s", self._store.config_problem)
            return 30.0
        now = time.time()
        todo = plan(fleet, now)
        self.passes += 1
        try:
            await apply_plan(self._api, self._ledger, todo, now, self._store.take, self._store.forget)
            if todo.ledger is not None:
                self._store.ledger = todo.ledger
            if todo.quarantine is not None:
                self._store.quarantine = todo.quarantine
        except (KubeError, OSError, TimeoutError) as error:
            return await self._failed(error)
        self._failures = 0
        if todo.look_again_at is None:
            return 60.0
        return max(0.2, min(60.0, todo.look_again_at - now))

    async def _failed(self, error: Exception) -> float:
        pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1
        log.error("%s; again in %g s", error, pause_s)
        try:  # whatever was written of it: the ledger's truth is in the API server
            self._store.ledger = await self._ledger.read()
        except (KubeError, OSError, TimeoutError) as second:
            log.error("ledger not read: %s", second)
        await asyncio.sleep(pause_s)
        self._store.dirty.set()
        return pause_s
