"""When somebody speaks, from the probabilities that a voice activity engine gives.

Owns: thresholds and patience. Does not own: the engine, the audio.
Invariant: started and stopped alternate, and each names a place in the audio that has been heard.
"""

from dataclasses import dataclass
from enum import Enum

START_MS = 90  # so much of speech in a row begins a turn: a click is shorter
_HYSTERESIS = 0.15  # speech that goes on is believed more easily than speech that begins


class Turn(Enum):
    """What has changed."""

    STARTED = "started"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Patience:
    """As `turn_detection` of a session says."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500


class TurnDetector:
    """One call's."""

    def __init__(self) -> None:
        self.patience = Patience()
        self.speaking = False
        self.started_ms = 0.0  # where the speech began that is going on, or was the last
        self._run_ms = 0.0  # of windows that contradict the state

    def push(self, probability: float, at_ms: float, window_ms: float) -> Turn | None:
        """Take the probability of a window that ends ``at_ms`` into the audio."""
        threshold = self.patience.threshold
        if self.speaking:
            threshold = max(0.01, threshold - _HYSTERESIS)
        if (probability >= threshold) == self.speaking:
            self._run_ms = 0.0
            return None
        self._run_ms += window_ms
        if self.speaking:
            if self._run_ms < self.patience.silence_duration_ms:
                return None
            self.reset()
            return Turn.STOPPED
        if self._run_ms < START_MS:
            return None
        self.started_ms = at_ms - self._run_ms
        self._run_ms = 0.0
        self.speaking = True
        return Turn.STARTED

    def reset(self) -> None:
        """Nobody speaks."""
        self.speaking = False
        self._run_ms = 0.0
