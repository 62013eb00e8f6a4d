"""The Echo backend: whatever the client says comes back, audio packet by packet and data message by message.

No transcoding, so what is heard is what was sent: header extensions and CSRCs are gone, and the numbering is ours. Gaps
and disorder in the client's sequence numbers stay as they are, for a jitter buffer judges by them; where the client starts
another SSRC, our numbers go on from where they were.
"""

from voicefleet_dataplane.media.backend import Backend, Call, Channel, Message
from voicefleet_dataplane.wire.opus import FRAME_TICKS
from voicefleet_dataplane.wire.rtp import RtpPacket

_HALF = 0x8000


class Echo(Backend):
    """One call's echo."""

    takes_channels = True
    __slots__ = ("_call", "_next_sequence", "_next_timestamp", "_sequence_shift", "_ssrc", "_timestamp_shift")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._ssrc: int | None = None
        self._next_sequence = self._next_timestamp = 0
        self._sequence_shift = self._timestamp_shift = 0

    def on_audio(self, packet: RtpPacket) -> None:
        """Send it back."""
        if packet.ssrc != self._ssrc:
            self._ssrc = packet.ssrc
            self._sequence_shift = self._next_sequence - packet.sequence
            self._timestamp_shift = self._next_timestamp - packet.timestamp
        sequence = (packet.sequence + self._sequence_shift) & 0xFFFF
        timestamp = (packet.timestamp + self._timestamp_shift) & 0xFFFFFFFF
        if (sequence - self._next_sequence) & 0xFFFF < _HALF:
            self._next_sequence = sequence + 1
            self._next_timestamp = timestamp + FRAME_TICKS  # between two SSRCs
        self._call.send_audio(packet.payload, sequence, timestamp, marker=packet.marker)

    def on_event(self, event: str) -> None:
        """Send it back."""
        self._call.send_event(event)

    def on_data(self, channel: Channel, message: Message) -> None:
        """Send it back."""
        channel.send(message)
