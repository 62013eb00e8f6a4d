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

Owns: what is tried in which order, the counters of packets. Does not own: the calls (core/transceiver/calls.py), the tables
(core/transceiver/routes.py, core/transceiver/ufrags.py), anything inside a call (core/call/session.py), a socket, a clock.

Invariants
- A packet moves exactly one drop counter, or none if it was taken. It costs no task and no log line.
- Answers go to the address that the datagram really came from: never to an address that a packet names. So does what
  follows an authentic announcement of a relay (contract/announcement.py). Media may go to a port that a header names, on
  the host that the datagram really came from; or, from a relay on our own host, to the client itself.
- A client address belongs to one call while that call holds it (core/call/paths.py). An authentic check of another call from
  there, one in progress or over, is dropped: a valid caller can neither take over a victim's tuple by spoofing it nor have it refused.
"""

from collections.abc import Callable

from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import Addressee, AnnouncementError, decode_announcement
from voicefleet_contract.drops import DropReason
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, LARGEST_DATAGRAM_BYTES, SppError, decode_spp, encode_spp
from voicefleet_contract.topology import TopologyIndex
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity
from voicefleet_dataplane.core.call.model import Limits
from voicefleet_dataplane.core.transceiver.calls import Calls, Place
from voicefleet_dataplane.core.transceiver.routes import Route, Routes
from voicefleet_dataplane.wire.demux import SPP_FIRST_BYTE, Kind, classify
from voicefleet_dataplane.wire.stun import (
    FORBIDDEN,
    BindingRequest,
    StunError,
    build_binding_error,
    is_response,
    parse_binding_request,
    verify_integrity,
)


class Transceiver:
    """Feed datagrams in here and time into `calls`; drain `transmit` after each."""

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
        """`wall_offset_s` is Unix time less `now`, in seconds."""
        self.place = place
        self.transmit: list[tuple[bytes, Address]] = []
        self.drops = dict.fromkeys(DropReason, 0)
        self.packets_in = 0
        self.announcements_followed = 0  # paths that went through another relay before their next check
        self._routes = Routes(place.inner_host)
        self.calls = Calls(
            place,
            identity,
            hint_keys,
            call_keys,
            limits,
            random_bytes,
            wall_offset_s,
            self._routes,
            self.transmit,
            self.drops,
        )
        self._ufrags = self.calls.ufrags
        self._settle = self.calls.settle
        self._us = Addressee(place.cluster, place.slot, place.generation)
        self._wall_offset_s = wall_offset_s
        self._topology: TopologyIndex | None = None

    def set_topology(self, topology: TopologyIndex) -> None:
        """Work from another topology: relays that left it are strangers from now on."""
        self._topology = topology
        self._routes.set_topology(topology)

    @property
    def topology_revision(self) -> int:
        """The revision that we work from; 0 before the first."""
        return self._topology.topology.revision if self._topology is not None else 0

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
        if known is not None and known[0] == source:
            if kind is Kind.RTP and len(payload) <= LARGEST_DATAGRAM_BYTES:
                return known[1].session.receive_rtp(payload, known[1].path, now)
            if kind is not Kind.STUN and kind is not Kind.SPP:
                return self._take(payload, kind, known[1], now)
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
            reason = self._take(payload, kind, self._routes.by_client.get(client), now)
        found = self._routes.by_client.get(client)
        if found is not None:
            self._routes.remember_header(header, source, found)
        return reason

    def _receive_bare(self, datagram: bytes, source: Address, now: float) -> DropReason | None:
        kind = classify(datagram)
        if kind is Kind.RTP or kind is Kind.RTCP:
            known = self._routes.by_tuple.get(source)
            if known is not None:
                return self._take(datagram, kind, known[1], now)
        if not self.place.accept_direct:
            return DropReason.DIRECT_NOT_ACCEPTED
        if kind is Kind.STUN:
            return self._receive_check(datagram, source, source, b"", None, now)
        return self._take(datagram, kind, self._routes.by_client.get(source), now)

    def _take(self, payload: bytes, kind: Kind, route: Route | None, now: float) -> DropReason | None:
        """Take what is no check."""
        if not payload:
            return DropReason.EMPTY
        if len(payload) > LARGEST_DATAGRAM_BYTES:
            return DropReason.TOO_LONG
        if kind is Kind.UNKNOWN or kind is Kind.SPP:
            return DropReason.UNKNOWN_KIND
        if route is None:
            return DropReason.ADDRESS_NOT_CHECKED
        if kind is Kind.RTP:
            return route.session.receive_rtp(payload, route.path, now)
        if kind is Kind.RTCP:
            return route.session.receive_rtcp(payload, route.path, now)
        reason = route.session.receive_dtls(payload, route.path, now)
        self._settle(route.session)
        return reason

    def _receive_check(
        self, payload: bytes, client: Address, destination: Address, header: bytes, bare: Address | None, now: float
    ) -> DropReason | None:
        if len(payload) > LARGEST_DATAGRAM_BYTES:
            return DropReason.TOO_LONG
        if is_response(payload):
            route = self._routes.by_client.get(client)
            return DropReason.ADDRESS_NOT_CHECKED if route is None else route.session.receive_answer(payload, now)
        try:
            request = parse_binding_request(payload)
        except StunError as error:
            return error.reason
        session = self._ufrags.sessions.get(request.server_ufrag)
        if session is None:
            route = self._routes.by_client.get(client)
            if route is not None and self._ufrags.is_of_another_owner(request, self.calls.hint_keys):
                route.path.contest(now, by_another_owner=True)
                self._settle(route.session)
                return DropReason.ICE_TUPLE_TAKEN
            return self._withdraw_consent(
                request, client, destination, header if bare is None else encode_spp(client, destination), now
            )
        reason = session.ice.authenticate(request)
        if reason is not None:
            return reason
        route = self._routes.by_client.get(client)
        if route is not None and route.session is not session:
            if route.path.is_held(now):
                route.path.contest(now)  # its client is asked whether it is there still
                self._settle(route.session)
                return DropReason.ICE_TUPLE_TAKEN
            route.session.lose(client)
            self._settle(route.session)
            route = None
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

    def _withdraw_consent(
        self, request: BindingRequest, client: Address, destination: Address, prefix: bytes, now: float
    ) -> DropReason:
        """A check of a call that is over: say so, for those who did not hear it, or have no other ear for it (RFC 7675 section 5.2).

        Authentic checks alone are answered, with fewer bytes than they have, the way they came; and none from an address that
        another call holds: whoever sent it from there, its client would hear that and its relay might believe it.
        """
        pwd = self._ufrags.pwd_to_withdraw(request.server_ufrag, self.calls.hint_keys)
        if pwd is not None and verify_integrity(request, pwd):
            route = self._routes.by_client.get(client)
            if route is not None and route.path.is_held(now):
                return DropReason.ICE_TUPLE_TAKEN
            sha256 = bool(request.sha256_offset)
            refusal = build_binding_error(request.transaction_id, FORBIDDEN, pwd, sha256=sha256)
            self.transmit.append((prefix + refusal, destination))
        ended = self._ufrags.was_in_use(request.server_ufrag)
        return DropReason.SESSION_ENDED if ended else DropReason.SESSION_UNKNOWN

    def _receive_announcement(
        self, payload: bytes, relay: Address, header: bytes, route: Route | None, now: float
    ) -> DropReason | None:
        try:
            unix_ms = decode_announcement(payload, header, self._us, self.calls.hint_keys)
        except AnnouncementError as error:
            return DropReason.UNKNOWN_KIND if error.reason == "version" else DropReason.ANNOUNCEMENT_FORGED
        if route is None:
            return DropReason.ADDRESS_NOT_CHECKED
        said_at = unix_ms / 1e3 - self._wall_offset_s
        if not route.path.follow(relay, header, said_at, now):
            return DropReason.ANNOUNCEMENT_STALE
        self.announcements_followed += 1
        return None
