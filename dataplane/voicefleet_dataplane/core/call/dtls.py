"""One DTLS 1.2 association (RFC 6347, DTLS-SRTP: RFC 5764) over OpenSSL's memory buffers, either role.

::

    as server   hello ──no cookie of ours──▶ HelloVerifyRequest, and nothing is kept
                      ──our cookie─────────▶ a handshake ─┐
    as client   our hello ────────────────────────────────┤
                                                          ├─ the peer's flight, signed by the right certificate ──▶ OpenSSL
                                                          └─ records of epoch 1, which OpenSSL opens or drops

Owns the handshake, its retransmission, the fingerprint check, the SRTP keys that come of it, and application data.
Does not own which messages of the peer are believed (core/call/dtls_flight.py), addresses, or how much may be sent before the
peer has proved itself (core/call/session.py).

Invariants
- `keys` is set only after the peer's certificate has matched an offered fingerprint, in both roles.
- OpenSSL is given nothing in clear that who spoofs the peer's address, and does not read its packets, could have made. One
  handshake at a time, and a bounded number of signatures, is all that forged datagrams can cost.
- No datagram ends the association but an authenticated close. Who answers under another certificate, and has signed our
  random, ends it when the right one has not come within MISMATCH_PATIENCE_S.
- A handshake that a bad message broke all the same starts again, at most MAX_RESTARTS times.
"""

from collections.abc import Sequence
from enum import StrEnum

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from voicefleet_dataplane.core.call.dtls_assembly import Assembly, messages_of
from voicefleet_dataplane.core.call.dtls_buffers import take_read, take_written, text_of
from voicefleet_dataplane.core.call.dtls_flight import PeerFlight
from voicefleet_dataplane.core.call.dtls_hello import VerifyRequests
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity, matches_fingerprint
from voicefleet_dataplane.core.call.dtls_repeat import Repetition
from voicefleet_dataplane.core.call.srtp import SrtpKeys, split_keying_material
from voicefleet_dataplane.wire.dtls_handshake import (
    HELLO_VERIFY_REQUEST,
    Fragment,
    Message,
    build_hello_verify_request,
    client_hello_cookie,
    hello_random,
    parse_fragments,
    record_sequence,
    verify_request_cookie,
)
from voicefleet_dataplane.wire.dtls_record import (
    CLIENT_HELLO,
    HANDSHAKE,
    is_plausible_in_clear,
    pack_datagrams,
    parse_records,
    record_epoch,
)
from voicefleet_dataplane.wire.sdp.model import Fingerprint

# 1,200 for the inner packet, less IPv6 and UDP headers and the relay's 38 bytes of SPP.
DTLS_MTU_BYTES = 1_200 - 48 - 38
MAX_RESTARTS = 4
MISMATCH_PATIENCE_S = 2.0
_MOST_HELD = 4  # records of epoch 1 that overtook the flight before them


class DtlsState(StrEnum):
    """Where the association is."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"
    FAILED = "failed"


class Dtls:
    """Feed datagrams and time in, drain `poll()` after each call."""

    def __init__(
        self,
        identity: DtlsIdentity,
        fingerprints: Sequence[Fingerprint],
        *,
        we_are_client: bool,
        asks_for_cookie: bool = True,
    ) -> None:
        """Without ``asks_for_cookie`` a server answers the first hello: for clients, whose one peer nobody is to imitate."""
        self._identity = identity
        self._fingerprints = tuple(fingerprints)
        self._we_are_client = we_are_client
        self._cookie = identity.cookie_for(self._fingerprints) if asks_for_cookie else b""
        self._connection: SSL.Connection | None = None  # a server has none before it has a hello with the cookie
        self._hellos = Assembly()  # of a client, which may come in parts
        self._hello_random: bytes | None = None  # of the one that the handshake answers
        self._verify_requests: VerifyRequests | None = None  # of a server
        self._peer_flight: PeerFlight | None = None  # None: not due, or OpenSSL has it
        self._held: list[bytes] = []
        self._numbered = 0  # the next record in clear that OpenSSL gets
        self._give_up_at: float | None = None
        self._outgoing: list[bytes] = []
        self._ours = Repetition()
        self._openssl_at: float | None = None
        self.state = DtlsState.NEW
        self.failure = ""
        self.keys: SrtpKeys | None = None
        self.restarts = 0

    def start(self, now: float) -> None:
        """As client send the hello; as server nothing happens until one arrives."""
        if self.state is DtlsState.NEW:
            self.state = DtlsState.CONNECTING
            if self._we_are_client:
                self._say_hello(now)

    def receive_untrusted(self, datagram: bytes, now: float) -> list[bytes] | None:
        """Take one datagram from a checked address. Gives application data, or None if nothing in it was usable."""
        records = parse_records(datagram)
        if records is None or self.state in (DtlsState.CLOSED, DtlsState.FAILED):
            return None
        if self.state is DtlsState.CONNECTED:
            return self._receive_connected(records, now)
        self.start(now)
        clear: list[Fragment] = []
        after: list[bytes] = []  # what OpenSSL may have once it has the peer's flight
        usable = False
        for record in records:
            if record_epoch(record) == 1:
                after.append(record)
            elif record_epoch(record) == 0 and is_plausible_in_clear(record, from_client=not self._we_are_client):
                if record[0] == HANDSHAKE:
                    fragments = parse_fragments(record)
                    self._receive_hellos(fragments, record_sequence(record), now)
                    clear.extend(fragments)
                    usable = True
                else:
                    after.append(self._renumbered(record))
        if not usable and not after:
            return None
        restarts = self.restarts
        self._receive_flight(clear, after, now)
        if self.restarts != restarts:
            return None
        return [] if self.keys is None else self._read()

    def send(self, data: bytes) -> bool:
        """Encrypt application data; False when there is no association to carry it."""
        if self.state is not DtlsState.CONNECTED or self._connection is None:
            return False
        try:
            self._connection.send(data)
        except SSL.Error:
            return False
        self._collect()
        return True

    def close(self) -> None:
        """Say close_notify, or answer the peer's (RFC 5246 section 7.2.1)."""
        if self.state in {DtlsState.CONNECTED, DtlsState.CLOSED}:
            self._shutdown()
        if self.state is not DtlsState.FAILED:
            self.state = DtlsState.CLOSED
        self._quiet()

    def poll(self) -> list[bytes]:
        """Datagrams to send, each within the MTU; draining forgets them."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def deadline(self) -> float | None:
        """When `advance` wants to be called."""
        asked = None if self._verify_requests is None else self._verify_requests.due()
        times = [at for at in (self._ours.at, self._openssl_at, self._give_up_at, asked) if at is not None]
        return min(times) if times else None

    def advance(self, now: float) -> None:
        """Repeat what is due."""
        if self._give_up_at is not None and now >= self._give_up_at:
            self._fail("fingerprint_mismatch")
            return
        asked = None if self._verify_requests is None else self._verify_requests.due()
        if asked is not None and now >= asked:
            self._believe_verify_request(now)
        repeated = self._ours.due(now)
        self._outgoing.extend(repeated)
        if repeated and self._verify_requests is not None:
            self._verify_requests.hellos += 1
        if self._openssl_at is not None and now >= self._openssl_at and self._connection is not None:
            try:
                self._connection.DTLSv1_handle_timeout()
            except SSL.Error:
                # It counts its own timeouts and gives up; our repetition and the setup limit go on.
                self._openssl_at = None
                return
            self._collect()
            self._arm_openssl(now)

    @property
    def flight(self) -> int | None:
        """The number of our flight that the peer has not answered yet; None when the handshake is over."""
        return self._ours.flights if self.state is DtlsState.CONNECTING else None

    # ---- hellos

    def _say_hello(self, now: float) -> None:
        connection = self._identity.build_connection(we_are_client=True, mtu_bytes=DTLS_MTU_BYTES)
        self._take(connection)
        self._handshake(now)
        self._verify_requests = VerifyRequests(now)
        self._expect_flight(connection.client_random() or b"", first_sequence=0)

    def _receive_hellos(self, fragments: list[Fragment], number: int, now: float) -> None:
        """A client's is answered with the request for a cookie, or starts a handshake; a server's request is remembered."""
        for fragment in fragments:
            if fragment.kind == HELLO_VERIFY_REQUEST and fragment.is_whole and self._verify_requests is not None:
                if verify_request_cookie(fragment.data) is not None:
                    self._verify_requests.note(fragment.data)
            elif fragment.kind == CLIENT_HELLO:
                for hello in self._hellos.add(fragment):
                    cookie = client_hello_cookie(hello.body)
                    if hello.sequence == bool(self._cookie) and cookie == self._cookie:
                        self._accept(hello, number, now)
                    elif cookie is not None:
                        self._outgoing.append(build_hello_verify_request(self._cookie, number))

    def _accept(self, hello: Message, number: int, now: float) -> None:
        """Answer a hello of the client's, which has shown that it gets what we send. Another random is another handshake."""
        random = hello_random(hello.body)
        if random == self._hello_random or self.restarts > MAX_RESTARTS:
            return
        if self._hello_random is not None:
            self.restarts += 1
        self._hello_random = random
        connection = self._identity.build_connection(we_are_client=False, mtu_bytes=DTLS_MTU_BYTES, cookie=self._cookie)
        connection.bio_write(hello.to_record(number))
        if self._cookie:
            try:
                connection.DTLSv1_listen()
            except SSL.Error:
                return
        self._take(connection)
        self._numbered = number + 1
        self._handshake(now)
        ours = b"".join(message.encode() for message in messages_of(self._ours.flight))
        self._expect_flight(hello.encode() + ours, first_sequence=hello.sequence + 1)

    def _believe_verify_request(self, now: float) -> None:
        assert self._verify_requests is not None
        request = Message(HELLO_VERIFY_REQUEST, 0, self._verify_requests.most_seen())
        self._verify_requests = None
        self._give([request.to_record(self._number())], now)
        if self._connection is not None and self.state is DtlsState.CONNECTING:
            self._expect_flight(self._connection.client_random() or b"", first_sequence=1)

    # ---- the peer's flight

    def _expect_flight(self, signed_before: bytes, first_sequence: int) -> None:
        self._peer_flight = PeerFlight(
            self._fingerprints,
            from_client=not self._we_are_client,
            signed_before=signed_before,
            first_sequence=first_sequence,
        )

    def _receive_flight(self, clear: list[Fragment], after: list[bytes], now: float) -> None:
        flight = self._peer_flight
        if flight is not None:
            messages = flight.add(clear, now) if clear else []
            if not messages:
                self._held = [*self._held, *after][-_MOST_HELD:]
                if flight.signed_by_another and self._give_up_at is None:
                    self._give_up_at = now + MISMATCH_PATIENCE_S
                return
            after = [*(message.to_record(self._number()) for message in messages), *self._held, *after]
            self._peer_flight, self._verify_requests, self._held = None, None, []
        if after and self._connection is not None:
            self._give(after, now)

    def _give(self, records: list[bytes], now: float) -> None:
        assert self._connection is not None
        self._connection.bio_write(b"".join(records))
        self._handshake(now)

    def _number(self) -> int:
        """The number of the next record in clear: OpenSSL takes each once."""
        self._numbered += 1
        return self._numbered - 1

    def _renumbered(self, record: bytes) -> bytes:
        return record[:5] + self._number().to_bytes(6) + record[11:]

    # ---- OpenSSL

    def _take(self, connection: SSL.Connection) -> None:
        self._connection, self._peer_flight, self._verify_requests = connection, None, None
        self._held, self._numbered = [], 0

    def _handshake(self, now: float) -> None:
        assert self._connection is not None
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._collect_flight(now)
            return
        except SSL.Error as error:
            self._restart(text_of(error), now)
            return
        self._collect_flight(now)
        self._complete(self._connection)

    def _complete(self, connection: SSL.Connection) -> None:
        """The peer holds the key of the certificate it showed. Is it the certificate that the offer named?"""
        self._ours.stop(forget=self._we_are_client)  # a server keeps its own for a client that repeats
        self._openssl_at = self._give_up_at = None
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None or not matches_fingerprint(certificate.public_bytes(Encoding.DER), self._fingerprints):
            self._fail("fingerprint_mismatch")
            return
        chosen = connection.get_selected_srtp_profile().decode()
        profile = next((profile for profile in self._identity.profiles if profile.name == chosen), None)
        if profile is None:
            self._fail("no_srtp_profile")
            return
        material = connection.export_keying_material(b"EXTRACTOR-dtls_srtp", profile.keying_material_bytes)
        self.keys = split_keying_material(profile, material, we_are_client=self._we_are_client)
        self.state = DtlsState.CONNECTED

    def _receive_connected(self, records: list[bytes], now: float) -> list[bytes] | None:
        current = [record for record in records if record_epoch(record) == 1]
        if len(current) < len(records):  # the peer is still in its handshake
            self._outgoing.extend(self._ours.asked(now))
        if not current or self._connection is None:
            return None
        self._connection.bio_write(b"".join(current))
        return self._read()

    def _read(self) -> list[bytes]:
        assert self._connection is not None
        messages, closed = take_read(self._connection)
        if closed:
            self.state = DtlsState.CLOSED
            self._quiet()
        if messages and not self._we_are_client:
            self._ours.stop()  # the client uses the keys, so it has our last flight
        self._collect()
        return messages

    def _restart(self, why: str, now: float) -> None:
        """OpenSSL took a message for fatal: the peer's own, or forged by who reads its packets. Forget the handshake, not the call."""
        self.restarts += 1
        self.failure = why
        self._outgoing.clear()
        self._quiet()
        if self.restarts > MAX_RESTARTS:
            self._fail("dtls_failed")
            return
        self._connection = self._peer_flight = self._hello_random = None
        if self._we_are_client:
            self._say_hello(now)

    def _fail(self, reason: str) -> None:
        self._shutdown()
        self._quiet()
        self.state = DtlsState.FAILED
        self.failure = reason

    def _shutdown(self) -> None:
        if self._connection is not None:
            try:
                self._connection.shutdown()
            except SSL.Error:
                return
            self._collect()

    def _quiet(self) -> None:
        self._ours.stop()
        self._openssl_at = self._give_up_at = None

    def _collect_flight(self, now: float) -> None:
        flight = self._collect()
        if flight:
            self._ours.begin(flight, now)
        self._arm_openssl(now)

    def _arm_openssl(self, now: float) -> None:
        remaining_s = None if self._connection is None else self._connection.DTLSv1_get_timeout()
        self._openssl_at = None if remaining_s is None else now + remaining_s

    def _collect(self) -> list[bytes]:
        written = b"" if self._connection is None else take_written(self._connection)
        datagrams = list(pack_datagrams(written, DTLS_MTU_BYTES))
        self._outgoing.extend(datagrams)
        return datagrams
