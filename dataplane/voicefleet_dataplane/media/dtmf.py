"""Keys pressed, as RTP carries them (RFC 4733 sections 2.3 and 3.2).

     0                   1                   2                   3
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     event     |E|R| volume    |          duration             |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

One press is many packets of one RTP timestamp; its last packet comes three times, because each may be lost. A press whose
end is lost altogether is told when the next begins, and one of which only an end has come is a press. A key that is held for longer
than 16 bits of duration goes on under another timestamp (section 2.5.1.3).

Durations are in the clock that was agreed, 48 or 8 kHz. Timestamps are in it too by the RFC; browsers write the audio's.

Owns: packets → presses, once each, and a bound on presses a second. Does not own: the packets' transport.
"""

from voicefleet_dataplane.media.backend import Digit
from voicefleet_dataplane.wire.rtp import RtpPacket

KEYS = "0123456789*#ABCD"
SHORTEST_PRESS_MS = 20  # more than 50 presses a second are no keypad
_LONGEST_SEGMENT = 0xFFFF
_TIMESTAMP_MASK = 0xFFFFFFFF
_HALF = 0x80000000


class DtmfReceiver:
    """One call's keypad."""

    __slots__ = ("_before", "_duration", "_hz", "_key", "_open", "_ssrc", "_timestamp")

    def __init__(self) -> None:
        self._ssrc = -1
        self._timestamp: int | None = None
        self._key = ""
        self._before = 0  # of this press, in segments before
        self._duration = 0
        self._hz = 48_000
        self._open = False

    def receive(self, packet: RtpPacket, hz: int = 48_000) -> Digit | None:
        """Take one packet; gives a press when one is complete. ``hz``: the clock of durations."""
        payload = packet.payload
        if len(payload) < 4 or payload[0] >= len(KEYS):
            return None
        told: Digit | None = None
        self._hz = hz
        if packet.ssrc != self._ssrc:
            told = self._close()
            self._ssrc, self._timestamp = packet.ssrc, None  # another clock
        if packet.timestamp != self._timestamp:
            if self._timestamp is not None:
                step = (packet.timestamp - self._timestamp) & _TIMESTAMP_MASK
                if step >= _HALF or step < SHORTEST_PRESS_MS * hz // 1_000:
                    return None  # late, or a storm
                if self._goes_on(packet, step):
                    self._before += _LONGEST_SEGMENT
                else:
                    told = self._close()
            self._timestamp = packet.timestamp
            self._key = KEYS[payload[0]]
            self._open = True
        elif not self._open:
            return None  # the repeated end
        self._duration = payload[2] << 8 | payload[3]
        if payload[1] & 0x80:
            return self._close() if told is None else told
        return told

    def _goes_on(self, packet: RtpPacket, step: int) -> bool:
        is_same = self._open and KEYS[packet.payload[0]] == self._key and not packet.marker
        return is_same and step == _LONGEST_SEGMENT

    def _close(self) -> Digit | None:
        before, self._before = self._before, 0
        if not self._open:
            return None
        self._open = False
        return Digit(self._key, (before + self._duration) * 1_000 // self._hz)
