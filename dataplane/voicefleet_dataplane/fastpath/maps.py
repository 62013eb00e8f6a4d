"""The fast path's tables as Python sees them: layouts, and reading and writing many entries at a time.

bpf/maps.h says what each field is for; the two are compared, field by field, in tests/kernel/test_fastpath_layouts.py.

Owns: bytes ↔ records, and batched access. Does not own: which rules there should be (shell/relay/kernel_path.py), or how
the maps came to be (kernel.py).
"""

import ctypes
import errno
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from voicefleet_contract.addresses import Address, from_mapped, to_mapped
from voicefleet_dataplane.fastpath.loader import Libbpf, checked

LAYOUT = 1
ENDS = struct.Struct("=16s16s2s2s")
RULE = struct.Struct("=16s16s2s2sIIIQQQ")
CONTROL = struct.Struct("=Q2sHHBB")
_CARRIED = struct.Struct("=48xQQQ")
_COUNTER = struct.Struct("=Q")
# Entries read at once: some two milliseconds of ours. A bucket never holds so many, so no read has to be repeated.
_BATCH = 1_024


class How(IntEnum):
    """``enum how``: at which hook a rule matches, and how its packets leave."""

    NONE = 0
    FORWARD = 1
    DELIVER = 2
    RETURN = 3


class Xdp(IntEnum):
    """``enum xdp``: what relay_xdp does where it is attached."""

    OFF = 0
    FIRST = 1
    ALONE = 2


class Counter(IntEnum):
    """``enum counter``: what became of a packet. The names are metric labels."""

    FORWARDED = 0
    DELIVERED = 1
    RETURNED = 2
    UP_NOT_MEDIA = 3
    UP_NO_RULE = 4
    UP_NO_LEASE = 5
    UP_TTL = 6
    UP_TOO_BIG = 7
    UP_NO_ROUTE = 8


class Ends(NamedTuple):
    """A packet's two ends."""

    source: Address
    destination: Address

    def encode(self) -> bytes:
        """Return the key under which such packets are looked up."""
        source, destination = self
        return ENDS.pack(
            to_mapped(source.host),
            to_mapped(destination.host),
            source.port.to_bytes(2, "big"),
            destination.port.to_bytes(2, "big"),
        )


def decode_ends(packed: bytes) -> Ends:
    """Return the ends in a key, or at the start of a rule."""
    source, destination, source_port, destination_port = ENDS.unpack_from(packed)
    return Ends(
        Address(from_mapped(source), int.from_bytes(source_port, "big")),
        Address(from_mapped(destination), int.from_bytes(destination_port, "big")),
    )


class Rule(NamedTuple):
    """One direction of a flow: packets with the ends ``seen`` leave with the ends ``to``. ``owner``: slot, generation."""

    seen: Ends
    to: Ends
    how: How
    owner: tuple[int, int]


class Carried(NamedTuple):
    """What a rule has carried since it was made."""

    packets: int
    bytes: int
    last_ns: int  # CLOCK_MONOTONIC; 0: nothing yet


def encode_rule(rule: Rule) -> bytes:
    """Return the value of a rule that has carried nothing."""
    return rule.to.encode() + struct.pack("=IIIQQQ", rule.how, *rule.owner, 0, 0, 0)


def decode_carried(values: bytes) -> Iterator[Carried]:
    """Return what each of many rules has carried, from their values in one piece."""
    return map(Carried._make, _CARRIED.iter_unpack(values))


def decode_rule(key: bytes, value: bytes) -> tuple[Rule, Carried]:
    """Return a rule and what it has carried. Raises ValueError for a value of no known kind."""
    how, slot, generation, packets, carried_bytes, last_ns = RULE.unpack(value)[4:]
    return (
        Rule(decode_ends(key), decode_ends(value), How(how), (slot, generation)),
        Carried(packets, carried_bytes, last_ns),
    )


class Map:
    """One map by its file descriptor, which it owns."""

    def __init__(self, lib: Libbpf, fd: int, key_bytes: int, value_bytes: int) -> None:
        self.fd = fd
        self._lib = lib
        self._key_bytes, self._value_bytes = key_bytes, value_bytes

    def put(self, key: bytes, value: bytes) -> None:
        """Write one entry. Raises OSError: E2BIG when the map is full."""
        checked(self._lib.bpf_map_update_elem(self.fd, key, value, 0), "map update")

    def get(self, key: bytes) -> bytes | None:
        """Read one entry."""
        value = ctypes.create_string_buffer(self._value_bytes)
        found = self._lib.bpf_map_lookup_elem(self.fd, key, value)
        return value.raw if checked(found, "map look-up", errno.ENOENT) == 0 else None

    def delete(self, key: bytes) -> None:
        """Delete one entry, if it is there."""
        checked(self._lib.bpf_map_delete_elem(self.fd, key), "map delete", errno.ENOENT)

    def batches(self, entries: int = _BATCH) -> Iterator[tuple[list[bytes], bytes]]:
        """Read all entries, so many at a time: keys, and their values in one piece.

        Entries that come or go meanwhile may be seen or not.
        """
        keys = ctypes.create_string_buffer(entries * self._key_bytes)
        values = ctypes.create_string_buffer(entries * self._value_bytes)
        cursor = ctypes.create_string_buffer(max(8, self._key_bytes))
        start: object = None
        while True:
            count = ctypes.c_uint32(entries)
            result = self._lib.bpf_map_lookup_batch(
                self.fd, start, cursor, keys, values, ctypes.byref(count), self._lib.batch_options
            )
            last = checked(result, "batched map read", errno.ENOENT) == -errno.ENOENT
            read = count.value
            if read:
                yield _cut(keys.raw, self._key_bytes, read), values.raw[: read * self._value_bytes]
            if last:
                return
            start = cursor


def _cut(data: bytes, size: int, count: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, size * count, size)]


def read_counters(lib: Libbpf, fd: int, cpus: int) -> dict[Counter, int]:
    """Return the sums over all CPUs of a per-CPU array of counters."""
    values = ctypes.create_string_buffer(8 * cpus)
    found = {}
    for counter in Counter:
        checked(lib.bpf_map_lookup_elem(fd, struct.pack("=I", counter), values), "counter")
        found[counter] = sum(value for (value,) in _COUNTER.iter_unpack(values.raw))
    return found
