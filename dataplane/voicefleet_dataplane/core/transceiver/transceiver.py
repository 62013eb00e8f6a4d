"""All calls of one slot over one UDP socket: whose packet is it?

::

    from a relay of the topology:  SPP(client, relay) ─┐
    bare, where allowed (tests)  ──────────────────────┤
                                                       ├─ STUN      → by the ufrag in it, authentic or silence
                                                       ├─ DTLS      → by client address, checked before
                                                       └─ RTP, RTCP → by client address, checked before
    bare, from a relay's flow port  ──── RTP, RTCP alone ─ by that port, which an authentic check announced

A relay that forwards media in the kernel puts no header on it. It says so on checks: the second address of their header is
then not the relay's own but the one that this client's bare media will come from (docs/adr/0012). We take media bare from
there, send media bare to there, and say that we do by answering the check under the relay's own address; who does not
understand, or whose tuple is another's, answers under the header that came, as ever.

Owns: what is tried in which order, the making of calls, the drop counters. Does not own: the tables (core/transceiver/routes.py, core/transceiver/ufrags.py),
the timers (core/transceiver/timers.py), anything inside a call (core/call/session.py), a socket, a clock.

Invariants
- A packet moves exactly one drop counter, or none if it was taken. It costs no task and no log line.
- Answers go to the address that the datagram really came from: never to an address that a packet names. So does what
  follows an authentic announcement of a relay (contract/announcement.py). Media may go to a port that a header names, on
  the host that the datagram really came from; or, from a relay on our own host, to the client itself.
- A client address belongs to one call while that call holds consent for it. An authentic check of another call from
  there is dropped: a valid caller cannot take over a victim's tuple by spoofing it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import Addressee, AnnouncementError, decode_announcement
from voicefleet_contract.call_id import CallId, encode_call_id
from voicefleet_contract.drops import DropReason
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, SppError, decode_spp, encode_spp
from voicefleet_contract.topology import MemberState, TopologyIndex
from voicefleet_dataplane.core.call.dtls import Dtls
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity
from voicefleet_dataplane.core.call.ice import CONSENT_S, IceAgent
from voicefleet_dataplane.core.call.model import EndReason, Limits, SessionState
from voicefleet_dataplane.core.call.negotiation import Description, Terms, agree, agree_again
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.core.call.streams import SendStream
from voicefleet_dataplane.core.limits import RateLimit
from voicefleet_dataplane.core.transceiver.admission import NoRoom, decide_admission
from voicefleet_dataplane.core.transceiver.leaving import Leaving
from voicefleet_dataplane.core.transceiver.routes import Route, Routes
from voicefleet_dataplane.core.transceiver.timers import NEVER, Timers
from voicefleet_dataplane.core.transceiver.ufrags import Ufrags
from voicefleet_dataplane.wire.demux import SPP_FIRST_BYTE, Kind, classify
from voicefleet_dataplane.wire.sdp.answer import choose_setup
from voicefleet_dataplane.wire.sdp.model import OfferedMedia, SetupRole
from voicefleet_dataplane.wire.sdp.offer import parse_offer_untrusted
from voicefleet_dataplane.wire.stun import (
    FORBIDDEN,
    BindingRequest,
    StunError,
    build_binding_error,
    parse_binding_request,
    verify_integrity,
)

LARGEST_DATAGRAM_BYTES = 1_500
_PLAIN = Terms()
# Of one session: more is a client that cannot make up its mind, or means harm.
_RESTARTS_PER_S = 0.2
_RESTARTS_AT_ONCE = 5
# Ends that say that media did not come up for a cause that may be ours. A wrong fingerprint is the client's.
_NO_MEDIA = frozenset({EndReason.SETUP_TIMEOUT, EndReason.DTLS_FAILED, EndReason.CONSENT_EXPIRED})


@dataclass(frozen=True, slots=True)
class Place:
    """Who this transceiver is."""

    cluster: int
    slot: int
    generation: int
    capacity: int
    accept_direct: bool = False
    inner_host: str = ""  # our own: a relay there hands us clients' packets as they are
    prefer_active: bool = True


@dataclass(frozen=True, slots=True)
class Created:
    """A call that waits for its client."""

    session: Session
    answer: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """Our credentials of an ICE restart."""

    ufrag: str
    pwd: str


class Transceiver:
    """Feed datagrams and time in; drain `transmit` after each call."""

    def __init__(
        self,
        place: Place,
        identity: DtlsIdentity,
        hint_keys: KeyRing,
        call_keys: KeyRing,
        limits: Limits,
        random_bytes: Callable[[int], bytes],
        wall_offset_s: float,
    ) -> None:
        self.place = place
        self.identity = identity
        self.hint_keys = hint_keys
        self.call_keys = call_keys
        self.state = MemberState.STARTING
        self.transmit: list[tuple[bytes, Address]] = []
        self.drops = dict.fromkeys(DropReason, 0)
        self.ended = dict.fromkeys(EndReason, 0)
        self.packets_in = 0
        self.sessions_total = 0
        self._ended_with_media = self._ended_without = 0
        self.ice_restarts = 0
        self.announcements_followed = 0  # paths that went through another relay before their next check
        self.sessions: dict[str, Session] = {}  # by call id, oldest first
        self.leaving = Leaving()
        self._limits = limits
        self._random_bytes = random_bytes
        self._wall_offset_s = wall_offset_s
        self._topology: TopologyIndex | None = None
        self._us = Addressee(place.cluster, place.slot, place.generation)
        self._ufrags = Ufrags(self._us, random_bytes)
        self._routes = Routes(place.inner_host)
        self._by_request: dict[str, Created] = {}
        self._restarts = RateLimit(_RESTARTS_PER_S, _RESTARTS_AT_ONCE)
        self._timers = Timers()

    # ---- packets

    def receive(self, datagram: bytes, source: Address, now: float) -> DropReason | None:
        """Take one datagram from the socket; gives why it was dropped, which is counted here already."""
        self.packets_in += 1
        reason = self._receive(datagram, source, now)
        if reason is not None:
            self.drops[reason] += 1
        return reason

    def _receive(self, datagram: bytes, source: Address, now: float) -> DropReason | None:
        if not datagram:
            return DropReason.EMPTY
        if datagram[0] != SPP_FIRST_BYTE:
            return self._receive_bare(datagram, source, now)
        # The hot path: a header that was looked up before, from the relay that it was looked up for.
        header, payload = datagram[:HEADER_BYTES], datagram[HEADER_BYTES:]
        known, kind = self._routes.by_header.get(header), classify(payload)
        if known is not None and known[0] == source and kind is not Kind.STUN and kind is not Kind.SPP:
            return self._take(payload, known[1], now)
        if self._topology is None or self._topology.relay_at(source) is None:
            return DropReason.SPP_FROM_STRANGER
        try:
            client, proxy = decode_spp(datagram)
        except SppError:
            return DropReason.SPP_MALFORMED
        if kind is Kind.STUN:
            bare = proxy if self._routes.may_come_bare(client, proxy, source) else None
            reason = self._receive_check(payload, client, source, header, bare, now)
        elif kind is Kind.SPP:
            reason = self._receive_announcement(payload, source, header, self._routes.by_client.get(client), now)
        else:
            reason = self._take(payload, self._routes.by_client.get(client), now)
        found = self._routes.by_client.get(client)
        if found is not None:
            self._routes.remember_header(header, source, found)
        return reason

    def _receive_bare(self, datagram: bytes, source: Address, now: float) -> DropReason | None:
        kind = classify(datagram)
        if kind is Kind.RTP or kind is Kind.RTCP:
            known = self._routes.by_tuple.get(source)
            if known is not None:
                return self._take(datagram, known[1], now)
        if not self.place.accept_direct:
            return DropReason.DIRECT_NOT_ACCEPTED
        if kind is Kind.STUN:
            return self._receive_check(datagram, source, source, b"", None, now)
        return self._take(datagram, self._routes.by_client.get(source), now)

    def _take(self, payload: bytes, route: Route | None, now: float) -> DropReason | None:
        """Take what is no check."""
        if not payload:
            return DropReason.EMPTY
        if len(payload) > LARGEST_DATAGRAM_BYTES:
            return DropReason.TOO_LONG
        kind = classify(payload)
        if kind is Kind.UNKNOWN or kind is Kind.SPP:
            return DropReason.UNKNOWN_KIND
        if route is None:
            return DropReason.ADDRESS_NOT_CHECKED
        if kind is Kind.RTP:
            return route.session.receive_rtp(payload, now)
        if kind is Kind.RTCP:
            return route.session.receive_rtcp(payload, now)
        reason = route.session.receive_dtls(payload, route.path, now)
        self._settle(route.session)
        return reason

    def _receive_check(
        self, payload: bytes, client: Address, destination: Address, header: bytes, bare: Address | None, now: float
    ) -> DropReason | None:
        if len(payload) > LARGEST_DATAGRAM_BYTES:
            return DropReason.TOO_LONG
        try:
            request = parse_binding_request(payload)
        except StunError as error:
            return error.reason
        session = self._ufrags.sessions.get(request.server_ufrag)
        if session is None:
            return self._withdraw_consent(
                request, destination, header if bare is None else encode_spp(client, destination)
            )
        reason = session.ice.authenticate(request)
        if reason is not None:
            return reason
        route = self._routes.by_client.get(client)
        if route is not None and route.session is not session and now - route.path.checked_at < CONSENT_S:
            return DropReason.ICE_TUPLE_TAKEN
        if bare is not None and session.ice.is_repeated(request) and (route is None or route.path.bare != bare):
            bare = None  # this check moves nothing, so we may not say that it did
        prefix = header if bare is None else encode_spp(client, destination)
        reason = session.receive_check(request, client, destination, prefix, now, bare)
        path = session.ice.paths.get(client)
        if path is not None and (route is None or route.path is not path):
            route = self._routes.add(client, session, path)
        if bare is not None and route is not None and route.path.bare == bare:
            self._routes.remember_tuple(bare, destination, route)
        self._settle(session)
        return reason

    def _withdraw_consent(self, request: BindingRequest, destination: Address, prefix: bytes) -> DropReason:
        """A check of a call that is over: say so, for those who did not hear it, or have no other ear for it (RFC 7675 section 5.2).

        Authentic checks alone are answered, with fewer bytes than they have, the way they came.
        """
        pwd = self._ufrags.pwd_to_withdraw(request.server_ufrag, self.hint_keys)
        if pwd is not None and verify_integrity(request, pwd):
            self.transmit.append((prefix + build_binding_error(request.transaction_id, FORBIDDEN, pwd), destination))
        ended = self._ufrags.was_in_use(request.server_ufrag)
        return DropReason.SESSION_ENDED if ended else DropReason.SESSION_UNKNOWN

    def _receive_announcement(
        self, payload: bytes, relay: Address, header: bytes, route: Route | None, now: float
    ) -> DropReason | None:
        try:
            unix_ms = decode_announcement(payload, header, self._us, self.hint_keys)
        except AnnouncementError as error:
            return DropReason.UNKNOWN_KIND if error.reason == "version" else DropReason.ANNOUNCEMENT_FORGED
        if route is None:
            return DropReason.ADDRESS_NOT_CHECKED
        said_at = unix_ms / 1e3 - self._wall_offset_s
        if not route.path.follow(relay, header, said_at, now):
            return DropReason.ANNOUNCEMENT_STALE
        self.announcements_followed += 1
        return None

    # ---- calls

    def set_topology(self, topology: TopologyIndex) -> None:
        """Work from another topology: relays that left it are strangers from now on."""
        self._topology = topology
        self._routes.set_topology(topology)

    @property
    def media_up(self) -> int:
        """Calls since the start whose media came up."""
        return self._ended_with_media + sum(s.connected_at is not None for s in self.sessions.values())

    def media_failed(self, now: float, within_s: float) -> int:
        """Calls since the start whose media did not come up in time. A call that was hung up before counts for neither."""
        late = sum(s.connected_at is None and now - s.started_at >= within_s for s in self.sessions.values())
        return self._ended_without + late

    @property
    def topology_revision(self) -> int:
        """The revision that we work from; 0 before the first."""
        return self._topology.topology.revision if self._topology is not None else 0

    def create(
        self,
        offer_text: str,
        candidates: Sequence[Address],
        now: float,
        *,
        request_id: str,
        region: str,
        relay: str,
        below: int | None = None,
        terms: Terms = _PLAIN,
    ) -> Created | NoRoom:
        """Answer an offer. Raises SdpError and nothing else. A request seen before gets its first answer again."""
        repeated = self._by_request.get(request_id)
        if repeated is not None:
            return repeated
        refused = decide_admission(
            MemberState.ACTIVE if terms.joins and self.state is MemberState.DRAINING else self.state,
            sessions=len(self.sessions),
            pending=sum(session.connected_at is None for session in self.sessions.values()),
            capacity=self.place.capacity,
            below=below,
        )
        if refused is not None:
            return refused
        offer = parse_offer_untrusted(offer_text)
        created = self._make_session(offer, candidates, now, terms, request_id=request_id)
        created.session.agreed = replace(created.session.agreed, region=region, relay=relay)
        return created

    def replace_peer(
        self, session: Session, offer_text: str, candidates: Sequence[Address], now: float
    ) -> Created | float:
        """Answer the offer of another peer connection of the same client: the call goes on under its id, this session ends.

        Whoever listens to it must attach to the new one. Raises SdpError, and then nothing has changed. Or say after how long
        to ask again.
        """
        offer = parse_offer_untrusted(offer_text)
        terms, agreed = session.description.terms, session.agreed
        agree(offer, terms, call_id="", request_id="", cname="")
        wait_s = self._restarts.take(agreed.call_id, now)
        if wait_s:
            return wait_s
        session.make_way()
        created = self._make_session(
            offer, candidates, now, terms, request_id=agreed.request_id, call_id=agreed.call_id
        )
        created.session.agreed = replace(created.session.agreed, region=agreed.region, relay=agreed.relay)
        created.session.inherit(session)
        return created

    def _make_session(
        self,
        offer: OfferedMedia,
        candidates: Sequence[Address],
        now: float,
        terms: Terms,
        *,
        request_id: str,
        call_id: str = "",
    ) -> Created:
        setup = choose_setup(offer.setup, prefer_active=self.place.prefer_active)
        chance = self._random_bytes(32)
        place = self.place
        call_id = call_id or encode_call_id(
            CallId(place.cluster, place.slot, place.generation, int.from_bytes(chance[:8])), self.call_keys
        )
        cname = chance[18:26].hex()
        agreed = agree(offer, terms, call_id=call_id, request_id=request_id, cname=cname)
        # SSRC 0 is legal and yet special to too many.
        sending = SendStream(
            int.from_bytes(chance[8:12]) | 1, int.from_bytes(chance[12:14]) >> 1, int.from_bytes(chance[14:18])
        )
        description = Description(
            session_id=int.from_bytes(chance[26:32]),
            fingerprint=self.identity.fingerprint,
            setup=setup,
            ssrc=sending.ssrc,
            cname=cname,
            terms=terms,
            fingerprints=offer.fingerprints,
        )
        ufrag, pwd = self._ufrags.new(self.hint_keys)
        we_are_client = setup is SetupRole.ACTIVE
        session = Session(
            agreed,
            description,
            IceAgent(ufrag, pwd, offer.ice_ufrag),
            Dtls(self.identity, offer.fingerprints, we_are_client=we_are_client),
            sending,
            self._limits,
            self.transmit,
            self.drops,
            self._forget,
            we_are_client=we_are_client,
            wall_offset_s=self._wall_offset_s,
            now=now,
        )
        created = Created(session, description.answer(offer, ufrag, pwd, candidates))
        self.sessions[call_id] = session
        self._ufrags.lead_to(ufrag, session)
        self._by_request[request_id] = created
        self.sessions_total += 1
        self._settle(session)
        return created

    def restart_ice(self, session: Session, remote_ufrag: str, now: float) -> Restarted | float:
        """Give a running call other credentials; the old ones serve on (core/call/ice). Or say after how long to ask again."""
        wait_s = self._restarts.take(session.agreed.call_id, now)
        if wait_s:
            return wait_s
        ufrag, pwd = self._ufrags.new(self.hint_keys)
        session.ice.restart(ufrag, pwd, remote_ufrag)
        self._ufrags.lead_to(ufrag, session)
        self.ice_restarts += 1
        self._settle(session)
        return Restarted(ufrag, pwd)

    def renegotiate(self, session: Session, offer_text: str, candidates: Sequence[Address], now: float) -> str | float:
        """Answer a later offer of a running call: other directions, or other credentials, which restart ICE.

        Raises SdpError for what needs a new call. Or say after how long to ask again.
        """
        offer = parse_offer_untrusted(offer_text)
        agreed = agree_again(session.agreed, session.description, offer)
        if offer.ice_ufrag != session.ice.remote_ufrag:
            restarted = self.restart_ice(session, offer.ice_ufrag, now)
            if not isinstance(restarted, Restarted):
                return restarted
        session.agree(agreed)
        return session.description.answer(offer, session.ice.ufrag, session.ice.pwd, candidates)

    def hang_up(self, call_id: str, reason: EndReason = EndReason.HANG_UP) -> bool:
        """End a call; False if there is none of that id."""
        session = self.sessions.get(call_id)
        if session is None:
            return False
        session.end(reason)
        return True

    def drain(self, hang_up_at: float | None = None) -> None:
        """Take no new calls from now on; hang up those that are left then, one after the other."""
        if self.state in (MemberState.STARTING, MemberState.ACTIVE):
            self.state = MemberState.DRAINING
        if hang_up_at is not None:
            self.leaving.order(hang_up_at)

    def started_at(self) -> tuple[float, float] | None:
        """When the oldest and the newest call started, in Unix seconds."""
        if not self.sessions:
            return None
        oldest, newest = next(iter(self.sessions.values())), next(reversed(self.sessions.values()))
        return round(oldest.began_at + self._wall_offset_s, 3), round(newest.began_at + self._wall_offset_s, 3)

    # ---- time

    def deadline(self) -> float | None:
        """When `advance` wants to be called."""
        due = min(self._timers.next(), self.leaving.deadline() if self.sessions else NEVER)
        return None if due == NEVER else due

    def advance(self, now: float) -> None:
        """Do what is due in every call."""
        if self.leaving.is_due(self.sessions, now):
            next(iter(self.sessions.values())).end(EndReason.DRAIN_DEADLINE)
        while (session := self._timers.take_due(now)) is not None:
            session.advance(now)
            self._settle(session)

    # ---- inside

    def _settle(self, session: Session) -> None:
        """After anything slow happened to a call: forget the addresses that it lost, and keep its timer right."""
        if session.state is SessionState.ENDED:
            return
        if session.ice.forgotten:
            for client in session.ice.forgotten:
                self._routes.forget(client, session)
            session.ice.forgotten.clear()
        if session.ice.retired:
            for ufrag in session.ice.retired:
                self._ufrags.retire(ufrag, call_is_over=False)
            session.ice.retired.clear()
        self._timers.arm(session)

    def _forget(self, session: Session) -> None:
        """A call has ended, whoever ended it."""
        assert session.end_reason is not None
        self.ended[session.end_reason] += 1
        self._ended_with_media += session.connected_at is not None
        self._ended_without += session.connected_at is None and session.end_reason in _NO_MEDIA
        self._timers.disarm(session)
        for ufrag in [*session.ice.ufrags, *session.ice.retired]:
            self._ufrags.retire(ufrag, call_is_over=True)
        del self.sessions[session.agreed.call_id]
        del self._by_request[session.agreed.request_id]
        for client in [*session.ice.paths, *session.ice.forgotten]:
            self._routes.forget(client, session)
