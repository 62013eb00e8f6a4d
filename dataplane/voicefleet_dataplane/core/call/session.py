"""One call on the wire, from the answered offer to its end: ICE, DTLS, SRTP and reports put together.

::

    new ──first authentic check──▶ connecting ──handshake, fingerprint right──▶ connected
     └──────────────┴──────────────────────── any limit, close, hang-up ────────────┴──▶ ended(reason)

Owns the order of things, the limits (setup, consent, idle, duration), the amplification budget, and the numbers of a
call. Does not own the socket, SCTP (given out and taken in as packets), or what the audio means (a Listener).

Invariants
- Input gives None or the one DropReason to count; output is appended to the transmit list that all calls share.
- Until the handshake is complete, a path gets at most three times the bytes that it sent us.
- Nothing is sent but to the path that ICE selected, except the answer to a check.
- Once ended, a call sends nothing more and its reason never changes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.http_api import SessionStatus
from voicefleet_dataplane.core.call.dtls import Dtls, DtlsState
from voicefleet_dataplane.core.call.ice import IceAgent, Path
from voicefleet_dataplane.core.call.negotiation import Agreed, Description
from voicefleet_dataplane.core.call.srtp import Srtp, SrtpFailure
from voicefleet_dataplane.core.call.streams import CLOCK_RATE, ReceiveStream, SendStream, ntp_from_unix, round_trip_s
from voicefleet_dataplane.wire.rtcp import build_bye, build_report, parse_rtcp
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp, parse_rtp, peek_ssrc
from voicefleet_dataplane.wire.stun import BindingRequest

AMPLIFICATION_LIMIT = 3
MAX_EARLY_PACKETS = 8  # 160 ms of speech
MAX_SSRCS = 4  # a client that changes its microphone starts a new SSRC; more at a time is not a person
_REPORT_GAP_S = 0.5
_NEVER = float("inf")

_SRTP_DROPS = {
    SrtpFailure.AUTHENTICATION: DropReason.SRTP_AUTH,
    SrtpFailure.REPLAY: DropReason.SRTP_REPLAY,
    SrtpFailure.MALFORMED: DropReason.SRTP_MALFORMED,
}


class SessionState(StrEnum):
    """Where a call is."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    ENDED = "ended"


class EndReason(StrEnum):
    """Why a call ended: a metric label and a field of its record."""

    HANG_UP = "hang_up"  # the control API, or the backend
    BACKEND_CLOSED = "backend_closed"  # the agent went away without a word
    CLOSED_BY_CLIENT = "closed_by_client"  # DTLS close_notify
    CONSENT_EXPIRED = "consent_expired"
    SETUP_TIMEOUT = "setup_timeout"
    MAX_DURATION = "max_duration"
    IDLE = "idle"
    FINGERPRINT_MISMATCH = "fingerprint_mismatch"
    DTLS_FAILED = "dtls_failed"
    DRAIN_DEADLINE = "drain_deadline"
    REPLACED = "replaced"  # its client has made another peer connection, and another call
    BACKEND_FAILED = "backend_failed"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a call may take over what; 0 switches idle off."""

    setup_s: float = 30.0
    idle_s: float = 60.0
    duration_s: float = 3_600.0


class Listener(Protocol):
    """Who uses the call: the shell, which joins it to SCTP and a backend."""

    def on_connected(self) -> None:
        """Media and data can be sent."""

    def on_audio(self, packet: RtpPacket) -> None:
        """An authentic audio packet."""

    def on_telephone_event(self, packet: RtpPacket) -> None:
        """An authentic packet of the client's keypad (RFC 4733)."""

    def on_sctp(self, packet: bytes) -> None:
        """An authentic SCTP packet."""

    def on_ending(self) -> None:
        """Last words can be sent now."""

    def on_ended(self, reason: EndReason) -> None:
        """Said once."""


class Session:
    """One call. Made by core/transceiver/transceiver.py."""

    __slots__ = (
        "_answered_report_at",
        "_drops",
        "_dtls",
        "_early",
        "_idle_s",
        "_limits",
        "_listener",
        "_mid_extension",
        "_now",
        "_on_ended",
        "_srtp",
        "_streams",
        "_transmit",
        "_wall_offset_s",
        "active_at",
        "agreed",
        "audio_at",
        "began_at",
        "bytes_in",
        "bytes_out",
        "checked_at",
        "connected_at",
        "description",
        "end_detail",
        "end_reason",
        "ice",
        "packets_in",
        "packets_out",
        "rtt_s",
        "scheduled_at",
        "sending",
        "started_at",
        "state",
        "we_are_client",
    )

    def __init__(
        self,
        agreed: Agreed,
        description: Description,
        ice: IceAgent,
        dtls: Dtls,
        sending: SendStream,
        limits: Limits,
        transmit: list[tuple[bytes, Address]],
        drops: dict[DropReason, int],
        on_ended: Callable[["Session"], None],
        *,
        we_are_client: bool,
        wall_offset_s: float,
        now: float,
    ) -> None:
        self.agreed = agreed
        self.description = description
        self.ice = ice
        self.sending = sending
        self.state = SessionState.NEW
        self.end_reason: EndReason | None = None
        self.end_detail = ""
        self.we_are_client = we_are_client
        self.rtt_s: float | None = None
        self.packets_in = self.packets_out = self.bytes_in = self.bytes_out = 0
        self.started_at = self.began_at = now  # this session; the call, which may have had another one before
        self.checked_at: float | None = None
        self.connected_at: float | None = None
        self.audio_at: float | None = None
        self.active_at = now
        self.scheduled_at = _NEVER  # the transceiver's timer for this call
        self._dtls = dtls
        self._drops = drops  # the transceiver's: for what we would have sent
        self._srtp: Srtp | None = None
        self._early: list[bytes] = []
        self._streams: dict[int, ReceiveStream] = {}
        self._limits = limits
        self._idle_s = 0.0 if description.terms.joins else limits.idle_s
        self._listener: Listener | None = None
        self._mid_extension = agreed.mid_extension
        self._transmit = transmit
        self._on_ended = on_ended
        self._wall_offset_s = wall_offset_s
        self._answered_report_at = -_NEVER
        self._now = now

    def agree(self, agreed: Agreed) -> None:
        """Go on as a later offer and its answer have settled."""
        self.agreed = agreed
        self._mid_extension = agreed.mid_extension  # until the client's reports say that it has found our stream

    def make_way(self) -> None:
        """Another session takes this one's call: its end is told to the client alone."""
        self._listener = None
        self.end(EndReason.REPLACED)

    def inherit(self, before: "Session") -> None:
        """Go on with the call of another session: no longer for it, and with its numbers."""
        self.began_at = before.began_at
        self.packets_in, self.packets_out = before.packets_in, before.packets_out
        self.bytes_in, self.bytes_out = before.bytes_in, before.bytes_out

    def attach(self, listener: Listener) -> None:
        """Say who uses the call; before the first packet."""
        self._listener = listener

    # ---- packets in; each gives the one reason if it was dropped

    def receive_check(
        self,
        request: BindingRequest,
        client: Address,
        destination: Address,
        prefix: bytes,
        now: float,
        bare: Address | None = None,
    ) -> DropReason | None:
        """A check that `ice.authenticate` has found authentic."""
        self._now = now
        answer = self.ice.accept(request, client, destination, prefix, now, bare)
        if isinstance(answer, DropReason):
            return answer
        path = self.ice.paths.get(client)
        if path is None:  # a role conflict: answered, and nothing learnt
            self._transmit.append((prefix + answer, destination))
            return None
        path.received_bytes += len(request.data)
        path.sent_bytes += len(answer)
        self._transmit.append((prefix + answer, destination))
        if self.state is SessionState.NEW:
            self.state = SessionState.CONNECTING
            self.checked_at = now
            if self.we_are_client:
                # Not waiting for nomination: it comes 50 ms later even on loopback.
                self._dtls.start(now)
        self._flush_dtls()
        return None

    def receive_dtls(self, datagram: bytes, path: Path, now: float) -> DropReason | None:
        """A DTLS datagram from a checked address."""
        self._now = now
        path.received_bytes += len(datagram)
        messages = self._dtls.receive_untrusted(datagram, now)
        self._after_dtls(now)
        if messages is None:
            return DropReason.DTLS_MALFORMED
        if messages and self._listener is not None and self.state is SessionState.CONNECTED:
            self.bytes_in += len(datagram)
            for message in messages:
                self._listener.on_sctp(message)
        return None

    def receive_rtp(self, datagram: bytes, now: float) -> DropReason | None:
        """An SRTP packet from a checked address: the hot path."""
        srtp = self._srtp
        if srtp is None:
            return self._hold_early(datagram)
        self._now = now
        # Whoever has the keys could otherwise make libsrtp and us keep state for any number of SSRCs.
        stream = self._streams.get(peek_ssrc(datagram))
        if stream is None and len(self._streams) >= MAX_SSRCS:
            return DropReason.RTP_UNEXPECTED
        clear = srtp.unprotect_untrusted(datagram)
        if clear is None:
            return _SRTP_DROPS[srtp.failure]
        packet = parse_rtp(clear)
        if packet is None:
            return DropReason.SRTP_MALFORMED
        is_audio = packet.payload_type == self.agreed.payload_type
        if not is_audio and packet.payload_type != self.agreed.telephone_event_type:
            return DropReason.RTP_UNEXPECTED
        if stream is None:
            stream = ReceiveStream(packet.ssrc, packet.sequence, packet.timestamp, now)
            self._streams[packet.ssrc] = stream
            if self.audio_at is None:
                self.audio_at = now
        stream.note(packet.sequence, packet.timestamp, now)
        self.active_at = now
        self.packets_in += 1
        self.bytes_in += len(datagram)
        if self._listener is not None:
            if is_audio:
                self._listener.on_audio(packet)
            else:
                self._listener.on_telephone_event(packet)
        return None

    def receive_rtcp(self, datagram: bytes, now: float) -> DropReason | None:
        """An SRTCP compound from a checked address."""
        srtp = self._srtp
        if srtp is None:
            return DropReason.SRTP_NOT_READY
        self._now = now
        clear = srtp.unprotect_rtcp_untrusted(datagram)
        if clear is None:
            return _SRTP_DROPS[srtp.failure]
        reports = parse_rtcp(clear)
        if reports is None:
            return DropReason.SRTP_MALFORMED
        self.bytes_in += len(datagram)
        ntp = ntp_from_unix(now + self._wall_offset_s)
        for block in reports.blocks:
            if block.ssrc == self.sending.ssrc:
                self._mid_extension = (
                    b""  # the client has found our stream: MID has done its work (RFC 9143 section 15)
                )
                self.sending.loss = block.fraction_lost / 256
                rtt_s = round_trip_s(block, ntp)
                self.rtt_s = self.rtt_s if rtt_s is None else rtt_s
        for sender in reports.senders:
            stream = self._streams.get(sender.ssrc)
            if stream is not None:
                stream.note_sender_report(sender, now)
        for ssrc in reports.byes:
            if len(self._streams) > 1:
                self._streams.pop(ssrc, None)
        # Each SR is answered, or a browser shows no round trip; an RR alone now and then, so that we learn ours.
        if reports.senders or now - self._answered_report_at >= 2 * _REPORT_GAP_S:
            self._report(srtp, ntp, now)
        return None

    # ---- what the listener may do

    def send_audio(self, payload: bytes, sequence: int, timestamp: int, *, marker: bool = False) -> bool:
        """Send one Opus packet in the caller's own numbering; False if nobody would get it."""
        srtp, path = self._srtp, self.ice.selected
        if srtp is None or path is None or self.state is not SessionState.CONNECTED or not self.agreed.client_receives:
            return False
        sending = self.sending
        rtp_timestamp = (timestamp + sending.timestamp_offset) & 0xFFFFFFFF
        clear = build_rtp(
            RtpPacket(
                marker,
                self.agreed.payload_type,
                (sequence + sending.sequence_offset) & 0xFFFF,
                rtp_timestamp,
                sending.ssrc,
                payload,
            ),
            self._mid_extension,
        )
        datagram = srtp.protect(clear)
        if datagram is None:
            return False
        sending.note(rtp_timestamp, len(payload), self._now)
        self.packets_out += 1
        self.bytes_out += len(datagram)
        self._transmit.append(path.media(datagram))
        return True

    def send_sctp(self, packet: bytes, now: float) -> bool:
        """Send one SCTP packet; False if there is no association."""
        self._now = now
        sent = self._dtls.send(packet)
        self._flush_dtls()
        return sent

    def note_activity(self, now: float) -> None:
        """The client said something in a data channel: the call is not idle."""
        self.active_at = now

    def end(self, reason: EndReason, detail: str = "") -> None:
        """End the call, telling the client if there is a way. The detail is for logs and records."""
        if self.end_reason is not None:
            return
        self.end_reason = reason
        self.end_detail = detail
        if self._listener is not None and self.state is SessionState.CONNECTED:
            self._listener.on_ending()
        path = self.ice.selected
        if self._srtp is not None and path is not None and self.sending.packets:
            bye = self._srtp.protect_rtcp(build_bye(self.sending.ssrc, self.agreed.cname))
            self._transmit.append(path.media(bye))
        self._dtls.close()
        self._flush_dtls()
        self._drops[DropReason.SRTP_NOT_READY] += len(self._early)
        self._early.clear()
        self.state = SessionState.ENDED
        self._on_ended(self)
        if self._listener is not None:
            self._listener.on_ended(reason)
            self._listener = None

    # ---- time

    def deadline(self) -> float:
        """When `advance` wants to be called at the latest."""
        if self.state is SessionState.ENDED:
            return _NEVER
        times = [self.began_at + self._limits.duration_s]
        if self.state is not SessionState.CONNECTED:
            times.append(self.started_at + self._limits.setup_s)
        elif self._idle_s:
            times.append(self.active_at + self._idle_s)
        consent = self.ice.deadline()
        if consent is not None:
            times.append(consent)
        dtls = self._dtls.deadline()
        if dtls is not None:
            times.append(dtls)
        return min(times)

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._now = now
        if self.state is SessionState.ENDED:
            return
        if not self.ice.expire(now):
            self.end(EndReason.CONSENT_EXPIRED)
            return
        if now >= self.began_at + self._limits.duration_s:
            self.end(EndReason.MAX_DURATION)
            return
        if self.state is not SessionState.CONNECTED:
            if now >= self.started_at + self._limits.setup_s:
                self.end(EndReason.SETUP_TIMEOUT)
                return
        elif self._idle_s and now >= self.active_at + self._idle_s:
            self.end(EndReason.IDLE)
            return
        dtls = self._dtls.deadline()
        if dtls is not None and now >= dtls:
            self._dtls.advance(now)
            self._after_dtls(now)

    def status(self, now: float) -> SessionStatus:
        """The call in numbers. Loss and jitter are those of what the client sends."""
        path = self.ice.selected
        streams = self._streams.values()
        expected = sum(stream.expected for stream in streams)
        lost = sum(max(0, stream.lost) for stream in streams)
        jitter = max((stream.jitter for stream in streams), default=None)
        return SessionStatus(
            call_id=self.agreed.call_id,
            ufrag=self.ice.ufrag,
            state=self.state,
            client=str(path.client) if path else None,
            relay=str(path.destination) if path and path.prefix else None,
            age_s=round(now - self.began_at, 3),
            rtt_ms=None if self.rtt_s is None else round(self.rtt_s * 1e3, 2),
            jitter_ms=None if jitter is None else round(jitter / CLOCK_RATE * 1e3, 2),
            loss=lost / expected if expected else None,
            packets_in=self.packets_in,
            packets_out=self.packets_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            ended_reason=self.end_reason,
            ended_detail=self.end_detail or None,
        )

    # ---- inside

    def _hold_early(self, datagram: bytes) -> DropReason | None:
        """Keep the client's first words: media goes through a relay's kernel and overtakes the last flight of DTLS."""
        if len(self._early) >= MAX_EARLY_PACKETS or self.state is SessionState.ENDED:
            return DropReason.SRTP_NOT_READY
        self._early.append(datagram)
        return None

    def _take_early(self, now: float) -> None:
        early, self._early = self._early, []
        for datagram in early:
            reason = self.receive_rtp(datagram, now)
            if reason is not None:
                self._drops[reason] += 1

    def _after_dtls(self, now: float) -> None:
        self._flush_dtls()
        if self._dtls.state is DtlsState.CONNECTED:
            if self._srtp is None and self._dtls.keys is not None:
                self._srtp = Srtp(self._dtls.keys)
                self.state = SessionState.CONNECTED
                self.connected_at = self.active_at = now
                if self._listener is not None:
                    self._listener.on_connected()
                if self.state is SessionState.CONNECTED:
                    self._take_early(now)
        elif self._dtls.state is DtlsState.CLOSED:
            self.end(EndReason.CLOSED_BY_CLIENT)
        elif self._dtls.state is DtlsState.FAILED:
            mismatch = self._dtls.failure == EndReason.FINGERPRINT_MISMATCH
            self.end(EndReason.FINGERPRINT_MISMATCH if mismatch else EndReason.DTLS_FAILED)

    def _flush_dtls(self) -> None:
        datagrams = self._dtls.poll()
        path = self.ice.selected
        if not datagrams or path is None:
            return
        for datagram in datagrams:
            proven = self._srtp is not None or self._dtls.keys is not None
            if not proven and path.sent_bytes + len(datagram) > AMPLIFICATION_LIMIT * path.received_bytes:
                self._drops[DropReason.DTLS_AMPLIFICATION] += 1  # repeated soon, when the client has sent more
                continue
            path.sent_bytes += len(datagram)
            self.bytes_out += len(datagram)
            self._transmit.append((path.prefix + datagram, path.destination))

    def _report(self, srtp: Srtp, ntp: int, now: float) -> None:
        path = self.ice.selected
        if path is None or now - self._answered_report_at < _REPORT_GAP_S / 2:
            return
        self._answered_report_at = now
        blocks = tuple(stream.build_block(now) for stream in self._streams.values())
        report = srtp.protect_rtcp(build_report(self.sending.build_sender_info(ntp, now), blocks, self.agreed.cname))
        self.bytes_out += len(report)
        self._transmit.append(path.media(report))
