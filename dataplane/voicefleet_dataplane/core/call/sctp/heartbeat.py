"""Is the peer still there while nothing is said (RFC 9260 sections 8.1 and 8.3)?

Owns: the heartbeat and the count of what was not answered. Does not own: other timers that count here (association.py).
"""

from collections.abc import Callable
from typing import Any

INTERVAL_S = 30.0
# With timeouts of at most 3 s this is longer than consent lasts (RFC 7675): ICE, which knows more, judges first.
MAX_UNANSWERED = 15
_NONCE_BYTES = 8


class Heartbeat:
    """`due_at` is when to send one, or when the answer to one is late."""

    __slots__ = ("_nonce", "_random_bytes", "_sent_at", "due_at", "unanswered")

    def __init__(self, random_bytes: Callable[[int], bytes], now: float) -> None:
        self._random_bytes = random_bytes
        self._nonce = b""
        self._sent_at = 0.0
        self.unanswered = 0
        self.due_at = now + INTERVAL_S

    def heard(self, now: float) -> None:
        """The peer has acknowledged something."""
        self.unanswered = 0
        if not self._nonce:
            self.due_at = now + INTERVAL_S

    def missed(self) -> bool:
        """Count something that was not answered; True when that is enough."""
        self.unanswered += 1
        return self.unanswered > MAX_UNANSWERED

    def beat(self, rto_s: float, now: float) -> bytes:
        """Return the information of a HEARTBEAT: a parameter of type 1."""
        self._nonce = self._random_bytes(_NONCE_BYTES)
        self._sent_at = now
        self.due_at = now + rto_s
        return (1).to_bytes(2, "big") + (4 + _NONCE_BYTES).to_bytes(2, "big") + self._nonce

    @property
    def is_waiting(self) -> bool:
        """One is out."""
        return bool(self._nonce)

    def answered(self, information: bytes, now: float) -> float | None:
        """Take a HEARTBEAT ACK; gives the round trip if it is the answer to the last one."""
        if not self._nonce or information[4:] != self._nonce:
            return None
        self._nonce = b""
        self.heard(now)
        return now - self._sent_at

    def export(self) -> list[Any]:
        """Return its state; times are as they are here."""
        return [self._nonce, self._sent_at, self.unanswered, self.due_at]

    def restore(self, state: list[Any], shift_s: float) -> None:
        """Go on from an export whose clock was ``shift_s`` behind ours."""
        self._nonce, self._sent_at, self.unanswered, self.due_at = state
        self._sent_at += shift_s
        self.due_at += shift_s
