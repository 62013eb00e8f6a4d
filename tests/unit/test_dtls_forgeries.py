"""A handshake among forged datagrams from the peer's own address: the true flight gets through, at a bounded cost.

*Blind*: who spoofs the address and reads nothing. *Reading*: who reads our packets as well, and so answers our hello with a
certificate of his own.
"""

import random

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.dtls import make_identity, make_pair, run_handshake
from voicefleet_dataplane.core.call import dtls, dtls_flight
from voicefleet_dataplane.core.call.dtls import MISMATCH_PATIENCE_S, Dtls, DtlsState
from voicefleet_dataplane.core.call.dtls_assembly import MOST_GROUPS, MOST_PARTS, Assembly
from voicefleet_dataplane.core.call.dtls_flight import VERIFIED_AT_ONCE, VERIFIED_PER_S
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity
from voicefleet_dataplane.wire.dtls_handshake import (
    CERTIFICATE,
    CERTIFICATE_REQUEST,
    CERTIFICATE_VERIFY,
    CLIENT_KEY_EXCHANGE,
    HELLO_VERIFY_REQUEST,
    SERVER_HELLO,
    SERVER_HELLO_DONE,
    SERVER_KEY_EXCHANGE,
    Fragment,
    Message,
    parse_fragments,
)
from voicefleet_dataplane.wire.dtls_record import parse_records

CONNECTED = (DtlsState.CONNECTED, DtlsState.CONNECTED)


def a_hello() -> bytes:
    """As good as any: of a stack like ours, and of nobody's call."""
    somebody = Dtls(make_identity(), [], we_are_client=True)
    somebody.start(0.0)
    (hello,) = somebody.poll()
    return hello


HELLO = a_hello()


def another_hello(chance: random.Random) -> bytes:
    return HELLO[:27] + chance.randbytes(32) + HELLO[59:]


def flights_of_another(hello: bytes, count: int = 5) -> list[bytes]:
    """What servers with certificates of their own make of a hello: the datagrams of their flights."""
    found = []
    for _ in range(count):
        impostor = make_identity().build_connection(we_are_client=False, mtu_bytes=1_100)
        impostor.bio_write(hello)
        with pytest.raises(dtls.SSL.WantReadError):
            impostor.do_handshake()
        found.append(dtls.take_written(impostor))
    return found


FLIGHTS = flights_of_another(HELLO)  # of one hello that is not ours: blind


def fire_at(victim: Dtls, forge, count: int):
    """So many forged datagrams before and after each datagram that the victim is given."""

    def fire(end: Dtls, now: float) -> None:
        if end is victim and victim.state is DtlsState.CONNECTING:
            for _ in range(count):
                victim.receive_untrusted(forge(), now)

    return fire


@pytest.fixture
def built(monkeypatch):
    """How many handshakes of OpenSSL were begun, by whom."""
    counts: dict[DtlsIdentity, int] = {}
    build = DtlsIdentity.build_connection

    def counting(self, **options):
        counts[self] = counts.get(self, 0) + 1
        return build(self, **options)

    monkeypatch.setattr(DtlsIdentity, "build_connection", counting)
    return counts


@pytest.fixture
def verified(monkeypatch):
    """The signatures that were looked at."""
    found = []
    verify = dtls_flight.is_signed_by

    def counting(*arguments):
        found.append(verify(*arguments))
        return found[-1]

    monkeypatch.setattr(dtls_flight, "is_signed_by", counting)
    return found


# ---- as server


@pytest.mark.parametrize("reads_one", [False, True])
def test_a_clients_flight_gets_through_a_thousand_forged_hellos(built, reads_one):
    """The first of them comes before the client's own; nine ended a set-up."""
    client, server = make_pair()
    chance = random.Random(1)
    for _ in range(1_000):
        server.receive_untrusted(HELLO if reads_one else another_hello(chance), 0.0)
    assert server.restarts == 0
    asked = server.poll()
    assert sum(map(len, asked)) < 1_000 * len(HELLO)
    run_handshake(client, server, fire=fire_at(server, lambda: another_hello(chance), 100))
    assert (client.state, server.state) == CONNECTED
    assert built[server._identity] == 1
    assert client.keys.send == server.keys.receive


def test_the_request_for_a_cookie_is_all_that_a_hello_gets_and_nothing_is_kept_for_it(built):
    server = make_pair()[1]
    server.receive_untrusted(HELLO, 0.0)
    (request,) = server.poll()
    (fragment,) = parse_fragments(request)
    assert fragment.kind == HELLO_VERIFY_REQUEST
    assert built == {}
    assert server.deadline() is None


def test_the_cookie_of_one_client_is_no_use_to_another():
    ours, first, second = make_identity(), make_identity(), make_identity()
    assert ours.cookie_for([first.fingerprint]) != ours.cookie_for([second.fingerprint])
    assert make_identity().cookie_for([first.fingerprint]) != ours.cookie_for([first.fingerprint])


CLIENTS_MESSAGES = (CERTIFICATE, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY)


@pytest.mark.parametrize("kinds", [(kind,) for kind in CLIENTS_MESSAGES] + [CLIENTS_MESSAGES])
def test_a_clients_flight_gets_through_forged_messages_of_its_kinds(verified, kinds):
    """One of them, taken by OpenSSL, ended a set-up: the client says its hello no second time."""
    client, server = make_pair()
    chance = random.Random(1)

    def forge():
        kind = chance.choice(kinds)
        body = chance.randbytes(chance.randrange(1, 80))
        if kind == CERTIFICATE_VERIFY:
            body = b"\x04\x03\x00\x40" + chance.randbytes(64)
        return Message(kind, 2 + CLIENTS_MESSAGES.index(kind), body).to_record(chance.randrange(1 << 20))

    took_s = run_handshake(client, server, fire=fire_at(server, forge, 500))
    assert (client.state, server.state) == CONNECTED
    assert server.restarts == 0
    assert took_s < 1.0
    assert len(verified) <= VERIFIED_AT_ONCE + VERIFIED_PER_S * took_s + 10


# ---- as client


@pytest.mark.parametrize("reads", [False, True], ids=["blind", "reading"])
def test_a_servers_flight_gets_through_a_thousand_forged_ones(verified, reads):
    """Seventeen ended a set-up; one did, of a server that takes no second hello."""
    client, server = make_pair()
    chance = random.Random(1)
    client.start(0.0)
    (hello,) = client.poll()
    flights = flights_of_another(hello) if reads else FLIGHTS
    for _ in range(1_000):
        client.receive_untrusted(chance.choice(flights), 0.0)
    client.advance(0.1)  # our hello went by the board
    took_s = run_handshake(client, server, fire=fire_at(client, lambda: chance.choice(flights), 100))
    assert (client.state, server.state) == CONNECTED
    assert client.restarts == 0
    assert len(verified) <= 2 * VERIFIED_AT_ONCE + 2 * VERIFIED_PER_S * took_s


SERVERS_MESSAGES = (SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE)


@pytest.mark.parametrize("kinds", [(kind,) for kind in SERVERS_MESSAGES] + [SERVERS_MESSAGES])
@pytest.mark.parametrize("sequence", [0, 1], ids=["with the first hello's numbers", "after a request for a cookie"])
def test_a_servers_flight_gets_through_forged_messages_of_its_kinds(verified, kinds, sequence):
    client, server = make_pair()
    chance = random.Random(1)

    def forge():
        kind = chance.choice(kinds)
        body = b"" if kind == SERVER_HELLO_DONE else b"\xfe\xfd" + chance.randbytes(chance.randrange(60, 120))
        if kind == SERVER_KEY_EXCHANGE:
            body = b"\x03\x00\x1d\x20" + chance.randbytes(32) + b"\x04\x03\x00\x40" + chance.randbytes(64)
        at = sequence + SERVERS_MESSAGES.index(kind)
        return Message(kind, at, body).to_record(chance.randrange(1 << 20))

    took_s = run_handshake(client, server, fire=fire_at(client, forge, 500))
    assert (client.state, server.state) == CONNECTED
    assert client.restarts == 0
    assert took_s < 1.0
    assert len(verified) <= VERIFIED_AT_ONCE + VERIFIED_PER_S * took_s + 10


def test_a_forged_end_of_the_flight_is_not_taken_for_that_of_a_server_that_wants_no_certificate():
    client, server = make_pair()
    end = Message(SERVER_HELLO_DONE, 4, b"").to_record(9)  # where the request stands, once a cookie was asked for
    # Each message in a datagram of its own, so that nothing tells by its company.
    run_handshake(client, server, fire=fire_at(client, lambda: end, 3), cut=parse_records)
    assert (client.state, server.state) == CONNECTED


def plain_server(identity):
    """OpenSSL without cookies: most of the world."""
    return identity.build_connection(we_are_client=False, mtu_bytes=1_100)


def test_a_forged_request_for_a_cookie_does_not_keep_us_from_a_server_that_wants_none():
    ours, theirs = make_identity(), make_identity()
    client, server = Dtls(ours, [theirs.fingerprint], we_are_client=True), plain_server(theirs)
    client.start(0.0)
    server.bio_write(b"".join(client.poll()))
    chance = random.Random(1)
    for _ in range(1_000):
        body = b"\xfe\xff\x10" + chance.randbytes(16)
        client.receive_untrusted(Message(HELLO_VERIFY_REQUEST, 0, body).to_record(0), 0.0)
    assert client.poll() == []
    for end in (0.2, 0.9):  # far longer than we wait for who asks once
        client.advance(end)
        client.poll()
    with pytest.raises(dtls.SSL.WantReadError):
        server.do_handshake()
    client.receive_untrusted(dtls.take_written(server), 0.9)
    server.bio_write(b"".join(client.poll()))
    server.do_handshake()
    client.receive_untrusted(dtls.take_written(server), 0.9)
    assert client.state is DtlsState.CONNECTED


def test_a_server_that_asks_for_a_cookie_gets_it_when_the_hello_is_due_again():
    client, server = make_pair()
    assert 0.1 < run_handshake(client, server) < 0.3
    assert (client.state, server.state) == CONNECTED


# ---- both


@pytest.mark.parametrize("we_are_client", [True, False])
def test_forged_records_of_both_epochs_hold_nothing_up(we_are_client):
    client, server = make_pair()
    victim = client if we_are_client else server
    chance = random.Random(1)

    def forge():
        number = chance.randbytes(6)
        return chance.choice(
            [
                b"\x14\xfe\xfd\x00\x00" + number + b"\x00\x01\x01",
                b"\x16\xfe\xfd\x00\x01" + number + b"\x00\x30" + chance.randbytes(48),
                b"\x15\xfe\xfd\x00\x00" + number + b"\x00\x02\x02\x28",
                b"\x15\xfe\xfd\x00\x01" + number + b"\x00\x1a" + chance.randbytes(26),
            ]
        )

    took_s = run_handshake(client, server, fire=fire_at(victim, forge, 300))
    assert (client.state, server.state) == CONNECTED
    assert took_s < 1.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rsa_key", [False, True])
def test_flights_in_many_fragments_get_through_a_bad_link(monkeypatch, seed, rsa_key):
    monkeypatch.setattr(dtls, "DTLS_MTU_BYTES", 300)
    if rsa_key:
        make = rsa.generate_private_key
        monkeypatch.setattr("tests.support.dtls.ec.generate_private_key", lambda _: make(65_537, 2_048))
    client, server = make_pair()
    run_handshake(client, server, loss=0.2, seed=seed)
    assert (client.state, server.state) == CONNECTED


def test_flights_in_fragments_among_forged_fragments():
    client, server = make_pair()
    chance = random.Random(1)

    def small(datagram: bytes) -> list[bytes]:
        """A certificate in two halves, each in a datagram of its own; everything else as it was."""
        parts = []
        for record in parse_records(datagram):
            fragments = parse_fragments(record) if record[0] == 22 and record[4] == 0 else []
            if [one.kind for one in fragments] != [CERTIFICATE]:
                parts.append(record)
                continue
            (whole,) = fragments
            for at, data in ((0, whole.data[:150]), (150, whole.data[150:])):
                head = bytes((whole.kind,)) + whole.length.to_bytes(3) + whole.sequence.to_bytes(2)
                body = head + at.to_bytes(3) + len(data).to_bytes(3) + data
                parts.append(record[:11] + len(body).to_bytes(2) + body)
        return parts

    def forge():
        at = chance.choice([0, 150])
        data = chance.randbytes(150)
        sequence = chance.randrange(1, 4)
        body = b"\x0b\x00\x01\x2c" + sequence.to_bytes(2) + at.to_bytes(3) + b"\x00\x00\x96" + data
        return b"\x16\xfe\xfd" + bytes(8) + len(body).to_bytes(2) + body

    def fire(end: Dtls, now: float) -> None:
        for _ in range(3):
            end.receive_untrusted(forge(), now)

    run_handshake(client, server, fire=fire, cut=small)
    assert (client.state, server.state) == CONNECTED


def test_fragments_are_put_together_in_each_way_within_bounds():
    assembly = Assembly()
    true, false = Fragment(11, 4, 1, 0, b"ab"), Fragment(11, 4, 1, 0, b"xy")
    assert assembly.add(true) == assembly.add(false) == []
    found = {message.body for message in assembly.add(Fragment(11, 4, 1, 2, b"cd"))}
    assert found == {b"abcd", b"xycd"}
    for length in range(2, 200):
        for at in range(length - 1):
            assembly.add(Fragment(11, length, 1, at, b"?"))
    assert len(assembly._groups) <= MOST_GROUPS
    assert all(len(parts) <= MOST_PARTS for parts in assembly._groups.values())


@pytest.mark.parametrize("we_are_client", [True, False])
def test_who_answers_with_another_certificate_and_stays_alone_ends_it_after_a_while(we_are_client):
    ours, theirs, somebody = make_identity(), make_identity(), make_identity()
    us = Dtls(ours, [somebody.fingerprint], we_are_client=we_are_client)
    peer = Dtls(theirs, [ours.fingerprint], we_are_client=not we_are_client)
    took_s = run_handshake(*((us, peer) if we_are_client else (peer, us)), until_s=10)
    assert (us.state, us.failure) == (DtlsState.FAILED, "fingerprint_mismatch")
    assert took_s >= MISMATCH_PATIENCE_S
