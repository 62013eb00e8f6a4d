"""What a client's media packets hold: judged by what stands in clear, opened, read and counted.

Owns: the order of the checks, the streams by SSRC, the budgets. Does not own: what the packets mean (core/call/session.py).
Invariant: a packet gives its content or the one DropReason to count; nothing is opened that a budget refuses.
"""

from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.budgets import FAILED, Budgets
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.core.call.negotiation import Agreed
from voicefleet_dataplane.core.call.paths import Path
from voicefleet_dataplane.core.call.srtp import Srtp, SrtpFailure
from voicefleet_dataplane.core.call.streams import ReceiveStream
from voicefleet_dataplane.wire.opus import FRAME_TICKS, parse_duration_ticks
from voicefleet_dataplane.wire.rtcp import Reports, parse_rtcp
from voicefleet_dataplane.wire.rtp import (
    FIXED_HEADER_BYTES,
    RtpPacket,
    parse_rtp,
    peek_payload_type,
    peek_sequence,
    peek_ssrc,
)

MAX_SSRCS = 4  # a client that changes its microphone starts a new SSRC; more at a time is not a person
# In one call: libsrtp and we remember how far each one was, or what was recorded of it could be played again.
MAX_SSRCS_EVER = 64
UNOPENED = 50  # packets in a row: a second of speech
MAX_EARLY_PACKETS = 8  # 160 ms of speech
PADDING_TICKS = 120  # what a packet without audio costs: some stacks probe the path with bursts of them

_DROPS = {
    SrtpFailure.AUTHENTICATION: DropReason.SRTP_AUTH,
    SrtpFailure.REPLAY: DropReason.SRTP_REPLAY,
    SrtpFailure.MALFORMED: DropReason.SRTP_MALFORMED,
}


class Incoming:
    """One client's media."""

    __slots__ = ("_early", "_ever", "_rtcp_index", "_unopened", "budgets", "streams")

    def __init__(self) -> None:
        self.budgets = Budgets()
        self.streams: dict[int, ReceiveStream] = {}  # those that are counted now
        self._ever: dict[int, ReceiveStream] = {}
        self._rtcp_index = -1
        self._unopened = 0  # packets since the last one that opened
        self._early: list[tuple[bytes, Path]] = []

    def hold_early(self, datagram: bytes, path: Path) -> bool:
        """Keep the client's first words until there are keys; False when there is no room."""
        if len(self._early) >= MAX_EARLY_PACKETS:
            return False
        self._early.append((datagram, path))
        return True

    def take_early(self) -> list[tuple[bytes, Path]]:
        """Give back what was kept."""
        early, self._early = self._early, []
        return early

    def explain(self, reason: EndReason) -> EndReason:
        """Say why nobody was heard. Forged packets can change this word, and never when a call ends."""
        return EndReason.SRTP_FAILED if reason is EndReason.IDLE and self._unopened >= UNOPENED else reason

    def is_newest(self, packet: RtpPacket) -> bool:
        """Say whether no later packet of its stream has come before this one, which has been opened."""
        return self.streams[packet.ssrc].highest & 0xFFFF == packet.sequence

    def is_newest_rtcp(self, datagram: bytes, srtp: Srtp) -> bool:
        """The same of a compound; its number stands in clear and is authentic."""
        index = srtp.rtcp_index(datagram)
        is_newest = index > self._rtcp_index
        self._rtcp_index = max(index, self._rtcp_index)
        return is_newest

    def open_rtp(self, datagram: bytes, srtp: Srtp, agreed: Agreed, now: float) -> RtpPacket | DropReason:
        """An SRTP packet: the hot path."""
        if len(datagram) < FIXED_HEADER_BYTES:
            return DropReason.SRTP_MALFORMED
        payload_type = peek_payload_type(datagram)
        is_audio = payload_type == agreed.payload_type
        if not is_audio and payload_type != agreed.telephone_event_type:
            return DropReason.RTP_UNEXPECTED
        budget = self.budgets.audio if is_audio else self.budgets.keypad
        if budget.is_spent(now):
            return DropReason.AUDIO_RATE if is_audio else DropReason.KEYPAD_RATE
        stream = self.streams.get(peek_ssrc(datagram))
        if stream is None:
            refusal = self._refusal_of_new(peek_ssrc(datagram), peek_sequence(datagram), now)
            if refusal is not None:
                return refusal
        clear = srtp.unprotect_untrusted(datagram)
        if clear is None:
            self._unopened += 1
            self.budgets.note_failed_rtp(now, known=stream is not None)
            return _DROPS[srtp.failure]
        self._unopened = 0
        packet = parse_rtp(clear)
        if packet is None:
            budget.take(FRAME_TICKS if is_audio else 1, now)
            return DropReason.SRTP_MALFORMED
        cost = FRAME_TICKS if packet.payload else PADDING_TICKS
        budget.take((parse_duration_ticks(packet.payload) or cost) if is_audio else 1, now)
        if stream is None:
            stream = self._admit(packet, now)
        if packet.payload:
            stream.note(packet.sequence, packet.timestamp, now)
        else:
            stream.note_padding(packet.sequence)
        return packet

    def _refusal_of_new(self, ssrc: int, sequence: int, now: float) -> DropReason | None:
        """Why a packet of a stream that is not counted now is not even opened."""
        before = self._ever.get(ssrc)
        if before is not None:
            return None if before.is_ahead(sequence) else DropReason.SRTP_REPLAY
        # Whoever has the keys could otherwise make libsrtp and us keep state for any number of SSRCs.
        if len(self._ever) >= MAX_SSRCS_EVER:
            return DropReason.RTP_UNEXPECTED
        return DropReason.AUDIO_RATE if self.budgets.unknown_ssrc.is_spent(now) else None

    def _admit(self, packet: RtpPacket, now: float) -> ReceiveStream:
        """Count a stream, now that it is authentic; the one that was silent longest gives way to it."""
        if len(self.streams) >= MAX_SSRCS:
            del self.streams[min(self.streams, key=lambda ssrc: self.streams[ssrc].heard_at)]
        stream = self._ever.get(packet.ssrc)
        if stream is None:
            stream = self._ever[packet.ssrc] = ReceiveStream(packet.ssrc, packet.sequence, packet.timestamp, now)
        self.streams[packet.ssrc] = stream
        return stream

    def open_rtcp(self, datagram: bytes, srtp: Srtp, now: float) -> Reports | DropReason:
        """An SRTCP compound."""
        budget = self.budgets.rtcp
        if budget.is_spent(now):
            return DropReason.RTCP_RATE
        clear = srtp.unprotect_rtcp_untrusted(datagram)
        budget.take(FAILED if clear is None else 1, now)
        if clear is None:
            return _DROPS[srtp.failure]
        reports = parse_rtcp(clear)
        return DropReason.SRTP_MALFORMED if reports is None else reports
