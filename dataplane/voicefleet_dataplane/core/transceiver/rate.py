"""How fast a counter that only grows has grown over a window of time. Pure; memory is bounded by how often it is asked."""

from collections import deque


class Rate:
    """Growth per second over the last ``over_s`` seconds, or since the first note while that is less."""

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._noted: deque[tuple[float, int]] = deque()

    def note(self, total: int, now: float) -> float:
        """Take the counter as it is now; return its growth per second."""
        self._noted.append((now, total))
        while len(self._noted) > 1 and self._noted[1][0] <= now - self._over_s:
            self._noted.popleft()
        since, before = self._noted[0]
        return (total - before) / (now - since) if now > since else 0.0
