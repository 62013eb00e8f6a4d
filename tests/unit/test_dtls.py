"""DTLS: both roles, the fingerprint before any key, and nothing on the wire that ends an association."""

import pytest
from cryptography.hazmat.primitives import hashes

from tests.support.dtls import deliver, make_identity, make_pair, run_handshake
from voicefleet_dataplane.core.call import dtls_identity
from voicefleet_dataplane.core.call.dtls import DTLS_MTU_BYTES, Dtls, DtlsState
from voicefleet_dataplane.core.call.srtp import AES_128_CM_SHA1_80, AES_128_GCM, AES_256_GCM, PROFILES
from voicefleet_dataplane.wire.sdp.model import Fingerprint


def test_both_ends_derive_the_same_keys_the_other_way_round():
    client, server = make_pair()
    run_handshake(client, server)
    assert client.keys is not None
    assert server.keys is not None
    assert (client.keys.send, client.keys.receive) == (server.keys.receive, server.keys.send)


def test_application_data_passes_both_ways():
    client, server = make_pair()
    run_handshake(client, server)
    assert client.send(b"up")
    assert deliver(client, server) == [b"up"]
    assert server.send(b"down")
    assert deliver(server, client) == [b"down"]


@pytest.mark.parametrize("seed", range(20))
def test_a_handshake_gets_through_a_link_that_loses_a_third(seed):
    client, server = make_pair()
    run_handshake(client, server, loss=0.33, seed=seed)
    assert (client.state, server.state) == (DtlsState.CONNECTED, DtlsState.CONNECTED)


def test_a_lost_hello_costs_a_tenth_of_a_second_and_not_openssls_whole_one():
    client, server = make_pair()
    client.start(0.0)
    client.poll()
    assert client.deadline() == pytest.approx(0.1)
    client.advance(0.1)
    assert [server.receive_untrusted(datagram, 0.1) for datagram in client.poll()] == [[]]
    assert server.poll()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("restricted", ["client", "server"])
def test_every_profile_can_be_the_one_in_common(profile, restricted):
    client, server = make_pair(**{f"{restricted}_profiles": [profile]})
    run_handshake(client, server)
    assert client.keys is not None
    assert client.keys.profile == profile
    assert server.keys is not None
    assert server.keys.profile == profile


def test_the_servers_order_of_profiles_wins():
    client, server = make_pair(
        client_profiles=[AES_128_CM_SHA1_80, AES_256_GCM, AES_128_GCM],
        server_profiles=[AES_128_GCM, AES_128_CM_SHA1_80],
    )
    run_handshake(client, server)
    assert client.keys is not None
    assert client.keys.profile == AES_128_GCM


def test_no_profile_in_common_gives_no_keys_to_either_end():
    client, server = make_pair([AES_256_GCM], [AES_128_GCM])
    run_handshake(client, server)
    assert (client.keys, server.keys) == (None, None)
    assert DtlsState.CONNECTED not in (client.state, server.state)


@pytest.mark.parametrize("we_are_client", [True, False])
def test_a_peer_whose_cipher_suites_are_not_approved_gets_no_keys(monkeypatch, we_are_client):
    ours = make_identity()
    monkeypatch.setattr(dtls_identity, "_CIPHERS", b"ECDHE-ECDSA-AES128-SHA")  # neither AEAD nor SHA-2
    old, older = make_identity(), make_identity()
    for us in (ours, older):  # the twin: two such peers understand each other
        ends = (
            Dtls(us, [old.fingerprint], we_are_client=we_are_client),
            Dtls(old, [us.fingerprint], we_are_client=not we_are_client),
        )
        run_handshake(*(ends if we_are_client else ends[::-1]))
        assert [end.keys is not None for end in ends] == [us is older] * 2


@pytest.mark.parametrize("we_are_client", [True, False])
def test_a_certificate_that_the_offer_did_not_name_fails_and_gives_no_keys(we_are_client):
    ours, theirs, somebody = make_identity(), make_identity(), make_identity()
    us = Dtls(ours, [somebody.fingerprint], we_are_client=we_are_client)
    peer = Dtls(theirs, [ours.fingerprint], we_are_client=not we_are_client)
    run_handshake(*((us, peer) if we_are_client else (peer, us)))
    assert us.state is DtlsState.FAILED
    assert us.failure == "fingerprint_mismatch"
    assert us.keys is None
    assert us.receive_untrusted(b"\x17\xfe\xfd\x00\x01" + bytes(8), 1.0) is None


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-384", "sha-512"])
def test_any_strong_hash_may_name_the_certificate(algorithm):
    ours, theirs = make_identity(), make_identity()
    function = {"sha-256": hashes.SHA256(), "sha-384": hashes.SHA384(), "sha-512": hashes.SHA512()}[algorithm]
    named = Fingerprint(algorithm, theirs.certificate.fingerprint(function))
    client = Dtls(ours, [named], we_are_client=True)
    run_handshake(client, Dtls(theirs, [ours.fingerprint], we_are_client=False))
    assert client.state is DtlsState.CONNECTED


def test_of_two_fingerprints_of_one_hash_either_may_match():
    ours, theirs, retired = make_identity(), make_identity(), make_identity()
    client = Dtls(ours, [retired.fingerprint, theirs.fingerprint], we_are_client=True)
    run_handshake(client, Dtls(theirs, [ours.fingerprint], we_are_client=False))
    assert client.state is DtlsState.CONNECTED


def test_the_strongest_hash_decides_even_when_a_weaker_one_matches():
    ours, theirs = make_identity(), make_identity()
    wrong = Fingerprint("sha-512", bytes(64))
    client = Dtls(ours, [theirs.fingerprint, wrong], we_are_client=True)
    run_handshake(client, Dtls(theirs, [ours.fingerprint], we_are_client=False))
    assert client.failure == "fingerprint_mismatch"


def test_garbage_during_the_handshake_does_not_disturb_it():
    client, server = make_pair()
    alert = b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28"
    for garbage in (
        alert,
        b"\x16",
        b"\x16\xfe\xfd" + bytes(8) + b"\x00\x04abcd",
        b"\x17\xfe\xfd" + bytes(8) + b"\x00\x01x",
    ):
        assert client.receive_untrusted(garbage, 0.0) is None
        assert server.receive_untrusted(garbage, 0.0) is None
    run_handshake(client, server)
    assert (client.state, server.state) == (DtlsState.CONNECTED, DtlsState.CONNECTED)


def test_a_hello_in_two_fragments_is_put_together():
    client, server = make_pair()
    client.start(0.0)
    (hello,) = client.poll()
    body = hello[25:]
    first, second = body[:100], body[100:]
    for sequence, (offset, part) in enumerate(((0, first), (100, second))):
        handshake = (
            hello[13:14] + len(body).to_bytes(3) + hello[17:19] + offset.to_bytes(3) + len(part).to_bytes(3) + part
        )
        record = hello[:3] + bytes(7) + bytes((sequence,)) + len(handshake).to_bytes(2) + handshake
        assert server.receive_untrusted(record, 0.0) == []
    assert server.poll()


def test_forged_records_after_the_handshake_change_nothing():
    client, server = make_pair()
    run_handshake(client, server)
    assert server.send(b"true")
    (record,) = server.poll()
    forged = record[:-1] + bytes((record[-1] ^ 1,))
    assert client.receive_untrusted(forged, 1.0) == []
    assert client.receive_untrusted(b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x01\x00", 1.0) is None
    assert client.receive_untrusted(record, 1.0) == [b"true"]
    assert client.receive_untrusted(record, 1.0) == []
    assert client.state is DtlsState.CONNECTED


def test_close_notify_closes_the_other_end():
    client, server = make_pair()
    run_handshake(client, server)
    client.close()
    deliver(client, server)
    assert (client.state, server.state) == (DtlsState.CLOSED, DtlsState.CLOSED)


def test_close_notify_is_answered_once():
    client, server = make_pair()
    run_handshake(client, server)
    client.close()
    deliver(client, server)
    server.close()
    server.close()
    assert [datagram[0] for datagram in server.poll()] == [21]


def test_every_datagram_of_a_handshake_fits_the_inner_path():
    client, server = make_pair()
    sizes = []
    run_handshake(client, server, cut=lambda datagram: sizes.append(len(datagram)) or [datagram])
    assert client.state is DtlsState.CONNECTED
    assert max(sizes) <= DTLS_MTU_BYTES
