"""A voice: the client heard as PCM or Opus, the agent spoken on our playout clock, one call's both ways.

::

    packets ─▶ JitterBuffer ─▶ decode (codec thread) ─▶ listener.on_speech
    say ─▶ Playout ─▶ one frame a tick ─▶ Outgoing: encode (codec thread) ─▶ send_audio

Everything here runs on the event loop; only `_decode` and Outgoing's encoding run elsewhere, one after the other for each voice.

Owns: the joining of the parts, the time stamps of what goes out, what is in flight to the decoder. Does not own: when a
tick is (shell/process/playout_clock.py), threads (shell/process/codec_thread.py), packets that go out (media/outgoing.py), RTP.
Invariants
- After `clear` returns, no frame that was said before it goes out, even one that the codec is working on.
- A frame counts as played when it went out, not when it was taken or coded.
- While an agent is silent nothing is sent, and time stamps go on with the clock.
"""

from collections.abc import Callable
from typing import Protocol

from voicefleet_dataplane.media.backend import Cleared, RateHz, VoiceListener
from voicefleet_dataplane.media.jitter import JitterBuffer, Kind, Piece
from voicefleet_dataplane.media.opus import OpusDecoder, OpusError
from voicefleet_dataplane.media.outgoing import Codec, Outgoing, SendAudio, Wishes, no_wishes
from voicefleet_dataplane.media.playout import PATIENCE_TICKS, Frame, Playout
from voicefleet_dataplane.wire.opus import FRAME_MS, FRAME_TICKS
from voicefleet_dataplane.wire.rtp import RtpPacket

FRAME_S = FRAME_MS / 1_000
MAX_QUEUED_BYTES = 8 << 20  # 175 s at 24 kHz; whoever brings more is made to wait
MAX_QUEUED_OPUS_BYTES = 1 << 20
MAX_DECODING = 50  # pieces with the codec: it is a second behind, and newer speech is worth more than older


class Clock(Protocol):
    """Calls `tick` of each voice that joined, every 20 ms."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def join(self, voice: "CallVoice") -> None:
        """Tick from 20 ms after now on; again: from 20 ms after now on instead."""

    def leave(self, voice: "CallVoice") -> None:
        """No more ticks."""


class CallVoice:
    """One call's voice, as `Call.open_voice` gives it."""

    def __init__(
        self,
        rate: RateHz,
        listener: VoiceListener,
        send_audio: SendAudio,
        codec: Codec,
        clock: Clock,
        loss: Callable[[], float] = lambda: 0.0,
        hear: RateHz | None = None,
        wishes: Wishes = no_wishes,
    ) -> None:
        """``hear``: the client's rate, where it is not the agent's. ``wishes``: of the client, who may change them."""
        hear = rate if hear is None else hear
        self._listener = listener
        self._codec = codec
        self._clock = clock
        self._frame_bytes = hear * FRAME_MS // 1_000 * 2  # of the client
        self.jitter = JitterBuffer()
        self._decoder = OpusDecoder(hear) if hear else None
        self._outgoing = Outgoing(rate, codec, send_audio, wishes, loss, self._went_out)
        self._playout = Playout(rate * FRAME_MS // 1_000 * 2, MAX_QUEUED_BYTES if rate else MAX_QUEUED_OPUS_BYTES)
        self._decoding = 0
        self._rest = b""  # of the client's speech: less than a frame
        self._epoch = 0
        self._started_at = clock.now()
        self._timestamp = -FRAME_TICKS  # of the last frame that was taken
        self._taken_at = -FRAME_S
        self._speaking = False
        self._resuming = False
        self._paused_ticks = 0
        self._joined = False
        self._closed = False
        self._said: str | None = None  # the tag that was told as playing
        self.overrun = 0  # pieces of the client's speech that the codec had no time for
        self.wants_packets = rate != RateHz.OPUS

    # ---- the client

    def receive(self, packet: RtpPacket, *, is_audio: bool = True) -> None:
        """Take a packet of the client."""
        now = self._clock.now()
        self.jitter.push(packet, now, is_audio=is_audio)
        self._hear(now)
        if not self._joined:
            self._join()

    def _hear(self, now: float) -> None:
        pieces = self.jitter.pop(now)
        if not pieces:
            return
        if self._decoding >= MAX_DECODING:
            self.overrun += len(pieces)
            return
        self._decoding += 1
        self._codec.submit(self._decode, pieces, self._heard)

    def _decode(self, pieces: list[Piece]) -> bytes:
        decoder = self._decoder
        assert decoder is not None
        parts: list[bytes] = []
        for piece in pieces:
            try:
                if piece.kind is Kind.AUDIO:
                    parts.append(decoder.decode(piece.payload))
                elif piece.kind is Kind.RECOVER:
                    parts.append(decoder.recover(piece.payload, piece.ticks))
                elif piece.kind is Kind.CONCEAL:
                    parts.append(decoder.conceal(piece.ticks))
                else:
                    parts.append(self._silence(piece.ticks))
            except OpusError:  # it looked like Opus and is not
                parts.append(self._silence(piece.ticks))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _silence(self, ticks: int) -> bytes:
        return bytes(ticks * self._frame_bytes // FRAME_TICKS // 2 * 2)

    def _heard(self, pieces: object, pcm: bytes) -> None:
        self._decoding -= 1
        if self._closed:
            return
        if self._rest or len(pcm) % self._frame_bytes:
            pcm = self._rest + pcm
            whole = len(pcm) // self._frame_bytes * self._frame_bytes
            pcm, self._rest = pcm[:whole], pcm[whole:]
        if pcm:
            self._listener.on_speech(pcm)

    # ---- the agent

    def say(self, audio: bytes, tag: str = "") -> bool:
        """Queue PCM, or one Opus frame."""
        if self._closed or not self._playout.say(audio, tag):
            return False
        if not self._speaking:
            self._start()
        return True

    def mark(self, name: str) -> bool:
        """Be told when all that was said so far has gone out."""
        if self._closed or not self._playout.mark(name):
            return False
        if not self._speaking:
            self._start()
        return True

    def clear(self) -> Cleared:
        """Stop at once."""
        flying = self._outgoing.clear()
        cleared = self._playout.clear()
        self._epoch += 1
        self._speaking = False
        self._said = None
        tags = [tag for frame in flying for tag, _ in frame.tags]
        tag = tags[0] if tags else cleared.tag
        marks = tuple(name for frame in flying for name in frame.marks) + cleared.marks
        cut = dict.fromkeys((*tags, *(name for name, _ in cleared.cut)))
        return Cleared(tag, self.played_ms(tag), marks, tuple((name, self.played_ms(name)) for name in cut))

    @property
    def queued_ms(self) -> int:
        """How much waits to go out."""
        return self._playout.queued_ms + FRAME_MS * self._outgoing.waiting

    @property
    def is_full(self) -> bool:
        """Stop bringing audio for a while."""
        return self._playout.is_full

    def played_ms(self, tag: str) -> int:
        """How much of a tag has gone out."""
        return self._playout.played_ms(tag)

    def counts(self) -> dict[str, int]:
        """What became of the client's packets that did not come in order and in time."""
        jitter = self.jitter
        return {
            "lost": jitter.lost,
            "late": jitter.late,
            "recovered": jitter.recovered,
            "concealed": jitter.concealed,
            "overrun": self.overrun,
        }

    def close(self) -> None:
        """The call is over."""
        self._closed = True
        self._epoch += 1
        self._outgoing.clear()
        self._playout.clear()
        if self._joined:
            self._joined = False
            self._clock.leave(self)

    # ---- the clock

    def tick(self, now: float) -> None:
        """20 ms have passed."""
        if self.wants_packets:
            self._hear(now)
        if self._speaking:
            self._take(now)
        elif not self.wants_packets or self.jitter.deadline() is None:
            self._joined = False
            self._clock.leave(self)

    def _join(self) -> None:
        self._joined = True
        self._clock.join(self)

    def _start(self) -> None:
        """Speak from now on; the first frame waits for nothing but the frame before it."""
        now = self._clock.now()
        self._speaking = self._resuming = True
        if now - self._taken_at >= FRAME_S:
            self._join()
            self._take(now)
        elif not self._joined:
            self._join()

    def _take(self, now: float) -> None:
        frame = self._playout.take()
        if frame is None:
            if self._playout.is_empty:
                self._pause()
            return
        self._paused_ticks = 0
        marker = False
        if frame.audio:
            on_clock = int((now - self._started_at) / FRAME_S + 0.5) * FRAME_TICKS
            due = self._timestamp + FRAME_TICKS
            # Only a pause is a gap. A late tick or a late frame is none: a client's jitter buffer makes up for those, and
            # a leap of time in the middle of a word would be heard.
            marker = self._resuming and on_clock > due
            self._timestamp = on_clock if marker else due
            self._resuming = False
            self._taken_at = now
        self._outgoing.put(frame, self._timestamp & 0xFFFFFFFF, marker=marker)

    def _went_out(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._playout.note_played(frame)
        epoch = self._epoch
        for frame in frames:
            for tag, _ in frame.tags:
                if tag != self._said and self._epoch == epoch:
                    self._said = tag
                    self._listener.on_playing(tag)
            for name in frame.marks:
                if self._epoch == epoch:
                    self._listener.on_mark(name)

    def _pause(self) -> None:
        """Nothing to play: silence, if it is not just an agent that brings its frames one by one."""
        self._outgoing.flush()
        self._paused_ticks += 1
        if self._paused_ticks > PATIENCE_TICKS and not self._outgoing.waiting:
            self._said = None
            self._speaking = False
            self._listener.on_silent()
