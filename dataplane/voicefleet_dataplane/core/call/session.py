"""One call on the wire, from the answered offer to its end: ICE, DTLS, SRTP and reports put together.

::

    new ──first authentic check──▶ connecting ──handshake, fingerprint right──▶ connected
     └──────────────┴──────────────────────── any limit, close, hang-up ────────────┴──▶ [ending ──▶] ended(reason)

A call that ends is over for all but its client at once; for that one when its data channels have closed, in a second at most.

Owns: the order of things, the counters of packets and bytes. Does not own: the socket, which paths are alive (core/call/paths.py), the
other limits (core/call/lifetime.py), what opens packets (core/call/incoming.py), by which path they leave (core/call/outgoing.py), SCTP (given out and taken in as
packets), what the audio means (a Listener), what RTCP says (core/call/reports.py), the call in numbers for others (core/call/status.py).

Invariants
- Input gives None or the one DropReason to count; output is appended to the transmit list that all calls share.
- A path gets at most three times the bytes that it sent us until it has proved that it receives (core/call/path_budget.py), media included.
- Nothing is sent but to the path that ICE selected, except the answer to a check, and what a path without proof may not have yet.
- From its end on a call sends no audio, and its reason never changes. Once ended, it sends nothing more.
- While it is connected, its client hears a report of ours at least each five seconds (RFC 3550 section 6.2).
- What its client may make us do is bounded in time (core/call/budgets.py), whatever keys it has.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, InitVar, dataclass, field

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.budgets import FAILED
from voicefleet_dataplane.core.call.dtls import Dtls, DtlsState
from voicefleet_dataplane.core.call.ice import IceAgent
from voicefleet_dataplane.core.call.incoming import Incoming
from voicefleet_dataplane.core.call.lifetime import Lifetime, Use
from voicefleet_dataplane.core.call.model import LAST_WORDS_S, EndReason, Limits, Listener, SessionState
from voicefleet_dataplane.core.call.negotiation import Agreed, Description
from voicefleet_dataplane.core.call.outgoing import Outgoing
from voicefleet_dataplane.core.call.paths import Path
from voicefleet_dataplane.core.call.reports import CallReports
from voicefleet_dataplane.core.call.srtp import Srtp
from voicefleet_dataplane.core.call.streams import SendStream
from voicefleet_dataplane.wire.rtcp import build_bye
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp
from voicefleet_dataplane.wire.stun import BindingRequest

_NEVER = float("inf")
_CARRIES_DATA = frozenset({SessionState.CONNECTED, SessionState.ENDING})


@dataclass(slots=True, eq=False, repr=False)
class Session:
    """One call. Made by core/transceiver/calls.py; times are of the caller's monotonic clock, in seconds."""

    agreed: Agreed
    description: Description
    ice: IceAgent
    _dtls: Dtls
    sending: SendStream
    _limits: Limits
    _transmit: list[tuple[bytes, Address]]
    _drops: dict[DropReason, int]  # the transceiver's: for what we would have sent
    _on_ended: Callable[["Session"], None]
    _on_left: Callable[["Session"], None]
    random_bytes: InitVar[Callable[[int], bytes]]
    _: KW_ONLY
    we_are_client: bool
    wall_offset_s: InitVar[float]  # Unix time less `now`
    now: InitVar[float]

    state: SessionState = field(default=SessionState.NEW, init=False)
    end_reason: EndReason | None = field(default=None, init=False)
    end_detail: str = field(default="", init=False)
    lifetime: Lifetime = field(init=False)
    checked_at: float | None = field(default=None, init=False)
    connected_at: float | None = field(default=None, init=False)
    audio_at: float | None = field(default=None, init=False)
    scheduled_at: float = field(default=_NEVER, init=False)  # the transceiver's timer for this call
    packets_in: int = field(default=0, init=False)
    packets_out: int = field(default=0, init=False)
    bytes_in: int = field(default=0, init=False)
    bytes_out: int = field(default=0, init=False)
    reports: CallReports = field(init=False)
    _srtp: Srtp | None = field(default=None, init=False)
    _leaves_at: float = field(default=_NEVER, init=False)
    _incoming: Incoming = field(default_factory=Incoming, init=False)
    _outgoing: Outgoing = field(init=False)
    _listener: Listener | None = field(default=None, init=False)
    _mid_extension: bytes = field(init=False)  # until the client's reports say that it has found our stream
    _now: float = field(init=False)

    def __post_init__(self, random_bytes: Callable[[int], bytes], wall_offset_s: float, now: float) -> None:
        self._now = now
        self.lifetime = Lifetime(self._limits, now)
        self.reports = CallReports(self.sending, self._incoming.streams, wall_offset_s)
        cname = self.agreed.cname
        self._outgoing = Outgoing(self.ice, self.reports, cname, self._transmit, self._drops, random_bytes)
        self._mid_extension = self.agreed.mid_extension

    def agree(self, agreed: Agreed) -> None:
        """Go on as a later offer and its answer have settled."""
        self.agreed = agreed
        self._mid_extension = agreed.mid_extension

    def make_way(self) -> None:
        """Another session takes this one's call: its end is told to the client alone."""
        self._listener = None
        self.end(EndReason.REPLACED)

    def inherit(self, before: "Session") -> None:
        """Go on with the call of another session: no longer for it, and with its numbers."""
        self.lifetime.began_at = before.lifetime.began_at
        self.packets_in, self.packets_out = before.packets_in, before.packets_out
        self.bytes_in, self.bytes_out = before.bytes_in, before.bytes_out
        self._incoming.budgets = before._incoming.budgets  # noqa: SLF001  # another of this class

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
        self._transmit.append((prefix + answer, destination))
        path = self.ice.paths.get(client)
        if path is None:  # a role conflict: answered, and nothing learnt
            return None
        path.budget.received_bytes += len(request.data)
        path.budget.sent_bytes += len(answer)
        if self.state is SessionState.NEW:
            self.state = SessionState.CONNECTING
            self.checked_at = now
            if self.we_are_client:
                # Not waiting for nomination: it comes 50 ms later even on loopback.
                self._dtls.start(now)
        self._flush_dtls()
        self._outgoing.ask_for_proof(now)
        return None

    def receive_answer(self, datagram: bytes, now: float) -> DropReason | None:
        """A STUN response from a checked address: to a check of ours, or to nothing."""
        path = self._outgoing.proof.receive_answer(datagram)
        if path is None:
            return DropReason.STUN_NOT_REQUEST
        path.checked_at = now
        return None

    def receive_dtls(self, datagram: bytes, path: Path, now: float) -> DropReason | None:
        """A DTLS datagram from a checked address."""
        self._now = now
        path.budget.received_bytes += len(datagram)
        budget = self._incoming.budgets.data if self._srtp is not None else None
        if budget is not None and budget.is_spent(now):
            return DropReason.DATA_RATE
        messages = self._dtls.receive_untrusted(datagram, now)
        if budget is not None:
            budget.take(len(messages) if messages else FAILED, now)
        self._after_dtls(now)
        if messages is None:
            return DropReason.DTLS_MALFORMED
        if messages:  # authentic, and new: records have numbers
            path.heard_at = now
        if messages and self._listener is not None and self.state in _CARRIES_DATA:
            self.bytes_in += len(datagram)
            reasons = [self._listener.on_sctp(message) for message in messages if self._listener is not None]
            return next(filter(None, reasons), None)
        return None

    def receive_rtp(self, datagram: bytes, path: Path, now: float) -> DropReason | None:
        """An SRTP packet from a checked address: the hot path."""
        srtp = self._srtp
        if srtp is None:
            # Media goes through a relay's kernel, and overtakes the last flight of DTLS.
            held = self.state is not SessionState.ENDED and self._incoming.hold_early(datagram, path)
            return None if held else DropReason.SRTP_NOT_READY
        if self.end_reason is not None:
            return DropReason.SESSION_ENDED
        self._now = now
        packet = self._incoming.open_rtp(datagram, srtp, self.agreed, now)
        if isinstance(packet, DropReason):
            return packet
        path.heard_at = now
        if path is not self.ice.table.selected and self._incoming.is_newest(packet):
            self.ice.table.newest_came(path, now)
        if not path.budget.is_proven:
            path.budget.received_bytes += len(datagram)
        self.packets_in += 1
        self.bytes_in += len(datagram)
        if not packet.payload:  # padding alone: nobody has said anything
            if self._listener is not None:
                self._listener.on_padding(packet)
            return None
        if self.audio_at is None:
            self.audio_at = now
        self.lifetime.active_at = now
        if self._listener is not None:
            if packet.payload_type == self.agreed.payload_type:
                self._listener.on_audio(packet)
            else:
                self._listener.on_telephone_event(packet)
        return None

    def receive_rtcp(self, datagram: bytes, path: Path, now: float) -> DropReason | None:
        """An SRTCP compound from a checked address."""
        if (srtp := self._srtp) is None:
            return DropReason.SRTP_NOT_READY
        self._now = now
        reports = self._incoming.open_rtcp(datagram, srtp, now)
        if isinstance(reports, DropReason):
            return reports
        path.heard_at = now
        if self._incoming.is_newest_rtcp(datagram, srtp) and path is not self.ice.table.selected:
            self.ice.table.newest_came(path, now)
        path.budget.received_bytes += len(datagram)
        self.bytes_in += len(datagram)
        if self.reports.take(reports, now, self._outgoing.proof.receive_block):
            self._mid_extension = b""  # MID has done its work (RFC 9143 section 15)
        if self.reports.is_due(reports, now):
            self.bytes_out += self._outgoing.report_by_selected(now)
        return None

    def lose(self, client: Address) -> None:
        """Another call has an address that this one did not hold any more."""
        if not self.ice.lose(client):
            self.end(EndReason.CONSENT_EXPIRED, "another call has its client's address, which did not answer")

    # ---- what the listener may do

    def send_audio(self, payload: bytes, sequence: int, timestamp: int, *, marker: bool = False) -> bool:
        """Send one Opus packet in the caller's own numbering; False if nobody would get it."""
        srtp, path = self._srtp, self.ice.table.selected
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
        if not path.budget.is_proven:
            self._outgoing.ask_for_proof(self._now)
            allowed = self._outgoing.within_budget(path, len(datagram))
            if allowed is None:
                return False
            path = allowed
        sending.note(rtp_timestamp, len(payload), self._now)
        self.lifetime.active_at = self._now
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

    def may_hear_message(self, now: float) -> bool:
        """Say whether the client may say one more thing in its data channels now: else that waits."""
        return not self._incoming.budgets.messages.is_spent(now)

    def note_message(self, now: float) -> None:
        """The client said something in a data channel: the call is not idle."""
        self.lifetime.active_at = now
        self._incoming.budgets.messages.take(1, now)

    def end(self, reason: EndReason, detail: str = "") -> None:
        """End the call, telling the client if there is a way. The detail is for logs and records."""
        if self.end_reason is not None:
            return
        self.end_reason = reason
        self.end_detail = detail
        if self._listener is not None and self.state is SessionState.CONNECTED and self._listener.on_ending():
            self.state = SessionState.ENDING
            self._leaves_at = self._now + LAST_WORDS_S
        if self._srtp is not None and self.sending.packets:
            self._outgoing.media(self._srtp.protect_rtcp(build_bye(self.sending.ssrc, self.agreed.cname)))
        self._drops[DropReason.SRTP_NOT_READY] += len(self._incoming.take_early())
        self._on_ended(self)
        if self._listener is not None:
            self._listener.on_ended(reason)
        if self.state is not SessionState.ENDING:
            self.leave()

    def leave(self) -> None:
        """Say the last of the last words, after which the client is a stranger."""
        if self.end_reason is None or self.state is SessionState.ENDED:
            return
        if self._listener is not None:
            self._listener.on_left()
            self._listener = None
        self._dtls.close()
        self._flush_dtls()
        if (path := self.ice.selected) is not None and (refusal := path.refusal()) is not None:
            self._outgoing.stun(refusal, path)
        self.state = SessionState.ENDED
        self._leaves_at = _NEVER
        self._on_left(self)

    # ---- time

    def deadline(self) -> float:
        """When `advance` wants to be called at the latest."""
        if self.end_reason is not None:
            return self._leaves_at
        times = [self.lifetime.deadline(self._use()), self.ice.deadline(), self.reports.due_at]
        path = self.ice.selected
        if self._srtp is not None and path is not None and not path.budget.is_proven:
            times.append(path.budget.ask_at)
        dtls = self._dtls.deadline()
        return min(*times, _NEVER if dtls is None else dtls)

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._now = now
        if self.end_reason is not None:
            if now >= self._leaves_at:
                self.leave()
            return
        if not self.ice.expire(now):
            self.end(EndReason.CONSENT_EXPIRED)
            return
        if (over := self.lifetime.end_reason(self._use(), now)) is not None:
            self.end(self._incoming.explain(over))
            return
        warning = self.lifetime.warning(self._use(), now)
        if warning is not None and self._listener is not None:
            self._listener.on_ends_soon(*warning)
        if now >= self.reports.due_at:
            self.bytes_out += self._outgoing.report_by_selected(now)
        self._outgoing.probe(now)
        for client in self._outgoing.give_up(now):
            self.lose(client)
        if self.end_reason is not None:
            return
        self._outgoing.ask_for_proof(now)
        dtls = self._dtls.deadline()
        if dtls is not None and now >= dtls:
            self._dtls.advance(now)
            self._after_dtls(now)

    # ---- inside

    def _after_dtls(self, now: float) -> None:
        if self._dtls.state is DtlsState.CONNECTED and self._srtp is None:
            self._outgoing.proof.flight_was_answered()
        self._flush_dtls()
        if self._dtls.state is DtlsState.CONNECTED:
            if self._srtp is None and self._dtls.keys is not None:
                self._srtp = self._outgoing.srtp = Srtp(self._dtls.keys)
                self.state = SessionState.CONNECTED
                self._outgoing.ask_for_proof(now)
                self.connected_at = self.lifetime.active_at = now
                self.reports.note_sent(now)
                if self._listener is not None:
                    self._listener.on_connected()
                if self.state is SessionState.CONNECTED:
                    for datagram, path in self._incoming.take_early():
                        reason = self.receive_rtp(datagram, path, now)
                        if reason is not None:
                            self._drops[reason] += 1
        elif self._dtls.state is DtlsState.CLOSED:
            self.end(EndReason.CLOSED_BY_CLIENT)
            self.leave()
        elif self._dtls.state is DtlsState.FAILED:
            mismatch = self._dtls.failure == EndReason.FINGERPRINT_MISMATCH
            self.end(EndReason.FINGERPRINT_MISMATCH if mismatch else EndReason.DTLS_FAILED)

    def _flush_dtls(self) -> None:
        flight, datagrams = self._dtls.flight, self._dtls.poll()
        if datagrams:
            self.bytes_out += self._outgoing.dtls(datagrams, flight)

    def _use(self) -> Use:
        heard_at = max((path.heard_at for path in self.ice.paths.values()), default=0.0)
        is_listening = self.description.terms.joins or not self.agreed.client_sends
        return Use(self.state is SessionState.CONNECTED, is_listening, max(heard_at, self.connected_at or 0.0))
