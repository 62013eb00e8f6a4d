"""What names an owner, and what stands in the registry and the topology."""

import contextlib

from tests.fuzz.target import Target
from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import Addressee, AnnouncementError, decode_announcement, encode_announcement
from voicefleet_contract.cached_flow import CachedFlowError, decode_cached_flow, encode_cached_flow
from voicefleet_contract.call_id import CallId, CallIdError, decode_call_id, encode_call_id, peek_call_id
from voicefleet_contract.drain import DrainRequestError, parse_drain
from voicefleet_contract.ephemeral_keys import (
    EphemeralKey,
    EphemeralKeyError,
    decode_ephemeral_key,
    encode_ephemeral_key,
)
from voicefleet_contract.hint import Hint, HintError, decode_hint, encode_hint, peek_hint
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.registry import Heartbeat
from voicefleet_contract.sessions import SessionRecord, parse_record
from voicefleet_contract.topology import (
    Endpoint,
    Member,
    Pool,
    Relay,
    Topology,
    TopologyError,
    TopologyIndex,
    TopologySlice,
    join,
    split,
)
from voicefleet_contract.trace_context import parse_traceparent
from voicefleet_operator.sessions_api.registry import _place, _view

KEYS = KeyRing({1: b"k" * 32}, 1)
US = Addressee(7, 5, 2)
CLIENT = Address("198.51.100.7", 40_000)
HEADER = bytes(38)


def text(data: bytes) -> str:
    """As text arrives: anything, also what is not UTF-8."""
    return data.decode(errors="surrogateescape")


def hint(data: bytes) -> None:
    for parse in (lambda: decode_hint(data, KEYS), lambda: peek_hint(data), lambda: decode_hint(text(data), KEYS)):
        with contextlib.suppress(HintError):
            parse()


def call_id(data: bytes) -> None:
    for parse in (lambda: decode_call_id(text(data), KEYS), lambda: peek_call_id(text(data))):
        with contextlib.suppress(CallIdError):
            parse()


def ephemeral_key(data: bytes) -> None:
    with contextlib.suppress(EphemeralKeyError):
        decode_ephemeral_key(text(data), KEYS, 1_000.0)


def announcement(data: bytes) -> None:
    with contextlib.suppress(AnnouncementError):
        decode_announcement(data, HEADER, US, KEYS)


def cached_flow(data: bytes) -> None:
    with contextlib.suppress(CachedFlowError):
        decode_cached_flow(data, CLIENT, 7, KEYS)


def registry(data: bytes) -> None:
    """Who can write Redis must not be able to stop who reads it."""
    parse_record(data)
    _view(1, 2, data)
    _place(data)
    with contextlib.suppress(ValueError):  # pydantic's
        Heartbeat.model_validate_json(data)


def topology(data: bytes) -> None:
    with contextlib.suppress(TopologyError):
        TopologyIndex(Topology.load(data))
    with contextlib.suppress(TopologyError):
        join([TopologySlice.load(data)])


def annotation(data: bytes) -> None:
    parse_traceparent(text(data))
    with contextlib.suppress(DrainRequestError):
        parse_drain(text(data))


_TOPOLOGY = Topology(
    cluster=7,
    revision=3,
    relays=(Relay(name="fra-1", inner=(Endpoint(address="10.0.0.1", port=3479),)),),
    pools=(
        Pool(name="agents", ring_epoch=1, members=(Member(slot=1, generation=1, address="10.0.0.2", port=20_000),)),
    ),
)
_RECORD = SessionRecord(
    call_id="rtc_1", pool="agents", slot=1, generation=2, pod="p", node="n", relay="r", region="eu",
    client_network="198.51.100.0/24", state="connected", started_at=1.0,
)  # fmt: skip
_BEAT = Heartbeat(slot=1, generation=2, pool="agents", state="active", sessions=1, capacity=2, at=1.0)
_JSON = [b"{", b"[", b'"', b"null", b"1e999", b"-1", b"\\ud800", b"Infinity", b"true", b"9" * 30]
TARGETS = [
    Target("hint", hint, [encode_hint(Hint(1, 7, 5, 2, 9), KEYS).encode()], words=[b"\xff", b"+", b"/"]),
    Target("call_id", call_id, [encode_call_id(CallId(7, 5, 2, 9), KEYS).encode()], words=[b"\xff", b"-", b"_", b"="]),
    Target(
        "ephemeral_key",
        ephemeral_key,
        [encode_ephemeral_key(EphemeralKey("acme", 2_000, {"type": "realtime"}), KEYS, b"s" * 16).encode()],
        words=[b"ek_", b"\xff", b"=", b"-"],
    ),
    Target("announcement", announcement, [encode_announcement(HEADER, US, 1_000, KEYS)]),
    Target("cached_flow", cached_flow, [encode_cached_flow(CLIENT, (5, 2), 7, KEYS)]),
    Target(
        "registry",
        registry,
        [_RECORD.model_dump_json().encode(), _BEAT.model_dump_json().encode(), b"5:7", b"null"],
        words=_JSON,
        max_bytes=10_000,
        shapes={"deep": lambda size: b"[" * size, "counts": lambda size: b'{"counts":{' + b'"a":{},' * (size // 7)},
    ),
    Target(
        "topology",
        topology,
        [_TOPOLOGY.dump().encode(), *(one.model_dump_json().encode() for one in split(_TOPOLOGY).values())],
        words=_JSON,
        max_bytes=10_000,
        tries=400,
        shapes={
            "relays": lambda size: b'{"cluster":7,"relays":[' + b",".join([b'{"name":"a"}'] * (size // 13)) + b"]}",
        },
    ),
    Target(
        "annotation",
        annotation,
        [
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"now",
            b"now HangUp=10m",
            b"2026-11-30T10:00:00Z",
        ],
        words=["²".encode(), "٣".encode(), b"HangUp", b"="],
        shapes={"digits": lambda size: b"9" * size, "words": lambda size: b"now " * (size // 4)},
    ),
]
