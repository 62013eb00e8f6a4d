"""/healthz, /readyz and /metrics of the operator.

Alive: the loop passes (at least once a minute), no change has waited for minutes, and each watch was heard of lately (the
server sends a bookmark each minute, and kopf reconnects a silent stream after 70 s). Dead: Kubernetes starts another
process, which reads everything again. Ready: leading with a fleet's configuration, or standing by.
"""

import time

from aiohttp import web

from voicefleet_listener.bounds import Bounds
from voicefleet_listener.listener import ListenerDrops, bind_tcp, serve
from voicefleet_operator.cluster.key_rotation import KeyRotation
from voicefleet_operator.cluster.watching import Watches
from voicefleet_operator.handlers.metrics import LoopMetrics, queue_age_s
from voicefleet_operator.handlers.reconcile import Reconciler
from voicefleet_operator.handlers.store import FleetStore

STUCK_AFTER_S = 180.0
WATCH_UNSURE_AFTER_S = 100.0  # a bookmark and a reconnect were missed: not ready
WATCH_DEAD_AFTER_S = 240.0  # … and nothing mends it: not alive


class Health:
    """An HTTP listener. It stands before the operator leads: a standby is alive and ready."""

    def __init__(self, store: FleetStore, watches: Watches, metrics: LoopMetrics) -> None:
        self._store, self._watches, self._metrics = store, watches, metrics
        self.reconciler: Reconciler | None = None  # once it leads
        self.rotation: KeyRotation | None = None
        metrics.show(store, watches, lambda: self.reconciler is not None)
        self._runner: web.AppRunner | None = None

    async def start(self, address: str, port: int) -> None:
        """Listen. Raises OSError."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._write_metrics)
        listening = bind_tcp(address, port)
        self._runner = await serve(app, listening, "health", Bounds(), ListenerDrops(self._metrics.registry))

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def problems(self, watch_limit_s: float) -> list[str]:
        """Return what is stuck. A standby has nothing that could be."""
        if self.reconciler is None:
            return []
        found = []
        pass_age_s, queue_s = time.monotonic() - self.reconciler.last_pass_at, queue_age_s(self._store)
        if pass_age_s > STUCK_AFTER_S:
            found.append(f"no pass for {pass_age_s:.0f} s")
        # Beside the passes: a loop that turns and never gets a change done (the API server fails) is not stuck.
        if queue_s > STUCK_AFTER_S and not self.reconciler.failing:
            found.append(f"a change waits since {queue_s:.0f} s")
        found += [
            f"nothing heard of {kind} for {age_s:.0f} s"
            for kind, age_s in sorted(self._watches.ages_s().items())
            if age_s > watch_limit_s
        ]
        return found

    async def _healthz(self, request: web.Request) -> web.Response:
        problems = self.problems(WATCH_DEAD_AFTER_S)
        if problems:
            return web.Response(status=503, text="\n".join(problems) + "\n")
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        problems = self.problems(WATCH_UNSURE_AFTER_S)
        if self.reconciler is not None and self._store.config_problem:
            problems.append(self._store.config_problem)
        if problems:
            return web.Response(status=503, text="\n".join(problems) + "\n")
        return web.Response(text="leading\n" if self.reconciler is not None else "standing by\n")

    async def _write_metrics(self, request: web.Request) -> web.Response:
        self._metrics.count_keys(self.rotation)
        body, content_type = self._metrics.write()
        return web.Response(body=body, headers={"Content-Type": content_type})
