"""RTP streams of one call as numbers: what has come, what has gone, and the reports about both (RFC 3550 section 6.4).

Owns sequence numbers, loss, jitter and round trip. Does not own packets or their encryption.
Every clock here is the 48 kHz of Opus in RTP (RFC 7587 section 4.1).
"""

from voicefleet_dataplane.wire.rtcp import ReportBlock, SenderInfo

CLOCK_RATE = 48_000
_NTP_SECOND = 1 << 32
_HALF_SEQUENCE = 0x8000
_LARGEST_RTT_S = 60.0


class ReceiveStream:
    """What a client sends under one SSRC."""

    __slots__ = (
        "_arrival",
        "_base",
        "_expected_before",
        "_last_report",
        "_last_report_at",
        "_received_before",
        "_timestamp",
        "highest",
        "jitter",
        "received",
        "ssrc",
    )

    def __init__(self, ssrc: int, sequence: int, timestamp: int, now: float) -> None:
        self.ssrc = ssrc
        self.highest = self._base = sequence  # extended by cycles
        self.received = 0
        self.jitter = 0.0
        self._arrival = int(now * CLOCK_RATE)
        self._timestamp = timestamp
        self._expected_before = 0
        self._received_before = 0
        self._last_report = 0
        self._last_report_at = 0.0

    @property
    def heard_at(self) -> float:
        """When its last packet with audio came, in units of the clock; of a new one: its first."""
        return self._arrival

    def is_ahead(self, sequence: int) -> bool:
        """Say whether a packet is later than all that came."""
        return 0 < (sequence - self.highest) & 0xFFFF < _HALF_SEQUENCE

    def note(self, sequence: int, timestamp: int, now: float) -> None:
        """Count one packet (appendix A.1 without probation: the packet is authentic; and A.8)."""
        self.note_padding(sequence)
        arrival = int(now * CLOCK_RATE)
        step = (timestamp - self._timestamp) & 0xFFFFFFFF
        if step >= 0x80000000:
            step -= 0x100000000
        self.jitter += (abs(arrival - self._arrival - step) - self.jitter) / 16
        self._arrival = arrival
        self._timestamp = timestamp

    def note_padding(self, sequence: int) -> None:
        """Count one packet without audio: it has a number and no time, whatever its time stamp says."""
        self.received += 1
        ahead = (sequence - self.highest) & 0xFFFF
        if ahead < _HALF_SEQUENCE:
            self.highest += ahead

    @property
    def expected(self) -> int:
        """How many packets the sender has sent since the first that came."""
        return self.highest - self._base + 1

    @property
    def lost(self) -> int:
        """Packets missing so far; duplicates can make it negative."""
        return self.expected - self.received

    def note_sender_report(self, report: SenderInfo, now: float) -> None:
        """Remember the sender's report: our next block names it, and the sender computes its round trip."""
        self._last_report = report.middle_ntp
        self._last_report_at = now

    def build_block(self, now: float) -> ReportBlock:
        """The report block about this stream; the fraction covers the time since the last block (A.3)."""
        expected, received = self.expected, self.received
        expected_now = expected - self._expected_before
        lost_now = expected_now - (received - self._received_before)
        self._expected_before, self._received_before = expected, received
        fraction = min(255, (lost_now << 8) // expected_now) if expected_now > 0 and lost_now > 0 else 0
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=fraction,
            cumulative_lost=expected - received,
            highest_sequence=self.highest & 0xFFFFFFFF,
            jitter=int(self.jitter) & 0xFFFFFFFF,
            last_report=self._last_report,
            delay_since=min(0xFFFFFFFF, int((now - self._last_report_at) * 65_536)) if self._last_report else 0,
        )


class SendStream:
    """What we send under our SSRC. Offsets are random (RFC 3550 section 5.1), given by the caller."""

    __slots__ = (
        "_sent_at",
        "loss",
        "packets",
        "payload_bytes",
        "sequence_offset",
        "ssrc",
        "timestamp",
        "timestamp_offset",
    )

    def __init__(self, ssrc: int, sequence_offset: int, timestamp_offset: int) -> None:
        self.ssrc = ssrc
        self.sequence_offset = sequence_offset
        self.timestamp_offset = timestamp_offset
        self.timestamp = timestamp_offset
        self.packets = 0
        self.payload_bytes = 0
        self.loss = 0.0  # fraction, as the client reported it last
        self._sent_at = 0.0

    def note(self, timestamp: int, payload_bytes: int, now: float) -> None:
        """Count one packet that goes out."""
        self.packets += 1
        self.payload_bytes += payload_bytes
        self.timestamp = timestamp
        self._sent_at = now

    def build_sender_info(self, ntp: int, now: float) -> SenderInfo:
        """Our side of a sender report, with the RTP time that belongs to `ntp`."""
        since = int((now - self._sent_at) * CLOCK_RATE) if self.packets else 0
        return SenderInfo(self.ssrc, ntp, (self.timestamp + since) & 0xFFFFFFFF, self.packets, self.payload_bytes)


def ntp_from_unix(unix_s: float) -> int:
    """A 64-bit NTP timestamp (RFC 3550 section 4)."""
    return int((unix_s + 2_208_988_800) * _NTP_SECOND) & 0xFFFFFFFFFFFFFFFF


def round_trip_s(block: ReportBlock, ntp_now: int) -> float | None:
    """How long a report of ours took there and back, less the time it lay there; None when the block names none."""
    if not block.last_report:
        return None
    elapsed = (((ntp_now >> 16) & 0xFFFFFFFF) - block.last_report - block.delay_since) & 0xFFFFFFFF
    seconds = elapsed / 65_536
    if seconds > 65_536 - 1:  # a clock step of a few ticks: less than nothing is nothing
        return 0.0
    return seconds if seconds <= _LARGEST_RTT_S else None
