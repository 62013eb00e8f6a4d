"""Rate and concurrency limits: of one thing, or by key with bounded memory.

`Budget` and `RateLimit` are GCRA (the leaky bucket as one timestamp): no timer, no refill loop. Time is an argument.

Owns: who may go now, and when to come back. Does not own: what a key is (a tenant, a client's network), HTTP, packets.

Invariants: at most ``max_keys`` keys are remembered; the one asked longest ago is forgotten first, which can only be
lenient to a key that was quiet.
"""

from collections import OrderedDict


class Budget:
    """``per_second`` units on average, ``depth`` of them at once. What something costs may be known only after it was done."""

    __slots__ = ("_depth_s", "_paid_at", "_unit_s")

    def __init__(self, per_second: float, depth: float) -> None:
        self._unit_s = 1.0 / per_second
        self._depth_s = depth / per_second
        self._paid_at = -float("inf")  # when all that was taken is paid

    def is_spent(self, now: float) -> bool:
        """Whether nothing may be taken."""
        return self._paid_at > now

    def take(self, units: float, now: float) -> None:
        """Take what something has cost; also more than is left, which is then owed."""
        earliest = now - self._depth_s
        # Not max(): this is on the way of every packet.
        self._paid_at = (earliest if self._paid_at < earliest else self._paid_at) + units * self._unit_s  # noqa: FURB136


class RateLimit:
    """``per_second`` on average with bursts of ``burst``, for each key apart."""

    def __init__(self, per_second: float, burst: float, max_keys: int = 65_536) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError("a rate limit needs a positive rate and a burst of at least 1")
        self._interval_s = 1.0 / per_second
        self._slack_s = self._interval_s * (burst - 1)
        self._max_keys = max_keys
        self._due: OrderedDict[str, float] = OrderedDict()  # when the key's debt is paid

    def take(self, key: str, now: float) -> float:
        """Return 0.0 and count the request, or the seconds to wait; a refused request costs the key nothing."""
        due = max(self._due.get(key, now), now)
        wait_s = due - self._slack_s - now
        if wait_s > 1e-9:  # below a nanosecond is rounding
            self._due.move_to_end(key)
            return wait_s
        self._due[key] = due + self._interval_s
        self._due.move_to_end(key)
        if len(self._due) > self._max_keys:
            self._due.popitem(last=False)
        return 0.0

    def give_back(self, key: str) -> None:
        """Undo one `take` that was granted: what it was for turned out to be free."""
        due = self._due.get(key)
        if due is not None:  # else forgotten meanwhile, which gave it back already
            self._due[key] = due - self._interval_s

    def __len__(self) -> int:
        return len(self._due)


class ConcurrencyLimit:
    """At most ``limit`` requests at once for each key. Memory is bounded by the requests in progress."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: dict[str, int] = {}

    def enter(self, key: str) -> bool:
        """Count a request in, or return False: the key has ``limit`` in progress."""
        running = self._running.get(key, 0)
        if running >= self._limit:
            return False
        self._running[key] = running + 1
        return True

    def leave(self, key: str) -> None:
        """Count a request out; each successful `enter` needs exactly one."""
        left = self._running[key] - 1
        if left:
            self._running[key] = left
        else:
            del self._running[key]

    def __len__(self) -> int:
        return sum(self._running.values())
