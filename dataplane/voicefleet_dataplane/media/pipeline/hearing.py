"""The client's speech, cut into utterances: the input audio buffer of the Realtime API.

Audio is PCM at 16 kHz. With turn detection an utterance begins where speech began, and a little before; without it everything is
kept until the client commits it.

Owns: which audio belongs to which utterance. Does not own: words, items.
Invariant: at most MAX_UTTERANCE_MS are kept, whatever comes and however long.
"""

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from voicefleet_dataplane.media.pipeline.actions import Actions, Conclude, Feed, Forget, Listen
from voicefleet_dataplane.media.pipeline.events import EventWriter
from voicefleet_dataplane.media.pipeline.turns import START_MS, Turn, TurnDetector

BYTES_PER_MS = 32
MAX_UTTERANCE_MS = 60_000
_PIECE_BYTES = 100 * BYTES_PER_MS  # what is fed at once: a message for each frame would cost more than it helps
_SLACK_MS = 500  # windows that an engine has not judged yet
LEAST_MS = 100


class What(Enum):
    """What came of a piece of audio."""

    STARTED = "started"
    STOPPED = "stopped"


class Heard(NamedTuple):
    """Something began or ended, and what follows from it."""

    what: What
    utterance: str
    actions: Actions
    audio_ms: int = 0


class Hearing:
    """One call's."""

    def __init__(self, events: EventWriter, *, detects_turns: bool) -> None:
        self.turns = TurnDetector()
        self._events = events
        self._detects_turns = detects_turns
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        self._heard_bytes = 0
        self._judged_ms = 0.0
        self._utterance = ""
        self._utterance_bytes = 0
        self._unfed: list[bytes] = []
        self._unfed_bytes = 0

    @property
    def heard_ms(self) -> int:
        """How much audio has come."""
        return self._heard_bytes // BYTES_PER_MS

    def detect_turns(self, wanted: bool) -> Actions:
        """Find turns, or wait for commits, from now on."""
        if wanted == self._detects_turns:
            return []
        self._detects_turns = wanted
        return self.forget()

    def hear(self, pcm: bytes, probabilities: Sequence[float], window_ms: float) -> list[Heard]:
        """Take the next audio, and what an engine made of the windows that are complete."""
        self._heard_bytes += len(pcm)
        if self._utterance:
            self._feed(pcm)
        else:
            self._remember(pcm)
        found: list[Heard] = []
        for probability in probabilities:
            self._judged_ms += window_ms
            if not self._detects_turns:
                continue
            turn = self.turns.push(probability, self._judged_ms, window_ms)
            if turn is Turn.STARTED:
                found.append(self._start())
            elif turn is Turn.STOPPED and self._utterance:
                found.append(self._stop())
        if self._utterance and self._utterance_bytes > MAX_UTTERANCE_MS * BYTES_PER_MS:
            self.turns.reset()  # whoever goes on begins anew
            found.append(self._stop())
        return found

    def feed(self) -> Actions:
        """Return what there is to feed by now."""
        if self._unfed_bytes < _PIECE_BYTES:
            return []
        return self._flush()

    def commit(self) -> Heard | None:
        """End the utterance here, or make one of all that was kept; None if that is nothing."""
        if self._utterance:
            self.turns.reset()
            return self._stop()
        if self._detects_turns or self._recent_bytes < LEAST_MS * BYTES_PER_MS:
            return None
        began = self._begin(b"".join(self._recent))
        self._recent.clear()
        self._recent_bytes = 0
        return self._conclude(began)

    def forget(self) -> Actions:
        """Clear the buffer."""
        utterance, self._utterance = self._utterance, ""
        self._recent.clear()
        self._unfed.clear()
        self._recent_bytes = self._unfed_bytes = self._utterance_bytes = 0
        self.turns.reset()
        return [Forget(utterance)] if utterance else []

    def _start(self) -> Heard:
        padding = self.turns.patience.prefix_padding_ms
        from_ms = max(0, int(self.turns.started_ms) - padding)
        kept = b"".join(self._recent)
        # Silence that was never sent is not in the audio: what is kept may begin later.
        wanted = min(len(kept), max(0, self._heard_bytes - from_ms * BYTES_PER_MS))
        self._recent.clear()
        self._recent_bytes = 0
        actions = self._begin(kept[len(kept) - wanted :])
        started = self._events.tell(
            "input_audio_buffer.speech_started", audio_start_ms=from_ms, item_id=self._utterance
        )
        return Heard(What.STARTED, self._utterance, [started, *actions])

    def _begin(self, pcm: bytes) -> Actions:
        self._utterance = self._events.new_id("item")
        self._utterance_bytes = len(pcm)
        self._unfed, self._unfed_bytes = [pcm], len(pcm)
        return [Listen(self._utterance), *self._flush()]

    def _stop(self) -> Heard:
        stopped = self._events.tell(
            "input_audio_buffer.speech_stopped", audio_end_ms=self.heard_ms, item_id=self._utterance
        )
        return self._conclude([stopped])

    def _conclude(self, before: Actions) -> Heard:
        actions = [*before, *self._flush(), Conclude(self._utterance)]
        utterance, self._utterance = self._utterance, ""
        audio_ms, self._utterance_bytes = self._utterance_bytes // BYTES_PER_MS, 0
        return Heard(What.STOPPED, utterance, actions, audio_ms)

    def _feed(self, pcm: bytes) -> None:
        self._utterance_bytes += len(pcm)
        self._unfed.append(pcm)
        self._unfed_bytes += len(pcm)

    def _flush(self) -> Actions:
        if not self._unfed_bytes:
            return []
        pcm = b"".join(self._unfed)
        self._unfed, self._unfed_bytes = [], 0
        return [Feed(self._utterance, pcm)]

    def _remember(self, pcm: bytes) -> None:
        self._recent.append(pcm)
        self._recent_bytes += len(pcm)
        keep_ms = MAX_UTTERANCE_MS
        if self._detects_turns:
            keep_ms = self.turns.patience.prefix_padding_ms + START_MS + _SLACK_MS
        while self._recent_bytes > keep_ms * BYTES_PER_MS and len(self._recent) > 1:
            self._recent_bytes -= len(self._recent.popleft())
