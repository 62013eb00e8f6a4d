"""What is fuzzed: a target takes bytes from outside, and any exception that leaves it is a crash.

A target hides the errors that its parser documents, and nothing else. Where an order of things is fuzzed, the bytes are a
script: `Script` reads decisions from them, so any bytes are one, and the same bytes tell the same story.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Target:
    """One parser, or a whole core.

    ``shapes`` build the dearest inputs that we know, of about so many bytes: what they cost must grow no faster than they do.
    Steps are the interpreter's instructions: an input of n bytes takes at most ``steps_per_byte`` · n + ``steps_at_least``.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()  # what the syntax is made of: mutations use them
    shapes: Mapping[str, Callable[[int], bytes]] = field(default_factory=dict)
    max_bytes: int = 1_500
    tries: int = 1_000  # of the short run
    steps_per_byte: int = 400
    steps_at_least: int = 20_000


class Script:
    """Decisions, read from bytes; at their end everything is 0 and empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def goes_on(self) -> bool:
        """Whether there is more to read."""
        return self._at < len(self._data)

    def number(self, size: int = 1) -> int:
        """A whole number of so many bytes."""
        read = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(read)

    def pick(self, choices: Sequence[_T]) -> _T:
        """One of these."""
        return choices[self.number() % len(choices)]

    def chunk(self) -> bytes:
        """Up to 255 bytes, after a byte that says how many."""
        size = self.number()
        read = self._data[self._at : self._at + size]
        self._at += size
        return read

    def bent(self, packet: bytes) -> bytes:
        """A packet with up to three bytes changed, or cut."""
        changed = bytearray(packet)
        for _ in range(self.number() % 4):
            if changed:
                changed[self.number(2) % len(changed)] = self.number()
        cut = self.number()
        return bytes(changed[: cut or None]) if cut < 16 else bytes(changed)
