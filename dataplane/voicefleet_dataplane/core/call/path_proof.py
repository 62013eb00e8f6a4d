"""What proves that a path's address gets our packets: its answer to something that was sent by this path alone and cannot be guessed.

::

    the handshake     our flight with our random, by one path          ──▶ the peer's Finished, which answers it
    a check of ours   a random transaction, signed for the client      ──▶ its success response
    a report of ours  a time of day that is off by a random amount     ──▶ a report block that names it (LSR)

Nearly every call has its proof with its handshake, before the first word. The other two are for paths that are nominated later:
a NAT that rebinds, a change of network, a client with two. The check is answered within a round trip by whoever speaks full ICE
(a lite agent sends none, RFC 8445 section 2.5; this one does to prove a path and learns nothing else from it). The report is for those
who do not, or are behind a relay of the release before, which lets no answers in; it takes until their next one.

A client's checks and packets prove nothing of this kind: who spoofs has all keys of his own call. What he could guess is
bounded: a transaction has 96 bits. A report's time has 18, so after MOST_MISSES wrong ones those that are out count no more.

Owns: what was asked by which path. Does not own: when to ask (core/call/path_budget.py), sending (core/call/outgoing.py).
"""

from collections.abc import Callable

from voicefleet_dataplane.core.call.paths import Path
from voicefleet_dataplane.wire.rtcp import ReportBlock
from voicefleet_dataplane.wire.stun import (
    TRANSACTION_ID_BYTES,
    StunError,
    build_binding_request,
    parse_binding_response,
    verify_integrity,
)

MOST_CHECKS = 16  # that are out
MOST_REPORTS = 8
MOST_MISSES = 8
# In 1/65536 s, as LSR counts: up to four seconds into the past. The time in RTP units is off by as much, so the pair is true.
REPORT_SHIFT_BITS = 18
_PRIORITY = 0x6E7F00FF  # of a host candidate (RFC 8445 section 5.1.2); nobody chooses by it


class PathProof:
    """Of one call."""

    __slots__ = ("_checks", "_flight", "_flight_path", "_misses", "_random_bytes", "_reports")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._flight = -1
        self._flight_path: Path | None = None
        self._checks: dict[bytes, tuple[Path, bytes]] = {}  # by transaction; with the password of the answer
        self._reports: dict[int, Path] = {}  # by LSR
        self._misses = 0

    # ---- the handshake

    def note_flight(self, number: int, path: Path) -> None:
        """A part of our flight of this number goes out, perhaps not for the first time."""
        if number != self._flight:
            self._flight, self._flight_path = number, path
        elif path is not self._flight_path:
            self._flight_path = None  # by two: an answer says nothing of either

    def flight_was_answered(self) -> None:
        """The peer's Finished has come."""
        if self._flight_path is not None:
            self._flight_path.budget.is_proven = True

    # ---- checks of ours

    def build_check(self, path: Path) -> bytes | None:
        """Build a check to send by this path; None where the client's password is not known."""
        credentials = path.credentials
        if credentials is None or not credentials.remote_pwd:
            return None
        transaction = self._random_bytes(TRANSACTION_ID_BYTES)
        key = credentials.remote_pwd.encode()
        self._checks[transaction] = (path, key)
        if len(self._checks) > MOST_CHECKS:
            del self._checks[next(iter(self._checks))]
        return build_binding_request(
            transaction,
            f"{credentials.remote_ufrag.decode()}:{credentials.ufrag}",
            key,
            priority=_PRIORITY,
            ice_controlling=None,
            ice_controlled=int.from_bytes(transaction[:8]),
        )

    def receive_answer(self, datagram: bytes) -> Path | None:
        """Take a STUN response of the client; gives the path that it was asked by, None if it answers no check of ours."""
        try:
            answer = parse_binding_response(datagram)
        except StunError:
            return None
        path, key = self._checks.get(answer.transaction_id, (None, b""))
        if path is None or not verify_integrity(answer, key):
            return None
        # Any answer will do, a role conflict too: whoever made it has read the transaction, and has the client's password.
        path.budget.is_proven = True
        return path

    # ---- reports of ours

    def draw_shift(self) -> int:
        """Say by how much a report's time shall be off, in 1/65536 s."""
        return int.from_bytes(self._random_bytes(4)) >> (32 - REPORT_SHIFT_BITS)

    def note_report(self, last_report: int, path: Path) -> None:
        """A report goes out by this path that the client will name so."""
        self._reports[last_report] = path
        if len(self._reports) > MOST_REPORTS:
            del self._reports[next(iter(self._reports))]

    def receive_block(self, block: ReportBlock) -> bool:
        """Take what the client says of our stream; True if the time that it names is one that was off."""
        if not self._reports or not block.last_report:
            return False
        path = self._reports.get(block.last_report)
        if path is not None:
            path.budget.is_proven = True
            return True
        self._misses += 1
        if self._misses >= MOST_MISSES:
            self._misses = 0
            self._reports.clear()
        return False
