"""The RTCP of one call: what the client's reports tell us, and our own about both directions (RFC 3550 section 6.4).

Owns: round-trip time, when a report of ours is due, and what stands in it. Does not own: encryption and sending
(core/call/session.py), the counting of one stream (core/call/streams.py).
"""

from collections.abc import Callable

from voicefleet_dataplane.core.call.streams import CLOCK_RATE, ReceiveStream, SendStream, ntp_from_unix, round_trip_s
from voicefleet_dataplane.wire.rtcp import ReportBlock, Reports, build_report

_REPORT_GAP_S = 0.5
# RFC 3550 section 6.2: five seconds at most, less what a timer may be late. A relay's flow lives on what its owner sends, and
# while nobody speaks, this is all.
REPORTED_AT_LEAST_EVERY_S = 4.5


class CallReports:
    """Made by a session, which shares its streams: they are counted on the hot path, and reported here."""

    __slots__ = ("_answered_at", "_sending", "_streams", "_wall_offset_s", "due_at", "rtt_s")

    def __init__(self, sending: SendStream, streams: dict[int, ReceiveStream], wall_offset_s: float) -> None:
        """`streams` by SSRC; `wall_offset_s` is Unix time less `now`, in seconds."""
        self.rtt_s: float | None = None  # as of the client's last report that told one
        self._sending = sending
        self._streams = streams
        self._wall_offset_s = wall_offset_s
        self._answered_at = -float("inf")
        self.due_at = float("inf")  # when we report by ourselves

    def take(self, theirs: Reports, now: float, is_off: Callable[[ReportBlock], bool]) -> bool:
        """Learn from an authentic compound; True if it reports about our stream: the client has found it.

        `is_off` is told of each block about it, and says whether the time that it names was off (core/call/path_proof.py).
        """
        found = False
        for block in theirs.blocks:
            if block.ssrc == self._sending.ssrc:
                found = True
                self._sending.loss = block.fraction_lost / 256
                if not is_off(block):
                    rtt_s = round_trip_s(block, ntp_from_unix(now + self._wall_offset_s))
                    self.rtt_s = self.rtt_s if rtt_s is None else rtt_s
        for sender in theirs.senders:
            stream = self._streams.get(sender.ssrc)
            if stream is not None:
                stream.note_sender_report(sender, now)
        for ssrc in theirs.byes:
            if len(self._streams) > 1:
                self._streams.pop(ssrc, None)
        return found

    def is_due(self, theirs: Reports, now: float) -> bool:
        """Say whether a compound is to be answered by a report of ours."""
        # Each SR is answered, or a browser shows no round trip; an RR alone now and then, so that we learn ours.
        gap_s = _REPORT_GAP_S / 2 if theirs.senders else _REPORT_GAP_S * 2
        if now - self._answered_at < gap_s:
            return False
        self._answered_at = now
        return True

    def note_sent(self, now: float) -> None:
        """A report goes out, or the call is connected."""
        self.due_at = now + REPORTED_AT_LEAST_EVERY_S

    def build(self, cname: str, now: float, shift: int = 0) -> tuple[bytes, int]:
        """Build our report, and say by what LSR it will be named (0: it says nothing of a stream of ours, and will not be).

        `shift`: by how much its time is earlier, in 1/65536 s; the stream's is by as much, so that the pair is true.
        """
        at = now - shift / 65_536
        sender = self._sending.build_sender_info(ntp_from_unix(at + self._wall_offset_s), at)
        blocks = tuple(stream.build_block(now) for stream in self._streams.values())
        return build_report(sender, blocks, cname), sender.middle_ntp if sender.packets else 0

    @property
    def loss(self) -> float | None:
        """The share of the client's packets that did not come, 0 to 1; None before the first."""
        expected = sum(stream.expected for stream in self._streams.values())
        lost = sum(max(0, stream.lost) for stream in self._streams.values())
        return lost / expected if expected else None

    @property
    def jitter_s(self) -> float | None:
        """The jitter of what the client sends, in seconds; None before the first packet."""
        return max((stream.jitter / CLOCK_RATE for stream in self._streams.values()), default=None)
