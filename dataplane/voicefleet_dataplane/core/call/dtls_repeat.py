"""Our last flight, repeated until the peer has answered it.

OpenSSL runs its retransmission timer on its own clock and starts at one second, which a caller hears. So a flight is repeated
byte for byte, 100 ms after it went out and then at doubling intervals. To a peer that has the records already they are replays and
cost nothing. Only a repeated *last* flight needs new record numbers: there OpenSSL's timer is the fallback, and a server repeats its
last flight when it sees the client repeat.

Owns: the flight and when it is due. Does not own: what is in it (core/call/dtls.py).
"""

FIRST_REPEAT_S = 0.1
LONGEST_REPEAT_S = 2.0


class Repetition:
    """One flight at a time."""

    def __init__(self) -> None:
        self.flight: list[bytes] = []
        self.flights = 0  # how many different ones there were
        self.at: float | None = None
        self._after_s = FIRST_REPEAT_S
        self._asked_at = float("-inf")

    def begin(self, flight: list[bytes], now: float) -> None:
        """It has just gone out."""
        self.flight = flight
        self.flights += 1
        self._after_s = FIRST_REPEAT_S
        self.at = now + FIRST_REPEAT_S

    def stop(self, *, forget: bool = True) -> None:
        """The peer has answered; without ``forget`` it may still ask for the flight again."""
        self.at = None
        if forget:
            self.flight = []

    def due(self, now: float) -> list[bytes]:
        """What is to go out again now."""
        if self.at is None or now < self.at:
            return []
        self._after_s = min(2 * self._after_s, LONGEST_REPEAT_S)
        self.at = now + self._after_s
        return self.flight

    def asked(self, now: float) -> list[bytes]:
        """The peer has not got the last flight: what goes out for that, once in an interval."""
        if now < self._asked_at + FIRST_REPEAT_S:
            return []
        self._asked_at = now
        return self.flight
