"""The RTCP of one call: what the client's reports tell us, and our own about both directions (RFC 3550 section 6.4).

Owns: round-trip time, when a report of ours is due, and what stands in it. Does not own: encryption and sending
(core/call/session.py), the counting of one stream (core/call/streams.py).
"""

from voicefleet_dataplane.core.call.streams import CLOCK_RATE, ReceiveStream, SendStream, ntp_from_unix, round_trip_s
from voicefleet_dataplane.wire.rtcp import Reports, build_report

_REPORT_GAP_S = 0.5


class CallReports:
    """Made by a session, which shares its streams: they are counted on the hot path, and reported here."""

    __slots__ = ("_answered_at", "_sending", "_streams", "_wall_offset_s", "rtt_s")

    def __init__(self, sending: SendStream, streams: dict[int, ReceiveStream], wall_offset_s: float) -> None:
        """`streams` by SSRC; `wall_offset_s` is Unix time less `now`, in seconds."""
        self.rtt_s: float | None = None  # as of the client's last report that told one
        self._sending = sending
        self._streams = streams
        self._wall_offset_s = wall_offset_s
        self._answered_at = -float("inf")

    def take(self, theirs: Reports, now: float) -> bool:
        """Learn from an authentic compound; True if it reports about our stream: the client has found it."""
        found = False
        for block in theirs.blocks:
            if block.ssrc == self._sending.ssrc:
                found = True
                self._sending.loss = block.fraction_lost / 256
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

    def answer(self, theirs: Reports, cname: str, now: float) -> bytes | None:
        """Build our report in answer to a compound; None while none is due."""
        # Each SR is answered, or a browser shows no round trip; an RR alone now and then, so that we learn ours.
        gap_s = _REPORT_GAP_S / 2 if theirs.senders else _REPORT_GAP_S * 2
        if now - self._answered_at < gap_s:
            return None
        self._answered_at = now
        sender = self._sending.build_sender_info(ntp_from_unix(now + self._wall_offset_s), now)
        return build_report(sender, tuple(stream.build_block(now) for stream in self._streams.values()), cname)

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
