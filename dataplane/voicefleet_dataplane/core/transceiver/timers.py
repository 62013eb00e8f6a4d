"""One timer for each session, on a heap: a session that wants to be woken earlier is put there once more.

Media only moves deadlines away, so it arms nothing: a timer that fires early is armed again.
"""

import heapq

from voicefleet_dataplane.core.call.session import Session

NEVER = float("inf")


class Timers:
    """``Session.scheduled_at`` is the one entry of a session that counts; older ones are dropped as they come up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Session]] = []
        self._count = 0  # of equal times the first one comes first, and sessions are never compared

    def next(self) -> float:
        """When the earliest is due."""
        while self._heap and self._heap[0][0] != self._heap[0][2].scheduled_at:
            heapq.heappop(self._heap)  # its call has ended, or asked to be woken earlier
        return self._heap[0][0] if self._heap else NEVER

    def arm(self, session: Session) -> None:
        """Wake a session when it wants to be, if that is earlier than it would be."""
        due = session.deadline()
        if due < session.scheduled_at:
            session.scheduled_at = due
            self._count += 1
            heapq.heappush(self._heap, (due, self._count, session))

    def take_due(self, now: float) -> Session | None:
        """Return a session whose time has come, disarmed; None when there is none."""
        if self.next() > now:
            return None
        session = heapq.heappop(self._heap)[2]
        session.scheduled_at = NEVER
        return session

    def disarm(self, session: Session) -> None:
        """Its call has ended."""
        session.scheduled_at = NEVER
