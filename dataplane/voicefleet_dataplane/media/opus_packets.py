"""Opus packets joined into longer ones by libopus's repacketizer (RFC 6716 section 3.2).

Nothing is coded. Frames of another configuration do not fit into one packet (the table of contents speaks for all).

Owns: the joining. Does not own: how long a packet may be (the client says), the codec (media/opus.py).
"""

import ctypes
from collections.abc import Sequence

from voicefleet_dataplane.media.opus import LARGEST_PACKET_BYTES, library


def join(packets: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Return as few packets as hold the same frames: (how many of the given ones, the packet)."""
    joined: list[tuple[int, bytes]] = []
    waiting = list(packets)
    while waiting:
        repacketizer = _Repacketizer()
        count = 0
        while count < len(waiting) and repacketizer.add(waiting[count]):
            count += 1
        if count < 2:
            count, packet = 1, waiting[0]  # alone, or no Opus: as it is
        else:
            packet = repacketizer.out()
        joined.append((count, packet))
        del waiting[:count]
    return joined


class _Repacketizer:
    def __init__(self) -> None:
        self._library = library()
        self._state = ctypes.create_string_buffer(self._library.opus_repacketizer_get_size())
        self._library.opus_repacketizer_init(self._state)
        self._kept: list[bytes] = []  # it keeps pointers into them

    def add(self, packet: bytes) -> bool:
        self._kept.append(packet)
        return bool(self._library.opus_repacketizer_cat(self._state, packet, len(packet)) == 0)

    def out(self) -> bytes:
        room = ctypes.create_string_buffer(len(self._kept) * LARGEST_PACKET_BYTES)
        length = self._library.opus_repacketizer_out(self._state, room, len(room))
        return room.raw[:length]
