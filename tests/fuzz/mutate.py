"""Mutations without coverage, from a seed: what the short run tries is the same each time, on each machine."""

import random
from collections.abc import Iterator, Sequence

_BYTES = (0, 1, 0x7F, 0x80, 0xFF)


def mutated(corpus: Sequence[bytes], words: Sequence[bytes], count: int, max_bytes: int, seed: int) -> Iterator[bytes]:
    """Yield so many inputs: each a member of the corpus, changed in one to four places."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.randint(1, 4)):
            _change(data, corpus, words, chance)
        yield bytes(data[:max_bytes])


def _change(data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    match chance.randrange(9):
        case 0 if data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        case 1 if data:
            data[at % len(data)] = chance.choice(_BYTES)
        case 2 if data:
            data[at % len(data)] = chance.randrange(256)
        case 3:
            del data[at : at + chance.choice((1, 1, 2, 4, 16, 64))]
        case 4:
            data[at:at] = chance.randbytes(chance.choice((1, 1, 2, 4, 8)))
        case 5:  # the same once more
            size = chance.choice((1, 2, 4, 12, 40))
            data[at:at] = data[at : at + size] * chance.choice((1, 1, 2, 30))
        case 6:
            other = chance.choice(corpus)
            begin = chance.randint(0, len(other))
            data[at:] = other[begin:]
        case 7:
            del data[at:]
        case _ if words:
            data[at : at + chance.choice((0, 0, 1, 4))] = chance.choice(words)
