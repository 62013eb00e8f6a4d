"""The table of contents of an Opus packet (RFC 6716 section 3.1): how long it lasts, without decoding it.

     0 1 2 3 4 5 6 7
    +-+-+-+-+-+-+-+-+
    | config  |s| c |
    +-+-+-+-+-+-+-+-+

Owns that byte. Does not own the codec (media/opus.py).
"""

TICKS_PER_S = 48_000  # RFC 7587 section 4.1: always, whatever was coded
FRAME_MS = 20
FRAME_TICKS = 960  # of FRAME_MS
DTX_BYTES = 2  # RFC 6716 section 2.1.9: so short a packet has no sound in it, and need not be sent
LONGEST_PACKET_TICKS = 5_760  # 120 ms
LARGEST_FRAME_BYTES = 1_275

# Section 3.1, table 2: SILK-only 0-11, hybrid 12-15, CELT-only 16-31.
_FRAME_TICKS = tuple(
    (480, 960, 1_920, 2_880)[config % 4]
    if config < 12
    else (480, 960)[config % 2]
    if config < 16
    else 120 << config % 4
    for config in range(32)
)


def parse_duration_ticks(packet: bytes) -> int | None:
    """Return how much audio a packet holds, or None if it is no Opus packet."""
    if not packet:
        return None
    frame_ticks, code = _FRAME_TICKS[packet[0] >> 3], packet[0] & 3
    if code == 0:
        frames = 1
    elif code < 3:
        frames = 2
    elif len(packet) < 2:
        return None
    else:
        frames = packet[1] & 0x3F
    ticks = frame_ticks * frames
    return ticks if 0 < ticks <= LONGEST_PACKET_TICKS else None
