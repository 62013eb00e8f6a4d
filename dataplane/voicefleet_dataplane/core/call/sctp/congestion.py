"""How fast an association sends: congestion window and retransmission timeout (RFC 9260 sections 6.3 and 7.2).

Where the RFC leaves a choice we do as browsers do: the first window is ten packets (RFC 6928), a timeout is at least 400 ms,
twice what an acknowledgement may be delayed, and at most 3 s, so that a call whose network was away goes on soon after it is
back.
"""

RTO_INITIAL_S = 1.0
RTO_MIN_S = 0.4
RTO_MAX_S = 3.0
INITIAL_PACKETS = 10
MAX_BURST_PACKETS = 10  # between two packets of the peer


class RetransmissionTimeout:
    """Section 6.3.1."""

    __slots__ = ("rto_s", "srtt_s", "variation_s")

    def __init__(self) -> None:
        self.rto_s = RTO_INITIAL_S
        self.srtt_s: float | None = None
        self.variation_s = 0.0

    def measure(self, rtt_s: float) -> None:
        """Take a round trip of something that was sent once."""
        if self.srtt_s is None:
            self.srtt_s, self.variation_s = rtt_s, rtt_s / 2
        else:
            self.variation_s += (abs(self.srtt_s - rtt_s) - self.variation_s) / 4
            self.srtt_s += (rtt_s - self.srtt_s) / 8
        self.rto_s = min(max(self.srtt_s + 4 * self.variation_s, RTO_MIN_S), RTO_MAX_S)

    def back_off(self) -> None:
        """Wait twice as long the next time (section 6.3.3 E2)."""
        self.rto_s = min(2 * self.rto_s, RTO_MAX_S)

    def export(self) -> list[float | None]:
        """Return its state."""
        return [self.rto_s, self.srtt_s, self.variation_s]

    def restore(self, state: list[float]) -> None:
        """Go on from an export."""
        self.rto_s, self.srtt_s, self.variation_s = state


class CongestionWindow:
    """Section 7.2, in bytes of payload."""

    __slots__ = ("_packet_bytes", "_partly_acknowledged", "recovery_ends", "threshold", "window")

    def __init__(self, packet_bytes: int) -> None:
        self._packet_bytes = packet_bytes
        self.window = INITIAL_PACKETS * packet_bytes
        self.threshold = 1 << 30  # until the first loss
        self._partly_acknowledged = 0
        self.recovery_ends: int | None = None  # the TSN whose acknowledgement ends fast recovery

    def limit(self, flight_bytes: int) -> int:
        """How many bytes may be in flight now."""
        return min(self.window, flight_bytes + MAX_BURST_PACKETS * self._packet_bytes)

    def is_used(self, flight_bytes: int) -> bool:
        """Say whether a larger window would have been filled: only then does it grow."""
        return flight_bytes + self._packet_bytes > self.window

    def acknowledged(self, count: int, *, was_used: bool) -> None:
        """Grow: the cumulative TSN moved, and ``count`` bytes were acknowledged (sections 7.2.1 and 7.2.2)."""
        if self.recovery_ends is not None:
            return
        if self.window <= self.threshold:
            if was_used:
                self.window += min(count, self._packet_bytes)
            return
        self._partly_acknowledged += count
        if self._partly_acknowledged >= self.window:
            if was_used:
                self._partly_acknowledged -= self.window
                self.window += self._packet_bytes
            else:
                self._partly_acknowledged = self.window

    def lost(self, highest_sent: int) -> bool:
        """Halve, once for what is in flight; True when this begins fast recovery (section 7.2.4)."""
        if self.recovery_ends is not None:
            return False
        self.threshold = self.window = max(self.window // 2, 4 * self._packet_bytes)
        self._partly_acknowledged = 0
        self.recovery_ends = highest_sent
        return True

    def timed_out(self) -> None:
        """Begin again with one packet (section 7.2.3)."""
        self.threshold = max(self.window // 2, 4 * self._packet_bytes)
        self.window = self._packet_bytes
        self._partly_acknowledged = 0
        self.recovery_ends = None

    def export(self) -> list[int | None]:
        """Return its state."""
        return [self.window, self.threshold, self._partly_acknowledged, self.recovery_ends]

    def restore(self, state: list[int]) -> None:
        """Go on from an export."""
        self.window, self.threshold, self._partly_acknowledged, self.recovery_ends = state
