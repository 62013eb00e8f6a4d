"""What transceivers that do not run here would say of themselves in the registry: how many calls they have."""

import time
from collections.abc import Mapping

import redis

from e2e.bare.fleet import BareFleet
from e2e.resources import POOL
from voicefleet_contract import names
from voicefleet_contract.registry import Heartbeat, heartbeat_key, slots_key

_IDLE_S = 3600.0  # since when a member without calls is idle: long enough for every mark


def write_heartbeats(client: "redis.Redis", fleet: BareFleet, calls: Mapping[str, int]) -> None:
    """Write each ready member's heartbeat once, to stay for the story; ``calls``: how many a pod has; who is not named has none."""
    now = time.time()
    for pod in fleet.transceivers():
        labels, sessions = pod["metadata"]["labels"], calls.get(pod["metadata"]["name"], 0)
        slot, generation = int(labels[names.LABEL_SLOT]), int(labels[names.LABEL_GENERATION])
        beat = Heartbeat(
            slot=slot,
            generation=generation,
            pool=POOL,
            pod=pod["metadata"]["name"],
            node=pod["spec"]["nodeName"],
            state="active",
            sessions=sessions,
            capacity=50,
            idle_since=None if sessions else now - _IDLE_S,
            at=now,
        )
        client.set(heartbeat_key(fleet.cluster_id, slot, generation), beat.model_dump_json(), ex=600)
        client.zadd(slots_key(fleet.cluster_id), {f"{slot}:{generation}": now + 600})
