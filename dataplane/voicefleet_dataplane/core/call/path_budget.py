"""How much may be sent to an address that has not proved that it gets what is sent there.

Who spoofs an address gets a check of his own call believed from it: an authentic check proves who sent it, not where he is. So
a path gets at most three times the bytes that came by it, media included, until something was acknowledged that was sent by this path
alone (core/call/path_proof.py). Three is QUIC's number (RFC 9000 section 8.1): a spoofer gains nothing worth the trouble.

Owns: the sum, and when to ask again. Does not own: what is a proof, which path media takes.
"""

from dataclasses import dataclass

AMPLIFICATION_LIMIT = 3
_FIRST_ASKED_AFTER_S, _ASKED_AT_LEAST_EVERY_S = 0.05, 1.0
# Then the client answers no check and tells no report in time: reports of some come each five seconds and more.
_MOST_IN_A_ROW, _PAUSE_S = 12, 5.0


@dataclass(slots=True)
class PathBudget:
    """Bytes are of datagrams, without SPP; times the caller's clock, in seconds."""

    is_proven: bool = False
    received_bytes: int = 0
    sent_bytes: int = 0
    ask_at: float = float("-inf")
    _asked: int = 0

    def may_send(self, size_bytes: int) -> bool:
        """Count what is to be sent, or say that it must not be."""
        if not self.is_proven and self.sent_bytes + size_bytes > AMPLIFICATION_LIMIT * self.received_bytes:
            return False
        self.sent_bytes += size_bytes
        return True

    def note_asked(self, now: float) -> None:
        """A proof has been asked for: the next time comes later each time."""
        gap_s = min(_FIRST_ASKED_AFTER_S * 2**self._asked, _ASKED_AT_LEAST_EVERY_S)
        self._asked = min(self._asked + 1, _MOST_IN_A_ROW)
        self.ask_at = now + (_PAUSE_S if self._asked == _MOST_IN_A_ROW else gap_s)
