"""Frames between a transceiver and its engine processes: length, kind, job, payload.

Owns: the bytes. Does not own: what follows from them.
"""

import struct
from enum import IntEnum

HEADER = struct.Struct("!IBI")  # length of the payload, kind, job
MAX_PAYLOAD = 4 << 20


class Kind(IntEnum):
    """What a frame says."""

    LISTEN = 1  # to the engines
    FEED = 2
    CONCLUDE = 3
    SPEAK = 4  # JSON: text, voice, speed
    FORGET = 5  # either job
    READY = 16  # from the engines
    WORDS = 17
    SOUND = 18
    SPOKEN = 19
    FAILED = 20


def build_frame(kind: Kind, job: int = 0, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return HEADER.pack(len(payload), kind, job) + payload
