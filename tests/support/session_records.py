"""Synthetic session records and call ids, for tests and benches of the sessions API."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from voicefleet_contract.call_id import CallId, encode_call_id
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.registry import Heartbeat, heartbeat_key, slots_key
from voicefleet_contract.sessions import Command, SessionRecord, count_fields, write_commands

KEYS = KeyRing({1: b"c" * 32}, 1)
CLUSTER = 7
PER_SLOT = 400
RELAYS = 50
NODES = 250


def make_record(slot: int, number: int, generation: int = 0, cluster: int = CLUSTER, **fields: object) -> SessionRecord:
    """A session of a slot; ``number`` makes its call id."""
    values = {
        "call_id": encode_call_id(CallId(cluster, slot, generation, number), KEYS),
        "pool": "agents",
        "slot": slot,
        "generation": generation,
        "pod": f"agents-{slot}-{generation}",
        "node": f"node-{slot % 3}",
        "relay": f"fra-{number % 4}",
        "region": "eu-central",
        "client_network": "198.51.100.0/24",
        "state": "connected",
        "started_at": 1_000_000.0 + number,
        "rtt_ms": 40.0,
        "loss": 0.01,
    }
    return SessionRecord.model_validate(values | fields)


def sessions_of(slot: int, cluster: int = CLUSTER) -> list[SessionRecord]:
    """A full transceiver's sessions: a few of them not connected yet, spread over relays and regions."""
    return [
        make_record(
            slot, number, cluster=cluster, node=f"node-{slot % NODES}", relay=f"relay-{(slot * 7 + number) % RELAYS}",
            region=f"region-{(slot * 7 + number) % 10}", state="connecting" if number < 3 else "connected",
            jitter_ms=2.5, bytes_in=1_234_567, bytes_out=1_234_567,
        )
        for number in range(PER_SLOT)
    ]  # fmt: skip


def heartbeat(cluster: int, slot: int, records: Sequence[SessionRecord]) -> Command:
    """The heartbeat that tells where they are; it stays for an hour."""
    beat = Heartbeat(
        slot=slot, generation=0, pool="agents", pod=f"agents-{slot}-0", node=f"node-{slot % NODES}", state="active",
        sessions=len(records), capacity=PER_SLOT, counts=count_fields(records), at=time.time(),
    )  # fmt: skip
    return ("SET", heartbeat_key(cluster, slot, 0), beat.model_dump_json(), "EX", 3600)


async def write_sessions(
    client: Any, cluster: int, slots: int, first: int = 0, say: Callable[[str], object] = str
) -> None:
    """Write the sessions of full transceivers as their owners would, but to stay: an hour ahead of their last heartbeat."""
    for count, slot in enumerate(range(first, first + slots), 1):
        records = sessions_of(slot, cluster)
        pipeline = client.pipeline(transaction=False)
        for command in write_commands(cluster, slot, 0, [(None, record) for record in records]):
            pipeline.execute_command(*command)
        pipeline.execute_command(*heartbeat(cluster, slot, records))
        pipeline.execute_command("ZADD", slots_key(cluster), time.time() + 3600, f"{slot}:0")
        await pipeline.execute()
        if count % 250 == 0:
            say(f"  {count:,} of {slots:,} transceivers written")
