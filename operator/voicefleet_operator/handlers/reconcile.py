"""The one loop: wait until something changed, plan, carry out, again.

Changes that come close together make one plan. What fails is planned again after a pause that grows, or that the server
asked for; a plan that finds nothing to do writes nothing. A fleet in constant change is planned for at most half of the
time: the rest belongs to the watches, the Lease and the health port.
"""

import asyncio
import logging
import time

from voicefleet_operator.cluster.api import KubeApi, KubeError
from voicefleet_operator.cluster.apply import LedgerStore, apply_plan
from voicefleet_operator.desired.isolation import plan_around
from voicefleet_operator.desired.plan import Plan
from voicefleet_operator.desired.state import REFUSAL_RETRY_S, Fleet, Refusal
from voicefleet_operator.handlers.metrics import LoopMetrics
from voicefleet_operator.handlers.store import FleetStore

log = logging.getLogger("voicefleet.operator")

SETTLE_S = 0.1  # a rollout's or a node's events come in bursts
SETTLE_AT_MOST_S = 2.0
LOOK_AGAIN_S = 60.0
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ANSWERS_PAUSE_S = 5.0  # at most, while the server answers others: members come and go meanwhile


class Reconciler:
    """Plans and carries out, one at a time."""

    def __init__(self, api: KubeApi, store: FleetStore, ledger: LedgerStore, metrics: LoopMetrics) -> None:
        self._api, self._store, self._ledger, self._metrics = api, store, ledger, metrics
        self._failures = 0
        self._planned_s = self._ended_at = 0.0
        self.last_pass_at = time.monotonic()  # for liveness

    @property
    def failing(self) -> bool:
        """The last pass failed: the API server is away, overloaded or refuses."""
        return self._failures > 0

    async def run(self) -> None:
        """Reconcile for ever."""
        while True:
            pause_s = await self.once()
            self._ended_at = time.monotonic()
            try:
                async with asyncio.timeout(pause_s):
                    await self._store.dirty.wait()
            except TimeoutError:
                continue
            rested_s = time.monotonic() - self._ended_at
            await asyncio.sleep(min(SETTLE_AT_MOST_S, max(SETTLE_S, self._planned_s - rested_s)))

    async def once(self) -> float:
        """Make one pass; return after how many seconds to look again at the latest."""
        self.last_pass_at = time.monotonic()
        since, now = self._store.take_up(), time.time()
        fleet = self._store.fleet()
        if fleet is None:  # nobody has said what the fleet is to be: that is not ready, and no reason to end
            log.warning("waiting: %s", self._store.config_problem)
            return LOOK_AGAIN_S / 2
        todo, problem = plan_around(fleet, now)
        if problem is not None:
            log.error("a resource breaks the plan and is left as it is; please report this", exc_info=problem)
        self._planned_s = time.monotonic() - self.last_pass_at
        self._metrics.plan.observe(self._planned_s)
        try:
            await self._carry_out(fleet, todo, now)
        except (KubeError, OSError, TimeoutError) as error:
            return await self._failed(error, since)
        self._failures = 0
        if since is not None:
            self._metrics.reconcile.observe(time.monotonic() - since)
        if todo.look_again_at is None:
            return LOOK_AGAIN_S
        return max(0.2, min(LOOK_AGAIN_S, todo.look_again_at - now))

    async def _carry_out(self, fleet: Fleet, todo: Plan, now: float) -> None:
        """Raises KubeError when a part of it is to be tried again."""
        outcome = await apply_plan(self._api, self._ledger, todo, now, self._store.take, self._store.forget)
        self._metrics.refusals.inc(len(outcome.refused))
        held = {key: refusal for key, refusal in fleet.refused.items() if refusal.retry_at > now}
        held |= {key: Refusal(message, now + REFUSAL_RETRY_S) for key, message in outcome.refused.items()}
        if held != self._store.refused:
            self._store.refused = held
            self._store.mark()
        if outcome.failed is not None:
            raise outcome.failed
        if todo.ledger is not None:
            self._store.ledger = todo.ledger

    async def _failed(self, error: Exception, since: float | None) -> float:
        pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        if isinstance(error, KubeError):
            pause_s = max(pause_s if error.is_away else min(pause_s, _ANSWERS_PAUSE_S), error.retry_after_s)
        self._failures += 1
        self._metrics.failures.inc()
        log.error("%s; again in %g s", error, pause_s)
        await asyncio.sleep(pause_s)
        while True:  # whatever was written of it, the ledger's truth is in the API server: no plan without it
            self.last_pass_at = time.monotonic()
            try:
                self._store.ledger = await self._ledger.read()
                break
            except (KubeError, OSError, TimeoutError) as second:
                log.error("ledger not read: %s; again in %g s", second, pause_s)
                await asyncio.sleep(pause_s)
        self._store.mark()
        if since is not None:
            self._store.waiting_since = since  # it still waits
        return pause_s
