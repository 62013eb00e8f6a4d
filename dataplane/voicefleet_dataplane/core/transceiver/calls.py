"""The calls of one slot: made from an offer, changed by later ones, and ended.

Owns: the sessions by call id, whether there is room for one more, what a call is made of, the keys, the timers' turn, and
that a call leaves nothing behind. Does not own: whose packet it is (core/transceiver/transceiver.py), anything inside a call
(core/call/session.py), SDP, a socket, a clock.

Invariants
- A request that comes again gets its first answer again, for as long as its call lives.
- What raises SdpError has changed nothing.
- After its last words, which take a second at most, a call has no route, no timer, no ufrag that leads to it: whoever ended it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import Addressee
from voicefleet_contract.call_id import CallId, encode_call_id
from voicefleet_contract.drops import DropReason
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.core.call.dtls import Dtls
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity
from voicefleet_dataplane.core.call.ice import IceAgent
from voicefleet_dataplane.core.call.model import EndReason, Limits, SessionState
from voicefleet_dataplane.core.call.negotiation import Description, Terms, agree, agree_again
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.core.call.streams import SendStream
from voicefleet_dataplane.core.limits import RateLimit
from voicefleet_dataplane.core.transceiver.admission import NoRoom, decide_admission
from voicefleet_dataplane.core.transceiver.leaving import Leaving
from voicefleet_dataplane.core.transceiver.routes import Routes
from voicefleet_dataplane.core.transceiver.tally import Tally
from voicefleet_dataplane.core.transceiver.timers import NEVER, Timers
from voicefleet_dataplane.core.transceiver.ufrags import Ufrags
from voicefleet_dataplane.wire.sdp.answer import choose_setup
from voicefleet_dataplane.wire.sdp.model import Direction, OfferedMedia, SetupRole
from voicefleet_dataplane.wire.sdp.offer import parse_offer_untrusted

_PLAIN = Terms()
# Of one session: more is a client that cannot make up its mind, or means harm.
_RESTARTS_PER_S = 0.2
_RESTARTS_AT_ONCE = 5


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


class Calls:
    """Times are of the caller's monotonic clock, in seconds."""

    def __init__(
        self,
        place: Place,
        identity: DtlsIdentity,
        hint_keys: KeyRing,
        call_keys: KeyRing,
        limits: Limits,
        random_bytes: Callable[[int], bytes],
        wall_offset_s: float,
        routes: Routes,
        transmit: list[tuple[bytes, Address]],
        drops: dict[DropReason, int],
    ) -> None:
        self.hint_keys = hint_keys
        self.call_keys = call_keys
        self.state = MemberState.STARTING
        self.sessions: dict[str, Session] = {}  # by call id, oldest first
        self.leaving = Leaving()
        self.tally = Tally(self.sessions, wall_offset_s)
        self.ufrags = Ufrags(Addressee(place.cluster, place.slot, place.generation), random_bytes)
        self._place = place
        self._identity = identity
        self._limits = limits
        self._random_bytes = random_bytes
        self._wall_offset_s = wall_offset_s
        self._routes = routes
        self._transmit = transmit
        self._drops = drops
        self._by_request: dict[str, Created] = {}
        self._restarts = RateLimit(_RESTARTS_PER_S, _RESTARTS_AT_ONCE)
        self._timers = Timers()

    # ---- what clients and the control API want

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
            capacity=self._place.capacity,
            below=below,
        )
        if refused is not None:
            return refused
        offer = _read(offer_text, terms)
        created = self._make(offer, candidates, now, terms, request_id=request_id)
        created.session.agreed = replace(created.session.agreed, region=region, relay=relay)
        return created

    def replace_peer(
        self, session: Session, offer_text: str, candidates: Sequence[Address], now: float
    ) -> Created | float:
        """Answer the offer of another peer connection of the same client: the call goes on under its id, this session ends.

        Whoever listens to it must attach to the new one. Raises SdpError, and then nothing has changed. Or say after how long
        to ask again.
        """
        terms, agreed = session.description.terms, session.agreed
        offer = _read(offer_text, terms)
        agree(offer, terms, call_id="", request_id="", cname="")
        wait_s = self._restarts.take(agreed.call_id, now)
        if wait_s:
            return wait_s
        session.make_way()
        created = self._make(offer, candidates, now, terms, request_id=agreed.request_id, call_id=agreed.call_id)
        created.session.agreed = replace(created.session.agreed, region=agreed.region, relay=agreed.relay)
        created.session.inherit(session)
        return created

    def restart_ice(self, session: Session, remote_ufrag: str, now: float, remote_pwd: str = "") -> Restarted | float:
        """Give a running call other credentials; the old ones serve on (core/call/ice). Or say after how long to ask again."""
        wait_s = self._restarts.take(session.agreed.call_id, now)
        if wait_s:
            return wait_s
        ufrag, pwd = self.ufrags.new(self.hint_keys)
        session.ice.restart(ufrag, pwd, remote_ufrag, remote_pwd)
        self.ufrags.lead_to(ufrag, session)
        self.tally.ice_restarts += 1
        self.settle(session)
        return Restarted(ufrag, pwd)

    def renegotiate(self, session: Session, offer_text: str, candidates: Sequence[Address], now: float) -> str | float:
        """Answer a later offer of a running call: other directions, or other credentials, which restart ICE.

        Raises SdpError for what needs a new call. Or say after how long to ask again.
        """
        offer = _read(offer_text, session.description.terms, session.agreed.mid)
        agreed = agree_again(session.agreed, session.description, offer)
        if offer.ice_ufrag != session.ice.remote_ufrag:
            restarted = self.restart_ice(session, offer.ice_ufrag, now, offer.ice_pwd)
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
            self.settle(session)

    def settle(self, session: Session) -> None:
        """After anything slow happened to a call: forget the addresses that it lost, and keep its timer right."""
        if session.state is SessionState.ENDED:
            return
        if session.ice.table.forgotten:
            for client in session.ice.table.forgotten:
                self._routes.forget(client, session)
            session.ice.table.forgotten.clear()
        if session.ice.retired:
            for ufrag in session.ice.retired:
                self.ufrags.retire(ufrag, call_is_over=False)
            session.ice.retired.clear()
        self._timers.arm(session)

    # ---- inside

    def _make(
        self,
        offer: OfferedMedia,
        candidates: Sequence[Address],
        now: float,
        terms: Terms,
        *,
        request_id: str,
        call_id: str = "",
    ) -> Created:
        setup = choose_setup(offer.setup, prefer_active=self._place.prefer_active)
        chance, place = self._random_bytes(32), self._place
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
            fingerprint=self._identity.fingerprint,
            setup=setup,
            ssrc=sending.ssrc,
            cname=cname,
            terms=terms,
            fingerprints=offer.fingerprints,
        )
        ufrag, pwd = self.ufrags.new(self.hint_keys)
        we_are_client = setup is SetupRole.ACTIVE
        session = Session(
            agreed,
            description,
            IceAgent(ufrag, pwd, offer.ice_ufrag, offer.ice_pwd),
            Dtls(self._identity, offer.fingerprints, we_are_client=we_are_client),
            sending,
            self._limits,
            self._transmit,
            self._drops,
            self._note_end,
            self._forget,
            self._random_bytes,
            we_are_client=we_are_client,
            wall_offset_s=self._wall_offset_s,
            now=now,
        )
        created = Created(session, description.answer(offer, ufrag, pwd, candidates))
        self.sessions[call_id] = session
        self.ufrags.lead_to(ufrag, session)
        self._by_request[request_id] = created
        self.tally.started += 1
        self.settle(session)
        return created

    def _note_end(self, session: Session) -> None:
        """A call has ended, whoever ended it; its client may still be told."""
        self.tally.note_end(session)
        del self.sessions[session.agreed.call_id]
        del self._by_request[session.agreed.request_id]
        self._timers.arm(session)

    def _forget(self, session: Session) -> None:
        """Its client has been told."""
        self._timers.disarm(session)
        for ufrag in [*session.ice.ufrags, *session.ice.retired]:
            self.ufrags.retire(ufrag, call_is_over=True)
        for client in [*session.ice.paths, *session.ice.table.forgotten]:
            self._routes.forget(client, session)


def _read(offer_text: str, terms: Terms, audio_mid: str = "") -> OfferedMedia:
    return parse_offer_untrusted(offer_text, hears=terms.direction is Direction.SENDONLY, audio_mid=audio_mid)
