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
from dataclasses import replace
from pathlib import Path
from typing import Any

import kopf

from voicefleet_contract.release import release
from voicefleet_contract.settings import OperatorSettings, SettingsError
from voicefleet_operator.cluster.api import KubeApi, KubeError
from voicefleet_operator.cluster.apply import LedgerStore, read_quarantine
from voicefleet_operator.cluster.credentials import ensure_credentials, vouch_for_sessions_api
from voicefleet_operator.cluster.key_rotation import KeyRotation
from voicefleet_operator.cluster.lease import Lease
from voicefleet_operator.cluster.registry import RegistryReader
from voicefleet_operator.cluster.transceivers import ControlClient
from voicefleet_operator.cluster.watching import Watches
from voicefleet_operator.desired.pool import gray
from voicefleet_operator.desired.pool.autoscaling import autoscaled, remember, scales
from voicefleet_operator.desired.pool.drain import draining_pods
from voicefleet_operator.desired.pool.idle import idle_marks
from voicefleet_operator.desired.state import Component, Fleet
from voicefleet_operator.handlers.health import Health
from voicefleet_operator.handlers.metrics import LoopMetrics
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

_DRAIN_POLL_S = 2.0
_REGISTRY_POLL_S = 5.0
_ASKED_AT_ONCE = 64  # members, while the registry is away
_CREDENTIALS_S = 3600.0
_ROTATION_S = 5.0
_VOUCH_S = 60.0
_KOPF = ("watches", "foreign watch")


def main() -> None:
    """Run the operator. Exits 2 for wrong settings, 1 when a part of it ended."""
    if "--version" in sys.argv[1:]:
        print(f"voicefleet-operator {release()}")
        return
    try:
        settings = OperatorSettings.from_environment(os.environ)
    except SettingsError as error:
        sys.exit(f"error: {error}")
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
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
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
    parts: dict[str, Coroutine[Any, Any, None]] = {
        "watches": kopf.operator(
            registry=build_registry(store, settings.kubeconfig, watches, metrics.count_request),
            settings=watch_settings(settings.watch_silence_s),
            namespaces=[settings.namespace],
            standalone=True,
            stop_flag=stop,
        ),
        **(
            {"foreign watch": _watch_foreign(settings, store, stop, watches, metrics)}
            if settings.see_foreign_pods
            else {}
        ),
        "lists": follow_lists(api, store, watches),
        "reconciler": reconciler.run(),
        "drains": _follow_drains(store, control),
        "registry": _follow_registry(store, registry, control),
        "credentials": _renew_credentials(api, control),
        "key rotation": _rotate_keys(rotation, store),
        "sessions API": _vouch_for_sessions_api(api),
    }
    tasks = holding | {asyncio.create_task(part, name=name) for name, part in parts.items()}
    stopping = asyncio.create_task(stop.wait(), name="signal")
    done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
    # kopf takes SIGTERM for itself when it starts, and then ends without an error.
    clean = stop.is_set() or any(task.get_name() in _KOPF and task.exception() is None for task in done)
    for task in done - {stopping}:
        if not clean:
            log.error("%s ended: %s", task.get_name(), task.exception() or "without an error")
    stop.set()
    for task in {*tasks, stopping}:
        if task.get_name() not in _KOPF:  # kopf ends by its stop flag
            task.cancel()
    await asyncio.wait({*tasks, stopping}, timeout=10)
    await registry.close()
    return clean


async def _watch_foreign(
    settings: OperatorSettings, store: FleetStore, stop: asyncio.Event, watches: Watches, metrics: LoopMetrics
) -> None:
    await kopf.operator(
        registry=build_foreign_registry(store, settings.kubeconfig, watches, metrics.count_request),
        settings=foreign_watch_settings(settings.namespace, settings.watch_silence_s),
        clusterwide=True,
        standalone=True,
        stop_flag=stop,
    )


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


async def _follow_drains(store: FleetStore, control: ControlClient) -> None:
    """Tell transceivers that drain when to hang up, and ask how far they are, while there are any."""
    while True:
        await asyncio.sleep(_DRAIN_POLL_S)
        fleet = store.fleet()
        leaving = [] if fleet is None else draining_pods(fleet)
        if not leaving:
            continue
        now = time.time()
        said = await control.drain((pod, max(0.0, at - now)) for pod, at in leaving)
        if any(store.drained.get(uid) != answer for uid, answer in said.items()):
            store.drained.update(said)
            store.mark()


async def _media_without_registry(
    fleet: Fleet, store: FleetStore, control: ControlClient
) -> dict[tuple[int, int], gray.Counts]:
    """Ask members themselves, those first that were not asked for longest; of the others what they said last."""
    serving = (pod for name in fleet.pools for pod in fleet.pods_of(Component.TRANSCEIVER, name))
    pods = {(pod.slot, pod.generation): pod for pod in serving if pod.ready and not pod.leaving}
    known = {member: samples[-1].counts for member, samples in store.media.items() if member in pods}
    asked = [member for member in store.media_asked if member in pods]
    turn = [*(pods.keys() - set(asked)), *asked][:_ASKED_AT_ONCE]
    store.media_asked = [member for member in asked if member not in turn] + turn
    return known | await control.media(pods[member] for member in turn)


def _load_matters(fleet: Fleet, now: float) -> bool:
    """Tell whether load alone is a reason for a plan: otherwise it matters when something else makes one."""
    try:
        marks = any(idle_marks(fleet, pool, now) for pool in fleet.pools.values())
        judged = any(gray.judge(fleet, pool, fleet.media, now)[0] for pool in fleet.pools.values())
        return bool(marks or judged or scales(fleet, autoscaled(fleet, now)))
    except Exception:
        log.exception("load is not judged")
        return True  # the plan finds out which resource it is, and goes on without it


async def _follow_registry(store: FleetStore, registry: RegistryReader, control: ControlClient) -> None:
    while True:
        fleet = store.fleet()
        if fleet is not None:
            seen = await registry.read(fleet)
            store.acknowledgements = seen.acknowledgements
            told = (seen.acknowledged, seen.flows_left, seen.datapaths)
            changed = told != (store.acknowledged, store.flows_left, store.datapaths)
            store.sessions, store.setups_per_s = seen.sessions, seen.setups_per_s
            store.idle_since = seen.idle_since
            store.acknowledged, store.flows_left, store.datapaths = told
            now, fleet = time.time(), store.fleet() or fleet
            store.recommendations = remember(fleet, now)
            media = seen.media if seen.media is not None else await _media_without_registry(fleet, store, control)
            store.media = gray.remember(store.media, media, now)
            if changed or _load_matters(replace(fleet, recommendations=store.recommendations, media=store.media), now):
                store.mark()
        await asyncio.sleep(_REGISTRY_POLL_S)


async def _renew_credentials(api: KubeApi, control: ControlClient) -> None:
    while True:
        await asyncio.sleep(_CREDENTIALS_S)
        try:
            control.use_certificate(await ensure_credentials(api, time.time()))
        except (KubeError, OSError, TimeoutError) as error:
            log.error("credentials: %s; again in an hour", error)


async def _rotate_keys(rotation: KeyRotation, store: FleetStore) -> None:
    while True:
        await asyncio.sleep(_ROTATION_S)
        fleet = store.fleet()
        if fleet is None:
            continue
        try:
            await rotation.advance(fleet, store.acknowledgements, time.time())
        except (KubeError, OSError, TimeoutError) as error:
            log.error("key rotation: %s; again in %g s", error, _ROTATION_S)


async def _vouch_for_sessions_api(api: KubeApi) -> None:
    """Tell kube-apiserver which CA signs the sessions API's certificate: Helm cannot know it."""
    told: dict[str, str] = {}
    while True:
        with contextlib.suppress(KubeError, OSError, TimeoutError):
            told = await vouch_for_sessions_api(api, told)
        await asyncio.sleep(_VOUCH_S if told else 1.0)


if __name__ == "__main__":
    main()
