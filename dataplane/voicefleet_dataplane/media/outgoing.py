"""Frames on their way out of a voice: coded off the loop, packed as the client wishes, numbered, told of when they are out.

Owns: what is with the codec and what waits for its packet to be full, the sequence numbers, the client's wishes (RFC 7587
section 6.1). Does not own: when a frame is taken (media/voice.py), the codec's thread, RTP.
Invariants
- After `clear` nothing that was put before it goes out, even what the codec is working on.
- Without `usedtx=1` each frame goes out. With it the first frame of a silence does, and tells the client's decoder of it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from voicefleet_dataplane.media.backend import RateHz
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.media.opus_packets import join
from voicefleet_dataplane.media.playout import Frame
from voicefleet_dataplane.wire.opus import DTX_BYTES, FRAME_MS, FRAME_TICKS
from voicefleet_dataplane.wire.sdp.model import NO_WISHES, OpusWishes


class Codec(Protocol):
    """Runs work off the loop, in order, and tells the result on the loop."""

    def submit(self, work: Callable[[Any], bytes], on: Any, done: Callable[[Any, bytes], None]) -> None:
        """Call ``done(on, work(on))``."""


SendAudio = Callable[..., bool]
Wishes = Callable[[], OpusWishes]


def no_wishes() -> OpusWishes:
    """What a client wishes that says nothing."""
    return NO_WISHES


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame and its place in time."""

    frame: Frame
    timestamp: int
    marker: bool
    epoch: int


class Outgoing:
    """One voice's. ``went_out`` is told of frames in their order, at once when their packet has gone."""

    def __init__(
        self,
        rate: RateHz,
        codec: Codec,
        send_audio: SendAudio,
        wishes: Wishes,
        loss: Callable[[], float],
        went_out: Callable[[list[Frame]], None],
    ) -> None:
        self._encoder = OpusEncoder(rate) if rate else None
        self._codec = codec
        self._send_audio = send_audio
        self._wishes = wishes
        self._loss = loss
        self._went_out = went_out
        self._coding: deque[Taken] = deque()
        self._packing: list[tuple[Taken, bytes]] = []
        self._epoch = 0
        self._sequence = 0
        self._in_dtx = False

    def put(self, frame: Frame, timestamp: int, *, marker: bool) -> None:
        """Take a frame; one without audio stands for its marks alone."""
        if self._encoder is None:
            self._pack(Taken(frame, timestamp, marker, self._epoch), frame.audio)
            return
        if frame.audio and self._wishes().packet_ms < FRAME_MS:  # two packets, and the second one counts for the frame
            half = len(frame.audio) // 2
            self._code(Taken(Frame(frame.audio[:half]), timestamp, marker, self._epoch))
            frame, timestamp, marker = replace(frame, audio=frame.audio[half:]), timestamp + FRAME_TICKS // 2, False
        self._code(Taken(frame, timestamp & 0xFFFFFFFF, marker, self._epoch))

    def clear(self) -> list[Frame]:
        """Let nothing more out; what would have gone."""
        waiting = [*(taken for taken, _ in self._packing), *self._coding]
        self._packing.clear()
        self._coding.clear()
        self._epoch += 1
        return [taken.frame for taken in waiting]

    def flush(self) -> None:
        """Nothing follows soon: send what waits for company."""
        packing, self._packing = self._packing, []
        if not packing:
            return
        first = packing[0][0]
        timestamp, marker = first.timestamp, first.marker
        for count, packet in join([payload for _, payload in packing]):
            self._send(packet, timestamp, marker=marker)
            timestamp, marker = (timestamp + count * FRAME_TICKS) & 0xFFFFFFFF, False
        self._went_out([taken.frame for taken, _ in packing])

    @property
    def waiting(self) -> int:
        """Frames that have not gone out."""
        return len(self._coding) + len(self._packing)

    def _code(self, taken: Taken) -> None:
        self._coding.append(taken)
        self._codec.submit(self._encode, taken, self._encoded)

    def _encode(self, taken: Taken) -> bytes:
        encoder = self._encoder
        assert encoder is not None
        if not taken.frame.audio or taken.epoch != self._epoch:
            return b""
        wishes = self._wishes()
        encoder.suit(wishes)
        encoder.expect_loss(min(20, round(self._loss() * 100)) if wishes.inband_fec else 0)
        return encoder.encode(taken.frame.audio)

    def _encoded(self, taken: Taken, payload: bytes) -> None:
        if taken.epoch == self._epoch:
            self._coding.popleft()
            self._pack(taken, payload)

    def _pack(self, taken: Taken, payload: bytes) -> None:
        is_dtx = self._encoder is not None and 0 < len(payload) <= DTX_BYTES
        was_in_dtx, self._in_dtx = self._in_dtx, is_dtx
        frames = self._wishes().packet_ms // FRAME_MS
        if not payload or is_dtx or taken.marker:
            self.flush()
            if taken.epoch != self._epoch:
                return  # somebody was told, and cleared
        if payload and not is_dtx and frames > 1:
            self._packing.append((taken, payload))
            if len(self._packing) >= frames:
                self.flush()
            return
        if payload and not (is_dtx and was_in_dtx):
            self._send(payload, taken.timestamp, marker=taken.marker)
        self._went_out([taken.frame])

    def _send(self, packet: bytes, timestamp: int, *, marker: bool) -> None:
        self._send_audio(packet, self._sequence, timestamp, marker=marker)
        self._sequence = (self._sequence + 1) & 0xFFFF
