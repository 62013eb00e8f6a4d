"""How long a call may take over what, and whether it is still used.

| limit | counts from | whom it is for |
|---|---|---|
| set-up | the offer | calls that are not connected yet |
| idle | the last speech or message, of either side | who said that it would speak; not who offered to listen only |
| abandoned | the last packet of the client that was no check | every connected call: a tab that nobody sits at answers for itself only |
| duration | the first offer | every call |

Before idle and abandoned there is a warning, once for each time that they come near.

Owns: these four. Does not own: whether the client can be reached at all (core/call/paths.py), what a limit's end does (core/call/session.py).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from voicefleet_dataplane.core.call.model import EndReason, Limits

WARNED_S = 10.0  # before, or half of a limit that is short
_UNUSED = frozenset({EndReason.IDLE, EndReason.ABANDONED})


class Use(NamedTuple):
    """What use a call is of at the moment."""

    is_connected: bool
    is_listening: bool  # its client has said that it will not speak
    heard_at: float  # when it sent something last that was no check


@dataclass(slots=True)
class Lifetime:
    """Times are the caller's clock, in seconds."""

    limits: Limits
    started_at: float  # this session
    began_at: float = field(init=False)  # the call, which may have had another session before
    active_at: float = field(init=False)  # when somebody said something
    _warned_of: float = 0.0  # the end that was warned of last

    def __post_init__(self) -> None:
        self.began_at = self.active_at = self.started_at

    def deadline(self, use: Use) -> float:
        """When the next limit may be reached, or a warning is due."""
        return min(min(at, self._warn_at(at, why)) for at, why in self._ends(use))

    def warning(self, use: Use, now: float) -> tuple[EndReason, float] | None:
        """Say which limit is near and was not warned of, and how many seconds are left."""
        for at, why in self._ends(use):
            if now >= self._warn_at(at, why):
                self._warned_of = at
                return why, at - now
        return None

    def _warn_at(self, at: float, why: EndReason) -> float:
        if why not in _UNUSED or at == self._warned_of:
            return float("inf")
        return at - min(WARNED_S, self.limits.idle_s / 2)

    def end_reason(self, use: Use, now: float) -> EndReason | None:
        """Say which limit is reached."""
        return next((why for at, why in self._ends(use) if now >= at), None)

    def _ends(self, use: Use) -> list[tuple[float, EndReason]]:
        limits = self.limits
        ends = [(self.began_at + limits.duration_s, EndReason.MAX_DURATION)]
        if not use.is_connected:
            ends.append((self.started_at + limits.setup_s, EndReason.SETUP_TIMEOUT))
        elif limits.idle_s:
            if not use.is_listening:
                ends.append((self.active_at + limits.idle_s, EndReason.IDLE))
            ends.append((use.heard_at + max(limits.abandoned_s, limits.idle_s), EndReason.ABANDONED))
        return ends
