"""Inputs that are kept: those that reached code which nothing else reached, and those that once crashed.

tests/fuzz/corpus/NAME/ has one file each, named by what is in it. `make fuzz` adds to it what it finds; people commit it.
"""

import hashlib
from pathlib import Path

from tests.fuzz.target import Target

CORPUS = Path(__file__).parent / "corpus"


def read_corpus(target: Target) -> list[bytes]:
    """Return what is kept for a target, its seeds first."""
    kept = sorted((CORPUS / target.name).glob("*"))
    return [*target.seeds, *(path.read_bytes() for path in kept)]


def keep(name: str, data: bytes) -> Path:
    """Write an input into the corpus."""
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
