"""The loops that ask: members that drain, the registry, certificates, key rotation, the sessions API's CA.

Each runs until it is cancelled, and survives what it cannot reach; the plan is marked when an answer changes it.

Owns: pace, what is asked of whom. Does not own: watches (watch), the plan (reconcile), what an answer means (desired).
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import replace

from voicefleet_operator.cluster.api import KubeApi, KubeError
from voicefleet_operator.cluster.credentials import ensure_credentials
from voicefleet_operator.cluster.credentials import vouch_for_sessions_api as write_ca
from voicefleet_operator.cluster.key_rotation import KeyRotation
from voicefleet_operator.cluster.registry import RegistryReader
from voicefleet_operator.cluster.transceivers import ControlClient
from voicefleet_operator.desired.pool import gray
from voicefleet_operator.desired.pool.autoscaling import autoscaled, remember, scales
from voicefleet_operator.desired.pool.drain import draining_pods
from voicefleet_operator.desired.pool.idle import idle_marks
from voicefleet_operator.desired.state import Component, Fleet
from voicefleet_operator.handlers.store import FleetStore

log = logging.getLogger("voicefleet.operator")

_DRAIN_POLL_S = 2.0
_REGISTRY_POLL_S = 5.0
_ASKED_AT_ONCE = 64  # members, while the registry is away
_CREDENTIALS_S = 3600.0
_ROTATION_S = 5.0
_VOUCH_S = 60.0


async def follow_drains(store: FleetStore, control: ControlClient) -> None:
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


async def media_without_registry(
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


async def follow_registry(store: FleetStore, registry: RegistryReader, control: ControlClient) -> None:
    """Read heartbeats and acknowledgements; mark the plan when what they say changes it."""
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
            media = seen.media if seen.media is not None else await media_without_registry(fleet, store, control)
            store.media = gray.remember(store.media, media, now)
            if changed or _load_matters(replace(fleet, recommendations=store.recommendations, media=store.media), now):
                store.mark()
        await asyncio.sleep(_REGISTRY_POLL_S)


async def renew_credentials(api: KubeApi, control: ControlClient) -> None:
    """Make certificates anew before they end, and use the new one."""
    while True:
        await asyncio.sleep(_CREDENTIALS_S)
        try:
            control.use_certificate(await ensure_credentials(api, time.time()))
        except (KubeError, OSError, TimeoutError) as error:
            log.error("credentials: %s; again in an hour", error)


async def rotate_keys(rotation: KeyRotation, store: FleetStore) -> None:
    """Take each step of a key rotation when what processes acknowledged allows it."""
    while True:
        await asyncio.sleep(_ROTATION_S)
        fleet = store.fleet()
        if fleet is None:
            continue
        try:
            await rotation.advance(fleet, store.acknowledgements, time.time())
        except (KubeError, OSError, TimeoutError) as error:
            log.error("key rotation: %s; again in %g s", error, _ROTATION_S)


async def vouch_for_sessions_api(api: KubeApi) -> None:
    """Tell kube-apiserver which CA signs the sessions API's certificate: Helm cannot know it."""
    told: dict[str, str] = {}
    while True:
        with contextlib.suppress(KubeError, OSError, TimeoutError):
            told = await write_ca(api, told)
        await asyncio.sleep(_VOUCH_S if told else 1.0)
