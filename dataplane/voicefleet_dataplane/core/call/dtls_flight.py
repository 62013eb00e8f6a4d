"""The peer's one flight in clear, let through to OpenSSL whole, and after its signature has been verified.

::

    we are client:  ServerHello  Certificate  ServerKeyExchange  [CertificateRequest]  ServerHelloDone
                        └─ random ─┐               └─ signed with the certificate's key: our random, its random, its point
    we are server:  Certificate  ClientKeyExchange  CertificateVerify
                                        └──────────────── signed with the certificate's key: all messages up to here

OpenSSL takes what it is given, and a handshake that swallowed one forged message is lost: the peer never says hello again. So
nothing reaches it before it is signed by a certificate that the offer named, over randoms that only who has read our packets
knows. Forged messages lie beside the true ones meanwhile, the newest few of each kind, and signatures are verified at a bounded
rate. That of a datagram that holds the right certificate is looked at always: who is not on the path does not have it.

Nobody signs CertificateRequest and ServerHelloDone. They are taken from the datagram of a message that is signed where there is
a choice; so is a ServerHello's rest beside its random. Who can read the peer's packets can forge these, and with them end
the handshake, as with a HelloVerifyRequest or by dropping packets (docs/security.md).

Owns: which messages are believed. Does not own: fragments (core/call/dtls_assembly.py), records, what OpenSSL then says of it.
"""

from collections.abc import Iterator, Sequence

from voicefleet_dataplane.core.call.dtls_assembly import Assembly
from voicefleet_dataplane.core.call.dtls_identity import matches_fingerprint
from voicefleet_dataplane.core.call.dtls_signature import is_signed_by
from voicefleet_dataplane.core.limits import RateLimit
from voicefleet_dataplane.wire.dtls_handshake import (
    CERTIFICATE,
    CERTIFICATE_REQUEST,
    CERTIFICATE_VERIFY,
    CLIENT_KEY_EXCHANGE,
    SERVER_HELLO,
    SERVER_HELLO_DONE,
    SERVER_KEY_EXCHANGE,
    Fragment,
    Message,
    first_certificate,
    hello_random,
    split_key_exchange,
    split_signature,
)
from voicefleet_dataplane.wire.sdp.model import Fingerprint

MOST_OF_A_KIND = 8
LARGEST_BYTES = 4_096  # of any but a chain of certificates
MOST_VERIFIED = 3  # signatures for one datagram
VERIFIED_PER_S, VERIFIED_AT_ONCE = 50.0, 16.0
_FROM_SERVER = (SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE)
_FROM_CLIENT = (CERTIFICATE, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY)
_RIGHT, _WRONG = "the certificate that was offered", "another one"


class PeerFlight:
    """Messages of one handshake. ``signed_before``: our random as client, the transcript so far as server."""

    def __init__(
        self, fingerprints: Sequence[Fingerprint], *, from_client: bool, signed_before: bytes, first_sequence: int
    ) -> None:
        self.first_sequence = first_sequence
        self.signed_by_another = False  # who has read our packets has answered, with a certificate that no offer named
        self._fingerprints = fingerprints
        self._from_client = from_client
        self._signed_before = signed_before
        self._assembly = Assembly()
        self._kinds: dict[int, dict[Message, int]] = {  # by kind; the datagram in which each came last; newest last
            kind: {} for kind in (_FROM_CLIENT if from_client else _FROM_SERVER)
        }
        self._right: set[Message] = set()  # the certificates among them that the offer named
        self._datagram = 0
        self._new: set[Message] = set()  # of the datagram under way
        self._signed: tuple[Message, ...] = ()  # what the signature has proven, in order
        self._rate = RateLimit(VERIFIED_PER_S, VERIFIED_AT_ONCE, max_keys=2)
        self._tried = 0

    def add(self, fragments: Sequence[Fragment], now: float) -> list[Message]:
        """Take the fragments of one datagram; gives the whole flight once all of it is there and to be believed."""
        self._datagram += 1
        self._new.clear()
        for fragment in fragments:
            for message in self._assembly.add(fragment):
                self._keep(message)
        if not self._signed:
            self._tried = 0
            self._signed = self._client_signed(now) if self._from_client else self._server_signed(now)
        if not self._signed:
            return []
        return list(self._signed) if self._from_client else self._with_the_end(self._signed)

    def _keep(self, message: Message) -> None:
        known = self._kinds.get(message.kind)
        if known is None or message.sequence < self.first_sequence:
            return
        if len(message.body) > LARGEST_BYTES and message.kind != CERTIFICATE:
            return
        if message.kind == CERTIFICATE and message not in known:
            certificate = first_certificate(message.body)
            if certificate is None:
                return
            if matches_fingerprint(certificate, self._fingerprints):
                self._right.add(message)
        known.pop(message, None)
        known[message] = self._datagram
        self._new.add(message)
        if len(known) > MOST_OF_A_KIND:
            forgotten = next((one for one in known if one not in self._right), next(iter(known)))
            del known[forgotten]
            self._right.discard(forgotten)
            self._new.discard(forgotten)

    def _server_signed(self, now: float) -> tuple[Message, ...]:
        for certificate, exchange, hello in self._to_try(
            (CERTIFICATE, self.first_sequence + 1),
            (SERVER_KEY_EXCHANGE, self.first_sequence + 2),
            (SERVER_HELLO, self.first_sequence),
        ):
            split, random = split_key_exchange(exchange.body), hello_random(hello.body)
            if split is None or random is None:
                continue
            signed, scheme, signature = split
            if self._verify(certificate, scheme, signature, self._signed_before + random + signed, now):
                return hello, certificate, exchange
        return ()

    def _client_signed(self, now: float) -> tuple[Message, ...]:
        for certificate, verify, exchange in self._to_try(
            (CERTIFICATE, self.first_sequence),
            (CERTIFICATE_VERIFY, self.first_sequence + 2),
            (CLIENT_KEY_EXCHANGE, self.first_sequence + 1),
        ):
            split = split_signature(verify.body)
            signed = self._signed_before + certificate.encode() + exchange.encode()
            if split is not None and self._verify(certificate, *split, signed, now):
                return certificate, exchange, verify
        return ()

    def _to_try(self, *places: tuple[int, int]) -> Iterator[tuple[Message, Message, Message]]:
        """Sets of three that this datagram has completed, the likeliest first: of the right certificate all, of another one the newest."""
        certificates, second, third = (self._standing(kind, sequence) for kind, sequence in places)
        right = [one for one in certificates if one in self._right]
        if not right and not self.signed_by_another:
            certificates, second, third = certificates[:1], second[:1], third[:1]
        else:
            certificates = right
        for certificate in certificates:
            # Without a new message among them a set has been tried before, or will be tried when it comes again.
            for one in self._beside(second, certificate):
                news = self._new if certificate not in self._new and one not in self._new else None
                for other in self._beside(third, one):
                    if self._may_try and (news is None or other in news):
                        yield certificate, one, other

    def _standing(self, kind: int, sequence: int) -> list[Message]:
        return [one for one in reversed(self._kinds[kind]) if one.sequence == sequence]

    def _beside(self, found: list[Message], message: Message) -> list[Message]:
        """Those of the same datagram first."""
        datagram = self._kinds[message.kind][message]
        return sorted(found, key=lambda one: self._kinds[one.kind][one] != datagram) if len(found) > 1 else found

    def _verify(self, message: Message, scheme: int, signature: bytes, signed: bytes, now: float) -> bool:
        certificate, right = first_certificate(message.body), message in self._right
        certain = right and self._tried == 0 and message in self._new
        if certificate is None or (not certain and self._rate.take(_RIGHT if right else _WRONG, now)):
            self._tried = MOST_VERIFIED
            return False
        self._tried += 1
        if not is_signed_by(certificate, scheme, signature, signed):
            return False
        self.signed_by_another |= not right
        return right

    @property
    def _may_try(self) -> bool:
        return self._tried < MOST_VERIFIED

    def _with_the_end(self, signed: tuple[Message, ...]) -> list[Message]:
        """Add what no signature covers: from the datagram of the key exchange, if there is a choice.

        A server that asks for no certificate is believed that only if the same datagram says so.
        """
        exchange = signed[-1]
        for request in self._beside(self._standing(CERTIFICATE_REQUEST, exchange.sequence + 1), exchange):
            for end in self._beside(self._standing(SERVER_HELLO_DONE, exchange.sequence + 2), request):
                return [*signed, request, end]
        ends = self._kinds[SERVER_HELLO_DONE]
        end = Message(SERVER_HELLO_DONE, exchange.sequence + 1, b"")
        if ends.get(end) == self._kinds[SERVER_KEY_EXCHANGE][exchange]:
            return [*signed, end]
        return []
