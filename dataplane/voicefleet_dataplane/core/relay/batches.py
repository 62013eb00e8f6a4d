"""The relay over batches: media of bound flows is forwarded where it lies, everything else goes through `Relay`.

A batch is memory that a shell has filled with datagrams and empties afterwards (shell/relay/batch_socket.py): one slot for each datagram,
with room for an SPP header before what came from outside. Forwarding media then writes a header, a destination and a
length; no datagram becomes a Python object, no address becomes text.

::

    slot, from outside   | room for SPP: 38 | the client's datagram ...       sent from its first byte
    slot, from inside    | SPP: 38 bytes    | the owner's datagram ...        sent from byte 38 on

This repeats two decisions of core/relay/relay.py and makes none of its own: that media of a held flow goes to its owner, and that
what its owner sends goes to the flow's client. What is not plainly one of the two (checks and their answers, alerts, an unknown sender,
an empty datagram, an owner that is none) is put to `Relay` as one datagram. tests/property/test_batches_property.py holds both equal.

Owns: the layout of a batch, and these two repetitions. Does not own: rules, counters of drops, system calls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from voicefleet_contract.addresses import Address
from voicefleet_contract.spp import HEADER_BYTES, LARGEST_DATAGRAM_BYTES
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.wire.demux import Kind, classify
from voicefleet_dataplane.wire.dtls_record import ALERT
from voicefleet_dataplane.wire.pktinfo import CONTROL_BYTES, build_departure, parse_arrival
from voicefleet_dataplane.wire.sockaddr import build_sockaddr, parse_sockaddr, sockaddr_bytes

SLOT_BYTES = 2_048
NAME_BYTES = 32  # room for one address: sockaddr_in6 is 28

_FOLLOWS_THE_FLOW = tuple(classify(bytes((first,))) in (Kind.DTLS, Kind.RTP, Kind.RTCP) for first in range(256))
_REMEMBERED = 65_536

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(slots=True)
class Batch:
    """``slots`` and ``names`` are filled when `Inward` or `Outward` runs; they write what is to be sent, and where to."""

    slots: memoryview  # SLOT_BYTES for each datagram
    names: memoryview  # NAME_BYTES for each: who sent it
    targets: memoryview  # NAME_BYTES for each: whom it goes to
    lengths: memoryview  # 32-bit, of each datagram as sent
    # CONTROL_BYTES for each, of a public socket that is bound to all our addresses: which one it came to, or is to leave from.
    arrivals: memoryview | None = None
    departures: memoryview | None = None


class Inward:
    """Datagrams from outside."""

    def __init__(self, relay: Relay, batch: Batch, family: int, target_family: int) -> None:
        self._relay, self._batch = relay, batch
        self._name_bytes = sockaddr_bytes(family)
        self._owners = _Remembered(partial(_spell, family=target_family))
        self._hosts = _Remembered(partial(parse_arrival, family=family))

    def run(self, lengths: list[int], now: float) -> list[int]:
        """Take the datagrams in the first ``len(lengths)`` slots; gives the slots that hold nothing to send."""
        batch, flows, name_bytes, owners = self._batch, self._relay.flows.by_name, self._name_bytes, self._owners
        slots, names, targets, out_lengths = batch.slots, batch.names, batch.targets, batch.lengths
        nothing: list[int] = []
        packets = forwarded_bytes = at = name_at = 0
        for index, length in enumerate(lengths):
            flow = flows.get(bytes(names[name_at : name_at + name_bytes]))
            if (
                flow is not None
                and 0 < length <= LARGEST_DATAGRAM_BYTES
                and _FOLLOWS_THE_FLOW[slots[at + HEADER_BYTES]]
            ):
                flow.packets_in += 1
                flow.bytes_in += length
                packets += 1
                forwarded_bytes += length
                slots[at : at + HEADER_BYTES] = flow.header
                targets[name_at : name_at + NAME_BYTES] = owners[flow.owner_address]
                out_lengths[index] = HEADER_BYTES + length
            elif not self._one(index, at, name_at, length, now):
                nothing.append(index)
            at += SLOT_BYTES
            name_at += NAME_BYTES
        self._relay.inward.packets += packets
        self._relay.inward.bytes += forwarded_bytes
        return nothing

    def _one(self, index: int, at: int, name_at: int, length: int, now: float) -> bool:
        batch, relay = self._batch, self._relay
        start = at + HEADER_BYTES
        name = bytes(batch.names[name_at : name_at + self._name_bytes])
        known = relay.flows.by_name.get(name)
        client = known.client if known is not None else parse_sockaddr(name)
        public = ""
        if batch.arrivals is not None:
            public = self._hosts[bytes(batch.arrivals[index * CONTROL_BYTES : (index + 1) * CONTROL_BYTES])]
        verdict = relay.receive_outside(bytes(batch.slots[start : start + length]), client, now, public)
        if not isinstance(verdict, tuple):
            return False
        data, owner = verdict
        batch.slots[at : at + len(data)] = data
        batch.targets[name_at : name_at + NAME_BYTES] = self._owners[owner]
        batch.lengths[index] = len(data)
        if known is None:
            flow = relay.flows.by_client.get(client)
            if flow is not None:
                relay.flows.name(flow, name)
        return True


class Outward:
    """Datagrams from the inner side."""

    def __init__(self, relay: Relay, batch: Batch, family: int, target_family: int) -> None:
        self._relay, self._batch = relay, batch
        self._name_bytes = sockaddr_bytes(family)
        self._target_family = target_family
        self._owners = _Remembered(partial(_spell, family=family))
        self._departures = _Remembered(partial(_leave_from, family=target_family))

    def run(self, lengths: list[int], now: float) -> list[int]:
        """Take the datagrams in the first ``len(lengths)`` slots; gives the slots that hold nothing to send."""
        batch, flows, name_bytes, owners = self._batch, self._relay.flows.by_header, self._name_bytes, self._owners
        slots, names, targets, out_lengths = batch.slots, batch.names, batch.targets, batch.lengths
        departures, hosts = batch.departures, self._departures
        nothing: list[int] = []
        packets = forwarded_bytes = at = name_at = 0
        for index, length in enumerate(lengths):
            payload_bytes = length - HEADER_BYTES
            flow = flows.get(bytes(slots[at : at + HEADER_BYTES])) if payload_bytes > 0 else None
            if (
                flow is not None
                and flow.name
                and slots[at + HEADER_BYTES] > ALERT  # STUN and alerts may decide something
                and not flow.awaits_owner
                and names[name_at : name_at + name_bytes] == owners[flow.owner_address][:name_bytes]
            ):
                flow.alive_at = now
                flow.patience_s = None
                flow.packets_out += 1
                flow.bytes_out += payload_bytes
                packets += 1
                forwarded_bytes += payload_bytes
                targets[name_at : name_at + len(flow.name)] = flow.name
                if departures is not None:
                    departures[index * CONTROL_BYTES : (index + 1) * CONTROL_BYTES] = hosts[
                        flow.public or _anywhere(flow.client)
                    ]
                out_lengths[index] = payload_bytes
            elif not self._one(index, at, name_at, length, now):
                nothing.append(index)
            at += SLOT_BYTES
            name_at += NAME_BYTES
        self._relay.outward.packets += packets
        self._relay.outward.bytes += forwarded_bytes
        return nothing

    def _one(self, index: int, at: int, name_at: int, length: int, now: float) -> bool:
        batch = self._batch
        source = parse_sockaddr(bytes(batch.names[name_at : name_at + self._name_bytes]))
        verdict = self._relay.receive_inside(bytes(batch.slots[at : at + length]), source, now)
        if not isinstance(verdict, tuple):
            return False
        data, client = verdict
        start = at + HEADER_BYTES
        batch.slots[start : start + len(data)] = data
        batch.targets[name_at : name_at + NAME_BYTES] = _spell(client, self._target_family)
        batch.lengths[index] = len(data)
        if batch.departures is not None:
            flow = self._relay.flows.by_client.get(client)
            public = (flow is not None and flow.public) or _anywhere(client)
            batch.departures[index * CONTROL_BYTES : (index + 1) * CONTROL_BYTES] = self._departures[public]
        return True


def _anywhere(client: Address) -> str:
    """Of a flow that was restored, until its next check: the route to the client says where its packets leave from."""
    return "::" if ":" in client.host else "0.0.0.0"


class _Remembered(dict[_K, _V]):
    """What was made of each key so far. Keys are few; the bound is for a fleet, or for addresses, that churn."""

    def __init__(self, make: Callable[[_K], _V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: _K) -> _V:
        if len(self) >= _REMEMBERED:
            self.clear()
        made = self[key] = self._make(key)
        return made


def _spell(address: Address, family: int) -> bytes:
    try:
        return build_sockaddr(address, family).ljust(NAME_BYTES, b"\0")
    except ValueError:  # an IPv6 address and an IPv4 socket: no destination, which the kernel refuses
        return bytes(NAME_BYTES)


def _leave_from(host: str, family: int) -> bytes:
    try:
        return build_departure(host, family)
    except ValueError:  # of a datagram that has no destination either
        return build_departure("0.0.0.0", family)
