"""A transceiver core and WebRTC clients around it, in one thread and in simulated time."""

import os
import random
import re

from tests.support.dtls import make_identity
from tests.support.offers import CHROMIUM, DIGEST
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, decode_spp, encode_spp
from voicefleet_contract.topology import Endpoint, MemberState, Relay, Topology, TopologyIndex
from voicefleet_dataplane.core.call.dtls import Dtls, DtlsState
from voicefleet_dataplane.core.call.dtls_hello import PATIENCE_S
from voicefleet_dataplane.core.call.model import EndReason, Limits
from voicefleet_dataplane.core.call.negotiation import Terms
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.core.call.srtp import PROFILES, Srtp
from voicefleet_dataplane.core.transceiver.admission import NoRoom
from voicefleet_dataplane.core.transceiver.calls import Created, Place
from voicefleet_dataplane.core.transceiver.transceiver import Transceiver
from voicefleet_dataplane.wire.demux import Kind, classify
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp, parse_rtp
from voicefleet_dataplane.wire.sdp.model import SetupRole
from voicefleet_dataplane.wire.stun import (
    build_binding_request,
    build_binding_success,
    is_response,
    parse_binding_request,
    parse_binding_response,
    verify_integrity,
)

HINT_KEYS = KeyRing({1: b"h" * 32}, 1)
CALL_KEYS = KeyRing({1: b"c" * 32}, 1)
RELAY = Address("10.0.0.1", 3479)
OTHER_RELAY = Address("10.0.0.2", 3479)
STRANGER = Address("10.0.0.66", 3479)
CLIENT = Address("198.51.100.1", 40_000)
TOPOLOGY = TopologyIndex(
    Topology(
        cluster=7,
        revision=3,
        relays=(
            Relay(name="fra-1", inner=(Endpoint(address=RELAY.host, port=RELAY.port),)),
            Relay(name="fra-2", inner=(Endpoint(address=OTHER_RELAY.host, port=OTHER_RELAY.port),)),
        ),
    )
)
CLIENT_PWD = b"0123456789abcdefghijkl+/"  # of the offer
IDENTITY = make_identity()
LIMITS = Limits()


class Recorder:
    """A listener that remembers; with `echo` it sends audio back as it came."""

    def __init__(self, session: Session, *, echo: bool = False) -> None:
        self.session = session
        self.echo = echo
        self.connected = 0
        self.audio: list[RtpPacket] = []
        self.keypad: list[RtpPacket] = []
        self.padding: list[RtpPacket] = []
        self.sctp: list[bytes] = []
        self.ended: list[EndReason] = []
        self.warned: list[tuple[EndReason, float]] = []
        session.attach(self)

    def on_connected(self) -> None:
        self.connected += 1

    def on_audio(self, packet: RtpPacket) -> None:
        self.audio.append(packet)
        if self.echo:
            self.session.send_audio(packet.payload, packet.sequence, packet.timestamp, marker=packet.marker)

    def on_padding(self, packet: RtpPacket) -> None:
        self.padding.append(packet)

    def on_telephone_event(self, packet: RtpPacket) -> None:
        self.keypad.append(packet)

    def on_sctp(self, packet: bytes) -> None:
        self.sctp.append(packet)

    def on_ends_soon(self, reason: EndReason, seconds: float) -> None:
        self.warned.append((reason, seconds))

    def on_ending(self) -> bool:
        self.ending = True
        return False

    def on_left(self) -> None:
        self.left = True

    def on_ended(self, reason: EndReason) -> None:
        self.ended.append(reason)


class World:
    """One transceiver, its clients, and the clock."""

    def __init__(self, *, identity=IDENTITY, limits=LIMITS, seed: int = 1, **place) -> None:
        chance = random.Random(seed)
        self.core = Transceiver(
            Place(**({"cluster": 7, "slot": 5, "generation": 2, "capacity": 10} | place)),
            identity,
            HINT_KEYS,
            CALL_KEYS,
            limits,
            chance.randbytes,
            1_700_000_000.0,
        )
        self.core.set_topology(TOPOLOGY)
        self.core.calls.state = MemberState.ACTIVE
        self.identity = identity
        self.now = 100.0
        self.requests = 0
        self.terms = Terms()
        self.clients: dict[Address, Client] = {}
        self.lost: list[tuple[bytes, Address]] = []  # to addresses where nobody is
        self.sent_bytes: dict[Address, int] = {}

    def offer(self, offer: str, request_id: str | None = None) -> Created | NoRoom:
        self.requests += 1
        return self.core.calls.create(
            offer,
            [Address("192.0.2.1", 3478)],
            self.now,
            request_id=request_id or f"request-{self.requests}",
            region="",
            relay="",
            terms=self.terms,
        )

    def create(self, offer: str, request_id: str | None = None) -> Created:
        created = self.offer(offer, request_id)
        assert isinstance(created, Created), created
        return created

    def call(self, client: Address = CLIENT, *, relay: Address | None = RELAY, **options):
        """A client that has its answer and has sent nothing yet."""
        return Client(self, client, relay, **options)

    def connected(self, client: Address = CLIENT, **options):
        """A client in a call."""
        caller = self.call(client, **options)
        caller.check()
        self.settle()
        if caller.we_are_client:
            self.pass_time(PATIENCE_S)  # it is asked for a cookie, and believes that late
        assert caller.dtls.state is DtlsState.CONNECTED, caller.session.end_reason
        assert caller.session.state == "connected"
        return caller

    def settle(self) -> None:
        """Carry packets both ways until nobody has more to say; takes no time."""
        while self.core.transmit or any(client.has_output() for client in set(self.clients.values())):
            for datagram, destination in self.drain():
                self.arrive(datagram, destination)
            for client in set(self.clients.values()):
                client.flush()

    def drain(self) -> list[tuple[bytes, Address]]:
        sent = list(self.core.transmit)
        self.core.transmit.clear()
        return sent

    def arrive(self, datagram: bytes, destination: Address) -> None:
        if datagram[:1] == b"\x56":
            to, _ = decode_spp(datagram)
            datagram = datagram[HEADER_BYTES:]
        else:
            to = destination
        self.sent_bytes[to] = self.sent_bytes.get(to, 0) + len(datagram)
        client = self.clients.get(to)
        if client is None:
            self.lost.append((datagram, to))
        else:
            client.receive(datagram)

    def pass_time(self, seconds: float) -> None:
        """Let timers fire in their order; packets travel in no time."""
        until = self.now + seconds
        while True:
            times = [
                at for at in (self.core.calls.deadline(), *(c.dtls.deadline() for c in self.clients.values())) if at
            ]
            if not times or min(times) > until:
                break
            self.now = max(self.now, min(times))
            self.core.calls.advance(self.now)
            for client in set(self.clients.values()):
                if (at := client.dtls.deadline()) is not None and at <= self.now:
                    client.dtls.advance(self.now)
            self.settle()
        self.now = until
        self.core.calls.advance(until)
        self.settle()

    def drops(self) -> dict[DropReason, int]:
        return {reason: count for reason, count in self.core.drops.items() if count}


class Client:
    """A browser, as far as a transceiver can tell."""

    def __init__(
        self,
        world: World,
        address: Address,
        relay: Address | None,
        *,
        setup: SetupRole = SetupRole.ACTPASS,
        offered_digest: bytes | None = None,
        expected_digest: bytes | None = None,
        direction: str = "sendrecv",
        echo: bool = False,
    ) -> None:
        self.world = world
        self.address = address
        self.relay = relay
        self.identity = make_identity(PROFILES)
        self.ufrag = "c1ie"
        digest = offered_digest or self.identity.fingerprint.digest
        offer = (
            CHROMIUM.replace(DIGEST, digest.hex(":").upper())
            .replace("aB3+", self.ufrag)
            .replace("a=setup:actpass", f"a=setup:{setup}")
            .replace("a=sendrecv", f"a={direction}")
        )
        created = world.create(offer)
        self.answer = created.answer
        self.session = created.session
        self.heard = Recorder(self.session, echo=echo)
        self.server_ufrag = self.field("ice-ufrag")
        self.pwd = self.field("ice-pwd")
        self.ssrc = self.session.sending.ssrc
        fingerprint = self.world.identity.fingerprint
        self.we_are_client = self.field("setup") == "passive"
        self.dtls = Dtls(self.identity, [fingerprint], we_are_client=self.we_are_client, asks_for_cookie=False)
        self.srtp: Srtp | None = None
        self.answered: list[bytes] = []
        self.asked: list[bytes] = []  # checks of the transceiver
        self.answers_checks = True
        self.media: list[RtpPacket] = []
        self.raw_media: list[bytes] = []
        self.rtcp: list[bytes] = []
        self.data: list[bytes] = []
        self.sequence = 0
        self._queue: list[bytes] = []
        world.clients[address] = self

    def field(self, name: str) -> str:
        return re.search(rf"a={name}:(\S+)", self.answer)[1]

    # ---- what it sends

    def send(self, datagram: bytes, *, address: Address | None = None, relay: Address | None = None):
        """Send one datagram, also from where it does not live; gives the drop reason."""
        client, via = address or self.address, relay or self.relay
        if via is None:
            return self.world.core.receive(datagram, client, self.world.now)
        return self.world.core.receive(encode_spp(client, via) + datagram, via, self.world.now)

    def build_check(
        self, transaction: bytes | None = None, *, nominate: bool = True, pwd: str | None = None, **options
    ):
        return build_binding_request(
            transaction or os.urandom(12),
            options.pop("username", f"{self.server_ufrag}:{self.ufrag}"),
            (pwd or self.pwd).encode(),
            use_candidate=nominate,
            **options,
        )

    def check(self, *, address: Address | None = None, relay: Address | None = None, **options):
        return self.send(self.build_check(**options), address=address, relay=relay)

    def build_audio(self, payload: bytes = b"opus", *, sequence: int | None = None, ssrc: int = 77, payload_type=111):
        self.sequence += 1
        sequence = self.sequence if sequence is None else sequence
        assert self.srtp is not None
        protected = self.srtp.protect(
            build_rtp(RtpPacket(False, payload_type, sequence & 0xFFFF, sequence * 960 & 0xFFFFFFFF, ssrc, payload))
        )
        assert protected is not None
        return protected

    def speak(self, payload: bytes = b"opus", **options):
        return self.send(self.build_audio(payload, **options))

    def send_data(self, message: bytes) -> None:
        assert self.dtls.send(message)
        self.flush()

    # ---- what it gets

    def receive(self, datagram: bytes) -> None:
        kind = classify(datagram)
        if kind is Kind.STUN and not is_response(datagram):
            self.asked.append(datagram)
            request = parse_binding_request(datagram)
            assert verify_integrity(request, CLIENT_PWD)
            asker = self.world.core.calls.ufrags.sessions.get(request.client_ufrag)
            if self.answers_checks and asker in (None, self.session):  # None: it was restarted since
                self._queue.append(build_binding_success(request.transaction_id, RELAY, CLIENT_PWD))
        elif kind is Kind.STUN:
            response = parse_binding_response(datagram)
            self.answered.append(datagram)
            if response.mapped is not None and self.we_are_client:
                self.dtls.start(self.world.now)
        elif kind is Kind.DTLS:
            self.data += self.dtls.receive_untrusted(datagram, self.world.now) or []
            if self.srtp is None and self.dtls.keys is not None:
                self.srtp = Srtp(self.dtls.keys)
        elif kind is Kind.RTP:
            clear = self.srtp.unprotect_untrusted(datagram)
            self.raw_media.append(clear)
            self.media.append(parse_rtp(clear))
        elif kind is Kind.RTCP and self.srtp is not None:
            self.rtcp.append(self.srtp.unprotect_rtcp_untrusted(datagram))

    def has_output(self) -> bool:
        self._queue += self.dtls.poll()
        return bool(self._queue)

    def flush(self) -> None:
        self._queue += self.dtls.poll()
        queue, self._queue = self._queue, []
        for datagram in queue:
            self.send(datagram)
