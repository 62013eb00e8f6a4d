"""What strangers may use of a relay, and that no flood reaches the consent checks of calls in progress."""

import pytest

from tests.unit.test_relay import ALICE, INNER, KEYS, MALLORY, OWNER_A, RTP, check, moved, topology, ufrag
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.relay import named_owner
from voicefleet_dataplane.core.relay import relay as relay_module
from voicefleet_dataplane.core.relay.check_limits import CheckLimits, network_of
from voicefleet_dataplane.core.relay.relay import Relay

FORGED = check(password="wrong")


def limited(**rates: float) -> Relay:
    relay = Relay(INNER, KEYS, max_flows=1000, idle_s=30.0, limits=CheckLimits(**rates))
    relay.set_topology(topology())
    return relay


def of_mallorys_network(number: int) -> Address:
    return Address(f"203.0.113.{number % 250}", 1000 + number)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.255", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8:1::1", "2001:db8:1:ffff::2", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("::1", "2001:db8::1", False),
    ],
)
def test_a_network_is_a_24_or_a_48(one, other, same):
    assert (network_of(one) == network_of(other)) is same


def test_a_network_whose_checks_fail_is_not_looked_at_any_more_and_others_are():
    relay = limited(failed_checks_of_a_network=10.0)
    for number in range(100):
        relay.receive_outside(FORGED, of_mallorys_network(number), 0.0)
    assert moved(relay) == {DropReason.STUN_BAD_INTEGRITY: 20, DropReason.CHECK_LIMIT_OF_NETWORK: 80}
    assert relay.receive_outside(check(), MALLORY, 0.0) is DropReason.CHECK_LIMIT_OF_NETWORK
    assert relay.receive_outside(check(), ALICE, 0.0)[1] == OWNER_A
    assert relay.receive_outside(check(), MALLORY, 1.0)[1] == OWNER_A  # garbage stopped: a moment later all is well


def test_made_up_sources_share_one_limit():
    relay = limited(failed_checks=10.0, failed_checks_of_a_network=10.0)
    for number in range(100):
        relay.receive_outside(FORGED, Address(f"100.64.{number}.1", 1), 0.0)
    assert moved(relay) == {DropReason.STUN_BAD_INTEGRITY: 20, DropReason.CHECK_LIMIT: 80}
    assert relay.receive_outside(check(), ALICE, 0.1)[1] == OWNER_A


def test_authentic_checks_cost_their_network_nothing():
    relay = limited(failed_checks=1.0, failed_checks_of_a_network=1.0)
    for number in range(100):
        assert isinstance(relay.receive_outside(check(ufrag(nonce=number)), of_mallorys_network(number), 0.0), tuple)


def test_no_flood_stops_the_consent_checks_and_media_of_a_call_in_progress():
    relay = limited(failed_checks=1.0, failed_checks_of_a_network=1.0)
    relay.receive_outside(check(), ALICE, 0.0)
    for source in (ALICE, Address("198.51.100.77", 7), MALLORY):  # the caller's own tuple, spoofed, and its network too
        for _ in range(50):
            relay.receive_outside(check(ufrag(nonce=9), "wrong"), source, 0.1)
    assert isinstance(relay.receive_outside(check(), ALICE, 0.2), tuple)
    assert isinstance(relay.receive_outside(RTP, ALICE, 0.2), tuple)
    assert moved(relay)[DropReason.CHECK_LIMIT_OF_NETWORK] > 90


def test_nor_after_a_change_of_keys():
    relay = limited(failed_checks=1.0, failed_checks_of_a_network=1.0)
    relay.receive_outside(check(), ALICE, 0.0)
    for _ in range(50):
        relay.receive_outside(FORGED, Address("198.51.100.77", 7), 0.1)
    relay.set_keys(KEYS)
    assert isinstance(relay.receive_outside(check(), ALICE, 0.2), tuple)


def test_new_flows_of_a_network_are_limited_and_held_ones_are_not():
    relay = limited(new_flows_of_a_network=1.0)
    verdicts = [relay.receive_outside(check(ufrag(nonce=n)), of_mallorys_network(n), 0.0) for n in range(25)]
    assert verdicts[20:] == [DropReason.FLOW_LIMIT_OF_NETWORK] * 5
    assert all(isinstance(verdict, tuple) for verdict in verdicts[:20])
    assert isinstance(relay.receive_outside(check(ufrag(nonce=3)), of_mallorys_network(3), 0.0), tuple)
    assert isinstance(relay.receive_outside(check(), ALICE, 0.0), tuple)
    assert isinstance(relay.receive_outside(check(ufrag(nonce=24)), of_mallorys_network(24), 1.0), tuple)


@pytest.mark.parametrize(
    "packet",
    [
        b"\x00\x01" + bytes(18),
        check("A" * 24),
        check(ufrag(cluster=10)),
        check(ufrag(slot=3)),
        check(ufrag(generation=2)),
    ],
)
def test_what_leads_nowhere_ends_before_any_hmac(monkeypatch, packet):
    def worked(*_):
        raise AssertionError("an HMAC was computed")

    monkeypatch.setattr(named_owner, "decode_hint", worked)
    monkeypatch.setattr(relay_module, "verify_integrity", worked)
    assert isinstance(limited().receive_outside(packet, MALLORY, 0.0), DropReason)


def test_a_network_in_debt_is_refused_before_its_check_is_even_parsed(monkeypatch):
    relay = limited(failed_checks_of_a_network=1.0)
    for _ in range(2):
        relay.receive_outside(FORGED, MALLORY, 0.0)
    monkeypatch.setattr(relay_module, "parse_binding_request", None)
    assert relay.receive_outside(FORGED, MALLORY, 0.0) is DropReason.CHECK_LIMIT_OF_NETWORK


def test_what_is_remembered_is_bounded():
    relay = limited(failed_checks_of_a_network=1.0, new_flows_of_a_network=1.0)
    for number in range(40_000):
        relay.receive_outside(FORGED, Address(f"10.{number >> 8}.{number & 255}.1", 1), 0.0)
    assert len(relay._limits._networks) <= 16_384
