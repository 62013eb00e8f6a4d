"""When a client believes a HelloVerifyRequest (RFC 6347 section 4.2.1), which nothing in it proves.

Some servers answer the first hello with one (Pion does), most with their flight, and one forged in between would have us say a hello
that the true server takes for nonsense. So it is believed when our hello is due to be repeated anyway: a flight that has
come by then is signed, and decides. More of them than we said hellos are somebody's forgeries: then we wait a second, and take the
cookie that was seen most.

Owns: the cookies and the moment. Does not own: hellos (core/call/dtls.py).
"""

from collections import Counter

PATIENCE_S = 0.1
PATIENCE_UNDER_ATTACK_S = 1.0
_MOST_COOKIES = 16


class VerifyRequests:
    """Those that have come since our hello."""

    def __init__(self, hello_at: float) -> None:
        self.hellos = 1  # how often we have said it
        self._hello_at = hello_at
        self._bodies: Counter[bytes] = Counter()

    def note(self, body: bytes) -> None:
        """One has come."""
        if body in self._bodies or len(self._bodies) < _MOST_COOKIES:
            self._bodies[body] += 1

    def due(self) -> float | None:
        """When one is to be believed."""
        if not self._bodies:
            return None
        forged = self._bodies.total() > self.hellos
        return self._hello_at + (PATIENCE_UNDER_ATTACK_S if forged else PATIENCE_S)

    def most_seen(self) -> bytes:
        """The body to believe."""
        return self._bodies.most_common(1)[0][0]
