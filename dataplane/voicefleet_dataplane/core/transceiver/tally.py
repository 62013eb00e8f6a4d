"""What a transceiver counts of its calls, and tells in its status: how many, since when, and how they ended.

Owns: these counts. Does not own: the counts of packets (core/transceiver/transceiver.py), the numbers of one call
(core/call/status.py).
"""

from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.core.call.session import Session

# Ends that say that media did not come up for a cause that may be ours. A wrong fingerprint is the client's.
_NO_MEDIA = frozenset({EndReason.SETUP_TIMEOUT, EndReason.DTLS_FAILED, EndReason.CONSENT_EXPIRED})


class Tally:
    """All counts are since the start of the process."""

    def __init__(self, sessions: dict[str, Session], wall_offset_s: float) -> None:
        """`sessions` are those of the moment, oldest first; `wall_offset_s` is Unix time less `now`, in seconds."""
        self.started = 0  # sessions: a call whose client has made another peer connection has had more than one
        self.ended = dict.fromkeys(EndReason, 0)
        self.ice_restarts = 0
        self._ended_with_media = self._ended_without = 0
        self._sessions = sessions
        self._wall_offset_s = wall_offset_s

    def note_end(self, session: Session) -> None:
        """Count a session that has ended."""
        assert session.end_reason is not None
        self.ended[session.end_reason] += 1
        self._ended_with_media += session.connected_at is not None
        self._ended_without += session.connected_at is None and session.end_reason in _NO_MEDIA

    @property
    def media_up(self) -> int:
        """Calls whose media came up."""
        return self._ended_with_media + sum(s.connected_at is not None for s in self._sessions.values())

    def media_failed(self, now: float, within_s: float) -> int:
        """Calls whose media did not come up in time. A call that was hung up before counts for neither."""
        late = sum(s.connected_at is None and now - s.lifetime.started_at >= within_s for s in self._sessions.values())
        return self._ended_without + late

    def started_at(self) -> tuple[float, float] | None:
        """When the oldest and the newest call started, in Unix seconds."""
        if not self._sessions:
            return None
        oldest, newest = next(iter(self._sessions.values())), next(reversed(self._sessions.values()))
        return round(oldest.lifetime.began_at + self._wall_offset_s, 3), round(
            newest.lifetime.began_at + self._wall_offset_s, 3
        )
