"""Hellos and certificates as other stacks have them: in two and three fragments in any order, of DTLS 1.3, of odd keys."""

import datetime as dt
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.dtls import make_identity, run_handshake
from voicefleet_dataplane.core.call.dtls import Dtls, DtlsState
from voicefleet_dataplane.core.call.dtls_assembly import Assembly, messages_of
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity
from voicefleet_dataplane.wire.dtls_handshake import SERVER_HELLO, Message, parse_fragments
from voicefleet_dataplane.wire.dtls_record import HANDSHAKE, parse_records, record_epoch

CONNECTED = (DtlsState.CONNECTED, DtlsState.CONNECTED)
RSA_8192 = Path(__file__).parents[1] / "support" / "rsa_8192.pem"  # it takes half a minute to make one
KEYS = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RSA-2048": lambda: rsa.generate_private_key(65_537, 2_048),
    "RSA-8192": lambda: load_pem_private_key(RSA_8192.read_bytes(), None, unsafe_skip_rsa_key_validation=True),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
# OpenSSL as a server of DTLS 1.2 finds no cipher suite for an Ed25519 key; as a client it has one.
PEERS = [(kind, is_client) for kind in KEYS for is_client in (False, True) if (kind, is_client) != ("Ed25519", True)]
CLIENT_HELLO = 1
SUPPORTED_VERSIONS, KEY_SHARE, SUPPORTED_GROUPS = 43, 51, 10
X25519_MLKEM768, X25519, P256 = 0x11EC, 0x001D, 0x0017
DTLS_1_3, DTLS_1_2 = 0xFEFC, 0xFEFD


def identity_of(key) -> DtlsIdentity:
    """A self-signed certificate of any kind of key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "WebRTC")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=30))
    return DtlsIdentity(key, made.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()))


def pair(theirs: DtlsIdentity, *, we_are_client: bool) -> tuple[Dtls, Dtls]:
    """A client and a server; one of them has this identity."""
    ours = make_identity()
    us = Dtls(ours, [theirs.fingerprint], we_are_client=we_are_client)
    them = Dtls(theirs, [ours.fingerprint], we_are_client=not we_are_client)
    return (us, them) if we_are_client else (them, us)


class Cut:
    """Puts each ClientHello together and cuts it into so many fragments, which go in this order, some of them twice."""

    def __init__(self, order: tuple[int, ...], change: Callable[[bytes], bytes] = lambda hello: hello) -> None:
        self._order, self._change = order, change
        self._assembly = Assembly()
        self._records = 1_000
        self.longest = 0

    def __call__(self, datagram: bytes) -> list[bytes]:
        records = parse_records(datagram) or []
        found = [one for record in records if record[0] == HANDSHAKE for one in parse_fragments(record)]
        if [one.kind for one in found] != [CLIENT_HELLO] or record_epoch(records[0]):
            return [datagram]
        return [piece for whole in self._assembly.add(found[0])[:1] for piece in self._pieces(whole)]

    def _pieces(self, whole: Message) -> list[bytes]:
        hello = self._change(whole.body)
        self.longest = max(self.longest, len(hello))
        size = -(-len(hello) // (1 + max(self._order)))
        return [self._piece(whole.sequence, hello, number * size, size) for number in self._order]

    def _piece(self, sequence: int, hello: bytes, at: int, size: int) -> bytes:
        part = hello[at : at + size]
        self._records += 1
        head = bytes((CLIENT_HELLO,)) + len(hello).to_bytes(3) + sequence.to_bytes(2)
        body = head + at.to_bytes(3) + len(part).to_bytes(3) + part
        return bytes((HANDSHAKE, 0xFE, 0xFD, 0, 0)) + self._records.to_bytes(6) + len(body).to_bytes(2) + body


ORDERS = [*itertools.permutations(range(2)), *itertools.permutations(range(3)), (1, 0, 1), (2, 2, 0, 1), (0, 1, 0, 2)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_hello_longer_than_a_datagram_in_fragments_leads_to_keys(order):
    theirs = make_identity()
    # As long as post-quantum key shares make it, which DTLS of this OpenSSL does not have.
    theirs._context.set_alpn_protos([b"p" * 200 + bytes([number]) for number in range(8)])
    client, server = pair(theirs, we_are_client=False)
    cut = Cut(order)
    run_handshake(client, server, cut=cut)
    assert cut.longest > 1_600
    assert (client.state, server.state) == CONNECTED
    assert client.keys is not None
    assert server.keys is not None
    assert (client.keys.send, client.keys.receive) == (server.keys.receive, server.keys.send)


@pytest.mark.parametrize("order", [(0, 1), (2, 0, 1)], ids=str)
def test_such_a_hello_gets_through_a_link_that_loses(order):
    theirs = make_identity()
    theirs._context.set_alpn_protos([b"p" * 200 + bytes([number]) for number in range(8)])
    for seed in range(5):
        client, server = pair(theirs, we_are_client=False)
        run_handshake(client, server, cut=Cut(order), loss=0.2, seed=seed)
        assert (client.state, server.state) == CONNECTED, seed


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2) + len(body).to_bytes(2) + body


def of_1_3(hello: bytes, *, first: bool) -> bytes:
    """The same hello from a client that can do DTLS 1.3, too: its versions, groups and key shares (RFC 9147 section 5.3)."""
    at = 34
    at += 1 + hello[at]  # session
    at += 1 + hello[at]  # cookie
    at += 2 + int.from_bytes(hello[at : at + 2])  # cipher suites
    at += 1 + hello[at]  # compression
    shares = b"".join(
        group.to_bytes(2) + size.to_bytes(2) + b"\x42" * size
        for group, size in ((X25519_MLKEM768, 1_216), (X25519, 32))
    )
    new = extension(SUPPORTED_VERSIONS, b"\x04" + DTLS_1_3.to_bytes(2) + DTLS_1_2.to_bytes(2))
    new += extension(KEY_SHARE, len(shares).to_bytes(2) + shares)
    new += extension(45, b"\x01\x01") + extension(0x0A0A, b"")  # psk_key_exchange_modes; GREASE (RFC 8701)
    old = b""
    rest = hello[at + 2 :]
    while rest:
        kind, size = int.from_bytes(rest[:2]), int.from_bytes(rest[2:4])
        groups = X25519_MLKEM768.to_bytes(2) + X25519.to_bytes(2) + P256.to_bytes(2)
        old += extension(kind, len(groups).to_bytes(2) + groups if kind == SUPPORTED_GROUPS else rest[4 : 4 + size])
        rest = rest[4 + size :]
    extensions = new + old if first else old + new
    return hello[:at] + len(extensions).to_bytes(2) + extensions


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("order", [(0,), (1, 0), (2, 0, 1)], ids=str)
def test_a_hello_of_1_3_with_a_post_quantum_key_share_is_answered_in_1_2(first, order):
    """Up to the server's flight: clients that can go on are browsers (tests/interop)."""
    client, server = pair(make_identity(), we_are_client=False)
    client.start(0.0)
    cut = Cut(order, lambda hello: of_1_3(hello, first=first))
    answers = []
    for _ in range(2):  # the server asks for its cookie first (RFC 6347 section 4.2.1)
        for datagram in client.poll():
            for piece in cut(datagram):
                assert server.receive_untrusted(piece, 0.0) == []
        answers = server.poll()
        for answer in answers:
            client.receive_untrusted(answer, 0.0)
        client.advance(client.deadline())
    assert cut.longest > 1_300
    (answer,) = [message for message in messages_of(answers) if message.kind == SERVER_HELLO]
    assert int.from_bytes(answer.body[:2]) == DTLS_1_2
    assert server.state is DtlsState.CONNECTING


@pytest.mark.parametrize(("kind", "we_are_client"), PEERS)
def test_a_certificate_of_any_usual_key_leads_to_keys(kind, we_are_client):
    client, server = pair(identity_of(KEYS[kind]()), we_are_client=we_are_client)
    run_handshake(client, server)
    assert (client.state, server.state) == CONNECTED
    assert client.keys is not None
    assert server.keys is not None
    assert (client.keys.send, client.keys.receive) == (server.keys.receive, server.keys.send)


@pytest.mark.parametrize(
    ("kind", "we_are_client"), [peer for peer in PEERS if peer[0] in ("P-521", "RSA-8192", "Ed25519")]
)
def test_such_a_certificate_gets_through_a_link_that_loses(kind, we_are_client):
    theirs = identity_of(KEYS[kind]())
    for seed in range(3):
        client, server = pair(theirs, we_are_client=we_are_client)
        run_handshake(client, server, loss=0.15, seed=seed)
        assert (client.state, server.state) == CONNECTED, seed
