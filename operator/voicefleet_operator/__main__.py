"""The operator's process: settings, the Lease, the first look at the fleet, then watching and reconciling until told to stop.

Any part that ends ends the process: Kubernetes starts another one, which reads everything again. Nothing is kept here that
the API server does not have.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import kopf

from voicefleet_contract.release import release
from voicefleet_contract.settings import OperatorSettings, SettingsError
from voicefleet_operator.cluster.api import KubeApi, KubeError
from voicefleet_operator.cluster.apply import LedgerStore, read_quarantine
from voicefleet_operator.cluster.credentials import ensure_credentials
from voicefleet_operator.cluster.key_rotation import KeyRotation
from voicefleet_operator.cluster.lease import Lease
from voicefleet_operator.cluster.registry import RegistryReader
from voicefleet_operator.cluster.transceivers import ControlClient
from voicefleet_operator.cluster.watching import Watches
from voicefleet_operator.handlers.health import Health
from voicefleet_operator.handlers.metrics import LoopMetrics
from voicefleet_operator.handlers.pollers import (
    follow_drains,
    follow_registry,
    renew_credentials,
    rotate_keys,
    vouch_for_sessions_api,
)
from voicefleet_operator.handlers.reconcile import Reconciler
from voicefleet_operator.handlers.store import FleetStore
from voicefleet_operator.handlers.watch import (
    build_foreign_registry,
    build_registry,
    follow_lists,
    foreign_watch_settings,
    list_everything,
    watch_settings,
    watched_paths,
)

log = logging.getLogger("voicefleet.operator")

_KOPF = ("watches", "foreign watch")


def main() -> None:
    """Run the operator. Exits 2 for wrong settings, 1 when a part of it ended."""
    if "--help" in sys.argv[1:]:
        print(__doc__)
        return
    if "--version" in sys.argv[1:]:
        print(f"voicefleet-operator {release()}")
        return
    try:
        settings = OperatorSettings.from_environment(os.environ)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    log.info("voicefleet-operator %s", release())
    logging.getLogger("kopf").setLevel(logging.WARNING)  # its line for each event would drown ours
    if settings.kubeconfig:
        os.environ["KUBECONFIG"] = settings.kubeconfig  # kopf reads it from there
    try:
        clean = asyncio.run(run_operator(settings))
    except (KubeError, OSError, ValueError) as error:
        log.error("cannot run: %s", error)
        sys.exit(1)
    sys.exit(0 if clean else 1)


async def run_operator(settings: OperatorSettings) -> bool:
    """Run until a signal (True) or until a part ends (False). Raises KubeError, OSError, LedgerError at start."""
    stop = asyncio.Event()
    _stop_on_signals(stop)
    store = FleetStore(settings.namespace, settings.fleet_config)
    metrics = LoopMetrics()
    watches = Watches(watched_paths(settings.namespace, foreign=settings.see_foreign_pods))
    api = await KubeApi.connect(settings.namespace, settings.kubeconfig, metrics.count_request)
    health = Health(store, watches, metrics)
    await health.start(settings.health_address, settings.health_port)
    lease = Lease(api, settings.lease, settings.process_name) if settings.lease else None
    try:
        if lease is not None:
            api.may_write = lease.held
        if lease is not None and not await _before(stop, lease.acquire()):
            return True
        with tempfile.TemporaryDirectory(prefix="voicefleet-operator-") as directory:
            return await _lead(settings, api, store, health, lease, stop, Path(directory), watches, metrics)
    finally:
        if lease is not None:
            with contextlib.suppress(KubeError, OSError, TimeoutError):
                await lease.release()
        await health.stop()
        await api.close()


async def _lead(
    settings: OperatorSettings,
    api: KubeApi,
    store: FleetStore,
    health: Health,
    lease: Lease | None,
    stop: asyncio.Event,
    directory: Path,
    watches: Watches,
    metrics: LoopMetrics,
) -> bool:
    # From here on: listing a large fleet takes longer than the Lease lives.
    holding = {asyncio.create_task(lease.hold(), name="lease")} if lease is not None else set()
    ledger, control = LedgerStore(api), ControlClient(directory)
    control.use_certificate(await ensure_credentials(api, time.time()))
    store.ledger, store.quarantine = await ledger.read(), await read_quarantine(api)
    await list_everything(api, store, foreign=settings.see_foreign_pods)
    watches.begin()
    reconciler = health.reconciler = Reconciler(api, store, ledger, metrics)
    rotation = health.rotation = KeyRotation(api)
    registry = RegistryReader(settings.redis_password_file)
    started = [asyncio.Event() for _ in range(2 if settings.see_foreign_pods else 1)]
    parts: dict[str, Coroutine[Any, Any, None]] = {
        "watches": kopf.operator(
            registry=build_registry(store, settings.kubeconfig, watches, metrics.count_request),
            settings=watch_settings(settings.watch_silence_s),
            namespaces=[settings.namespace],
            standalone=True,
            stop_flag=stop,
            ready_flag=started[0],
        ),
        **(
            {"foreign watch": _watch_foreign(settings, store, stop, watches, metrics, started[-1])}
            if settings.see_foreign_pods
            else {}
        ),
        "lists": follow_lists(api, store, watches),
        "reconciler": reconciler.run(),
        "drains": follow_drains(store, control),
        "registry": follow_registry(store, registry, control),
        "credentials": renew_credentials(api, control),
        "key rotation": rotate_keys(rotation, store),
        "sessions API": vouch_for_sessions_api(api),
        "signals": _take_signals_back(started, stop),
    }
    tasks = holding | {asyncio.create_task(part, name=name) for name, part in parts.items()}
    stopping = asyncio.create_task(stop.wait(), name="signal")
    done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
    # A signal that kopf took before we took it back ends kopf without an error.
    clean = stop.is_set() or any(task.get_name() in _KOPF and task.exception() is None for task in done)
    for task in done - {stopping}:
        if not clean:
            log.error("%s ended: %s", task.get_name(), task.exception() or "without an error")
    stop.set()
    for task in {*tasks, stopping}:
        task.cancel()
    await asyncio.wait({*tasks, stopping}, timeout=10)
    await registry.close()
    return clean


async def _watch_foreign(
    settings: OperatorSettings,
    store: FleetStore,
    stop: asyncio.Event,
    watches: Watches,
    metrics: LoopMetrics,
    started: asyncio.Event,
) -> None:
    await kopf.operator(
        registry=build_foreign_registry(store, settings.kubeconfig, watches, metrics.count_request),
        settings=foreign_watch_settings(settings.namespace, settings.watch_silence_s),
        clusterwide=True,
        standalone=True,
        stop_flag=stop,
        ready_flag=started,
    )


def _stop_on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _take_signals_back(started: list[asyncio.Event], stop: asyncio.Event) -> None:
    """Kopf takes SIGTERM for itself when it starts, and gives all other tasks five seconds to end: five without a leader."""
    for one in started:
        await one.wait()
    _stop_on_signals(stop)
    await asyncio.Event().wait()  # no part ends by itself


async def _before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Wait for the work; False when the stop came first."""
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        await task
        return True
    task.cancel()
    return False


if __name__ == "__main__":
    main()
