"""The clock that all voices of a process speak by: each is ticked every 20 ms, in one of four phases.

One timer of 5 ms serves everybody. Voices of one phase take their frames together, so the codec thread gets them in one batch;
phases spread the work over the 20 ms. The timer runs only while somebody has joined.

Owns: the timer and the phases. Does not own: what a tick does (media/voice.py).
"""

import asyncio
import logging
import time
from typing import Protocol

log = logging.getLogger("voicefleet.transceiver")

PHASES = 4
PHASE_S = 0.02 / PHASES
_FORGIVEN_S = 1.0  # a loop that stood still makes up for so much, frame by frame, or every voice would stay behind


class Ticked(Protocol):
    """Who joins."""

    def tick(self, now: float) -> None:
        """20 ms have passed."""


class PlayoutClock:
    """Made on the loop that it runs on."""

    def __init__(self) -> None:
        self._phases: list[dict[Ticked, None]] = [{} for _ in range(PHASES)]
        self._phase_of: dict[Ticked, int] = {}
        self._phase = 0
        self._due_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Seconds, monotonic."""
        return time.monotonic()

    def join(self, voice: Ticked) -> None:
        """Tick from 20 ms after now on."""
        self.leave(voice)
        self._phase_of[voice] = self._phase
        self._phases[self._phase][voice] = None
        if self._timer is None:
            self._due_at = self.now()
            self._arm(self._due_at)

    def leave(self, voice: Ticked) -> None:
        """No more ticks."""
        phase = self._phase_of.pop(voice, None)
        if phase is not None:
            del self._phases[phase][voice]

    def close(self) -> None:
        """No ticks for anybody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._phase_of.clear()
        self._phases = [{} for _ in range(PHASES)]

    def _arm(self, now: float) -> None:
        self._due_at += PHASE_S
        if now - self._due_at > _FORGIVEN_S:
            self._due_at = now
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._due_at - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._phase = (self._phase + 1) % PHASES
        now = self.now()
        for voice in tuple(self._phases[self._phase]):
            if self._phase_of.get(voice) != self._phase:
                continue  # left in this very turn
            try:
                voice.tick(now)
            except Exception as error:
                log.error("a voice failed", exc_info=error)
                self.leave(voice)
        if self._phase_of:
            self._arm(now)
