"""What is said: messages of any size by a rule, and a recording in the forms that clients take."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from voicefleet_dataplane.media.speech import Samples, decode_opus, encode_opus, read_wav

_HEAD = struct.Struct(">HH")


@dataclass(frozen=True, slots=True)
class Recording:
    """Speech, as samples and as files."""

    samples: Samples
    wav: Path
    packets: Path


def recording(wav: Path, folder: Path) -> Recording:
    """Write a WAV's packets."""
    samples = read_wav(wav)
    path = folder / (wav.stem + ".packets")
    path.write_bytes(b"".join(written(enumerate(encode_opus(samples)))))
    return Recording(samples, wav, path)


def heard(path: Path, form: str) -> Samples:
    """Return the samples of what a client wrote."""
    return read_wav(path) if form == "wav" else decode_opus(dict(_in_order(read_packets(path))))


def written(packets: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    for sequence, packet in packets:
        yield _HEAD.pack(sequence & 0xFFFF, len(packet)) + packet


def read_packets(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield sequence numbers and packets of a "packets" file."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        sequence, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield sequence, data[at : at + length]
        at += length


def _in_order(packets: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Sequence numbers go round at 2^16; those of a file lie close together."""
    first: int | None = None
    for sequence, packet in packets:
        first = sequence if first is None else first
        yield ((sequence - first + 0x8000) & 0xFFFF) - 0x8000, packet


def message(kind: str, size: int, fill: int) -> str | bytes:
    """Return a message by the rule of `send`."""
    places = np.arange(size)
    if kind == "text":
        return (ord("a") + (7 * places + fill) % 26).astype(np.uint8).tobytes().decode()
    return ((31 * places + fill) % 256).astype(np.uint8).tobytes()


def seen(message: str | bytes) -> dict[str, Any]:
    """Return the fields of the event that tells of this message."""
    content = message.encode() if isinstance(message, str) else message
    kind = "text" if isinstance(message, str) else "binary"
    return {"kind": kind, "size": len(content), "sha256": sha256(content).hexdigest()}
