"""Session records and call ids for tests of the sessions API."""

from voicefleet_contract.call_id import CallId, encode_call_id
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.sessions import SessionRecord

KEYS = KeyRing({1: b"c" * 32}, 1)
CLUSTER = 7


def make_record(slot: int, number: int, generation: int = 0, **fields: object) -> SessionRecord:
    """A session of a slot; ``number`` makes its call id."""
    values = {
        "call_id": encode_call_id(CallId(CLUSTER, slot, generation, number), KEYS),
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
