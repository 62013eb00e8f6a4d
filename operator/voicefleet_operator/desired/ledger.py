"""Which pool holds which slot, and how many pods each slot has had: the durable truth behind hints.

A hint names slot and generation, so a pair must never name two pods. The ledger is stored (in ConfigMaps, fenced by
their resourceVersion) **before** a pod is created: a generation that was claimed and never used is burnt, not reused.
A released slot keeps its generation for its next holder, of whatever pool.

Owns: claims, releases and their spelling in ConfigMaps, one key a slot, `SLOTS_PER_SHARD` slots an object:
``{"17": "agents 5"}`` slot 17 is held by pool agents, its newest pod is generation 5; ``{"17": " 5"}`` nobody holds it.
Does not own: when to claim.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from voicefleet_contract.outside import parse_integer

SLOTS_PER_SHARD = 1024
MAX_SLOT = (1 << 24) - 1
_INT64 = (1 << 63) - 1
_GENERATIONS = 1 << 16  # the hint's 16 bits


class LedgerError(ValueError):
    """A ledger object cannot be read; the operator must stop rather than repeat a generation."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot: its holder ("" is nobody) and the generation claimed last."""

    pool: str
    generation: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """All slots that were ever held."""

    entries: Mapping[int, Entry] = field(default_factory=dict)

    def held_by(self, pool: str) -> list[int]:
        """Return a pool's slots, ascending."""
        return sorted(slot for slot, entry in self.entries.items() if entry.pool == pool)

    def pools(self) -> set[str]:
        """Return every pool that holds a slot."""
        return {entry.pool for entry in self.entries.values() if entry.pool}

    def next_generation(self, slot: int) -> int:
        """Return the generation of the slot's next pod. After 65,535 comes 0: by then no call of the first 0 is alive."""
        entry = self.entries.get(slot)
        return 1 if entry is None else (entry.generation + 1) % _GENERATIONS

    def changed(self, changes: Mapping[int, Entry]) -> "Ledger":
        """Return the ledger with some entries replaced."""
        return Ledger({**self.entries, **changes}) if changes else self

    def free_slots(self, occupied: Iterable[int] = ()) -> "FreeSlots":
        """Return the slots that nobody holds; ``occupied`` ones still have pods and go to their old holder only."""
        return FreeSlots({slot for slot, entry in self.entries.items() if entry.pool}, set(occupied))


class FreeSlots:
    """Hands out slots, each once."""

    def __init__(self, held: set[int], occupied: set[int]) -> None:
        self._held, self._occupied, self._next = held, occupied, 0

    def take(self, *mine: int) -> int:
        """Return the first of ``mine`` that nobody holds, else the lowest slot that is free and empty."""
        for slot in mine:
            if slot not in self._held:
                self._held.add(slot)
                return slot
        while self._next in self._held or self._next in self._occupied:
            self._next += 1
        self._held.add(self._next)
        return self._next


def encode_shards(ledger: Ledger) -> dict[int, dict[str, str]]:
    """Return shard number → a ConfigMap's data."""
    shards: dict[int, dict[str, str]] = {}
    for slot, entry in sorted(ledger.entries.items()):
        shards.setdefault(slot // SLOTS_PER_SHARD, {})[str(slot)] = f"{entry.pool} {entry.generation}"
    return shards


def decode_shards(shards: Iterable[Mapping[str, str]]) -> Ledger:
    """Read the data of all shards. Raises LedgerError."""
    entries: dict[int, Entry] = {}
    for data in shards:
        for key, value in data.items():
            pool, _, generation = value.rpartition(" ")
            try:
                slot, number = parse_integer(key, _INT64), parse_integer(generation, _INT64)
            except ValueError:
                raise LedgerError(f"slot {key!r}: {value!r} is not '<pool> <generation>'") from None
            if not (0 <= slot <= MAX_SLOT and 0 <= number < _GENERATIONS):
                raise LedgerError(f"slot {key!r}: {value!r} is out of range")
            entries[slot] = Entry(pool, number)
    return Ledger(entries)
