"""One DTLS 1.2 association (RFC 6347, DTLS-SRTP: RFC 5764) over OpenSSL's memory buffers, either role.

Owns the handshake, its retransmission, the fingerprint check, the SRTP keys that come of it, and application data.
Does not own addresses or how much may be sent before the peer has proved itself (core/call/session.py).

Invariants
- `keys` is set only after the peer's certificate has matched an offered fingerprint, in both roles.
- No datagram ends the association but an authenticated close, or a completed handshake with the wrong certificate.
  A handshake that a bad message broke starts again, at most MAX_RESTARTS times.

Time. OpenSSL runs its retransmission timer on its own clock and starts at one second, which a caller hears. So we
repeat the last flight ourselves, byte for byte, 100 ms after it went out and then at doubling intervals. To a peer
that has the records already they are replays and cost nothing. Only a repeated *last* flight needs new record numbers:
there OpenSSL's timer is the fallback, and a server repeats its last flight when it sees the client repeat.
"""

from collections.abc import Sequence
from enum import StrEnum

from OpenSSL import SSL

from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity, matches_fingerprint
from voicefleet_dataplane.core.call.srtp import SrtpKeys, split_keying_material
from voicefleet_dataplane.wire.dtls_record import (
    client_hello_random,
    is_plausible_in_clear,
    pack_datagrams,
    parse_records,
    record_epoch,
)
from voicefleet_dataplane.wire.sdp.model import Fingerprint

# 1,200 for the inner packet, less IPv6 and UDP headers and the relay's 38 bytes of SPP.
DTLS_MTU_BYTES = 1_200 - 48 - 38
FIRST_REPEAT_S = 0.1
LONGEST_REPEAT_S = 2.0
MAX_RESTARTS = 16

_READ_BYTES = 1 << 16
_ANOTHER_HELLO = "another ClientHello"


class DtlsState(StrEnum):
    """Where the association is."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"
    FAILED = "failed"


class Dtls:
    """Feed datagrams and time in, drain `poll()` after each call."""

    def __init__(self, identity: DtlsIdentity, fingerprints: Sequence[Fingerprint], *, we_are_client: bool) -> None:
        self._identity = identity
        self._fingerprints = tuple(fingerprints)
        self._we_are_client = we_are_client
        self._connection = identity.build_connection(we_are_client=we_are_client, mtu_bytes=DTLS_MTU_BYTES)
        self._outgoing: list[bytes] = []
        self._flight: list[bytes] = []
        self._repeat_at: float | None = None
        self._repeat_after_s = FIRST_REPEAT_S
        self._openssl_at: float | None = None
        self._may_repeat_last_flight_at = 0.0
        self._hello_random: bytes | None = None
        self.state = DtlsState.NEW
        self.failure = ""
        self.keys: SrtpKeys | None = None
        self.restarts = 0

    def start(self, now: float) -> None:
        """As client send the hello; as server nothing happens until one arrives."""
        if self.state is DtlsState.NEW:
            self.state = DtlsState.CONNECTING
            self._handshake(now)

    def receive_untrusted(self, datagram: bytes, now: float) -> list[bytes] | None:
        """Take one datagram from a checked address. Gives application data, or None if nothing in it was usable."""
        records = parse_records(datagram)
        if records is None or self.state in (DtlsState.CLOSED, DtlsState.FAILED):
            return None
        if self.state is DtlsState.CONNECTED:
            return self._receive_connected(records, now)
        self.start(now)
        # Records of epoch 1 pass unseen: OpenSSL keeps them until it has the keys, and drops what does not open.
        plausible = [
            record
            for record in records
            if record_epoch(record) == 1
            or (record_epoch(record) == 0 and is_plausible_in_clear(record, from_client=not self._we_are_client))
        ]
        if not plausible:
            return None
        restarts = self.restarts
        if not self._we_are_client and self._is_another_hello(plausible):
            self._restart(_ANOTHER_HELLO, now)
        self._connection.bio_write(b"".join(plausible))
        self._handshake(now)
        if self.restarts != restarts and self.failure != _ANOTHER_HELLO:
            return None
        return [] if self.keys is None else self._read()

    def send(self, data: bytes) -> bool:
        """Encrypt application data; False when there is no association to carry it."""
        if self.state is not DtlsState.CONNECTED:
            return False
        try:
            self._connection.send(data)
        except SSL.Error:
            return False
        self._collect()
        return True

    def close(self) -> None:
        """Say close_notify, or answer the peer's (RFC 5246 section 7.2.1): relays read from it that the call is over."""
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
        times = [at for at in (self._repeat_at, self._openssl_at) if at is not None]
        return min(times) if times else None

    def advance(self, now: float) -> None:
        """Repeat what is due."""
        if self._repeat_at is not None and now >= self._repeat_at:
            self._outgoing.extend(self._flight)
            self._repeat_after_s = min(2 * self._repeat_after_s, LONGEST_REPEAT_S)
            self._repeat_at = now + self._repeat_after_s
        if self._openssl_at is not None and now >= self._openssl_at:
            try:
                self._connection.DTLSv1_handle_timeout()
            except SSL.Error:
                # It counts its own timeouts and gives up; our repetition and the setup limit go on.
                self._openssl_at = None
                return
            self._collect()
            self._arm_openssl(now)

    def _handshake(self, now: float) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._collect_flight(now)
            return
        except SSL.Error as error:
            self._restart(_text_of(error), now)
            return
        self._collect_flight(now)
        self._complete()

    def _complete(self) -> None:
        """The peer holds the key of the certificate it showed. Is it the certificate that the offer named?"""
        self._repeat_at = self._openssl_at = None
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        if certificate is None or not matches_fingerprint(certificate, self._fingerprints):
            self._fail("fingerprint_mismatch")
            return
        chosen = self._connection.get_selected_srtp_profile().decode()
        profile = next((profile for profile in self._identity.profiles if profile.name == chosen), None)
        if profile is None:
            self._fail("no_srtp_profile")
            return
        material = self._connection.export_keying_material(b"EXTRACTOR-dtls_srtp", profile.keying_material_bytes)
        self.keys = split_keying_material(profile, material, we_are_client=self._we_are_client)
        self.state = DtlsState.CONNECTED
        if self._we_are_client:
            self._flight = []  # the server's Finished answers it; a server keeps its own for a client that repeats

    def _receive_connected(self, records: list[bytes], now: float) -> list[bytes] | None:
        current = [record for record in records if record_epoch(record) == 1]
        if len(current) < len(records) and self._flight and now >= self._may_repeat_last_flight_at:
            # The peer is still in its handshake: it has not got our last flight. At most one repetition per interval.
            self._outgoing.extend(self._flight)
            self._may_repeat_last_flight_at = now + FIRST_REPEAT_S
        if not current:
            return None
        self._connection.bio_write(b"".join(current))
        return self._read()

    def _read(self) -> list[bytes]:
        messages: list[bytes] = []
        while True:
            try:
                messages.append(self._connection.recv(_READ_BYTES))
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self.state = DtlsState.CLOSED
                self._quiet()
                break
            except SSL.Error:
                if self._connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
                    self.state = DtlsState.CLOSED
                    self._quiet()
                break
        if messages and not self._we_are_client:
            self._flight = []  # the client uses the keys, so it has our last flight
        self._collect()
        return messages

    def _is_another_hello(self, records: list[bytes]) -> bool:
        """Somebody who spoofs a checked address may say hello first (CVE-2023-49786); the true client's hello, with
        another random, must still get its handshake. It starts ours again, within MAX_RESTARTS.
        """
        for record in records:
            random = client_hello_random(record)
            if random is not None and random != self._hello_random:
                known, self._hello_random = self._hello_random, random
                return known is not None and self.restarts < MAX_RESTARTS
        return False

    def _restart(self, why: str, now: float) -> None:
        """A message that OpenSSL took for fatal, or a second hello: forget the handshake, not the call."""
        self.restarts += 1
        self.failure = why
        self._outgoing.clear()
        self._quiet()
        if self.restarts > MAX_RESTARTS:
            self._fail("dtls_failed")
            return
        self._connection = self._identity.build_connection(we_are_client=self._we_are_client, mtu_bytes=DTLS_MTU_BYTES)
        if self._we_are_client:
            self._handshake(now)

    def _fail(self, reason: str) -> None:
        self._shutdown()
        self._quiet()
        self.state = DtlsState.FAILED
        self.failure = reason

    def _shutdown(self) -> None:
        try:
            self._connection.shutdown()
        except SSL.Error:
            return
        self._collect()

    def _quiet(self) -> None:
        self._flight = []
        self._repeat_at = self._openssl_at = None

    def _collect_flight(self, now: float) -> None:
        flight = self._collect()
        if flight:
            self._flight = flight
            self._repeat_after_s = FIRST_REPEAT_S
            self._repeat_at = now + self._repeat_after_s
        self._arm_openssl(now)

    def _arm_openssl(self, now: float) -> None:
        remaining_s = self._connection.DTLSv1_get_timeout()
        self._openssl_at = None if remaining_s is None else now + remaining_s

    def _collect(self) -> list[bytes]:
        written = bytearray()
        while True:
            try:
                written += self._connection.bio_read(_READ_BYTES)
            except SSL.Error:
                break
        datagrams = list(pack_datagrams(bytes(written), DTLS_MTU_BYTES))
        self._outgoing.extend(datagrams)
        return datagrams


def _text_of(error: SSL.Error) -> str:
    return str(error.args[0][-1][-1]) if error.args and error.args[0] else "handshake error"
