"""/healthz and /readyz of the operator, and its metrics.

Alive means that the loop passed lately: it passes at least once a minute, so a stuck one is seen.
"""

import time

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from voicefleet_operator.cluster.key_rotation import KeyRotation
from voicefleet_operator.handlers.reconcile import Reconciler
from voicefleet_operator.handlers.store import FleetStore

STUCK_AFTER_S = 180.0


class Health:
    """An HTTP listener. It stands before the operator leads: a standby is alive and ready."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self.reconciler: Reconciler | None = None  # once it leads
        self.rotation: KeyRotation | None = None
        self._registry = CollectorRegistry()
        Gauge("voicefleet_operator_leader", "1 while this process leads.", registry=self._registry).set_function(
            lambda: 0 if self.reconciler is None else 1
        )
        Gauge(
            "voicefleet_operator_passes", "Passes of the reconcile loop since the start.", registry=self._registry
        ).set_function(lambda: 0 if self.reconciler is None else self.reconciler.passes)
        Gauge(
            "voicefleet_operator_last_pass_age_seconds", "Since the last pass.", registry=self._registry
        ).set_function(self._age_s)
        self._key_epochs = Gauge(
            "voicefleet_operator_key_epoch",
            "The epochs of a key ring: the one that signs, the one published to sign next, those that are retiring.",
            ["ring", "state", "epoch"],
            registry=self._registry,
        )
        self._rotation_waits_for = Gauge(
            "voicefleet_operator_key_rotation_waits_for",
            "Processes that have not acknowledged the published epoch.",
            ["ring"],
            registry=self._registry,
        )
        self._runner: web.AppRunner | None = None

    async def start(self, address: str, port: int) -> None:
        """Listen. Raises OSError."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port).start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _age_s(self) -> float:
        return 0.0 if self.reconciler is None else time.monotonic() - self.reconciler.last_pass_at

    async def _healthz(self, request: web.Request) -> web.Response:
        if self._age_s() > STUCK_AFTER_S:
            return web.Response(status=503, text=f"no pass for {self._age_s():.0f} s\n")
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if self.reconciler is not None and self._store.config_problem:
            return web.Response(status=503, text=f"{self._store.config_problem}\n")
        return web.Response(text="leading\n" if self.reconciler is not None else "standing by\n")

    def _count_keys(self) -> None:
        self._key_epochs.clear()
        for ring, decision in self.rotation.decisions.items() if self.rotation is not None else ():
            for epoch in decision.ring.epochs:
                self._key_epochs.labels(ring, decision.ring.state(epoch), str(epoch)).set(1)
            self._rotation_waits_for.labels(ring).set(len(decision.waits_for))

    async def _metrics(self, request: web.Request) -> web.Response:
        self._count_keys()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
