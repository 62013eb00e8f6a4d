"""A relay and the flow cache, against a virtual clock: what is held, asked, restored, announced and written."""

import itertools

import pytest

from tests.unit.test_relay import (
    ALICE,
    DTLS,
    IDLE_S,
    INNER,
    KEYS,
    MALLORY,
    OTHER_KEYS,
    OWNER_A,
    OWNER_B,
    RTP,
    a_relay,
    bound,
    check,
    moved,
    topology,
    ufrag,
)
from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import Addressee, decode_announcement
from voicefleet_contract.cached_flow import cached_flow_name, encode_cached_flow
from voicefleet_contract.drops import DropReason
from voicefleet_contract.hint import ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, decode_spp, encode_spp
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.core.relay import lookups as module
from voicefleet_dataplane.core.relay.flow import CACHE_REFRESH_S, GOODBYE_S
from voicefleet_dataplane.core.relay.lookups import ABSENT_S, FAILED_PAUSE_S, HELD_A_WAY, LookupOutcome, Lookups
from voicefleet_dataplane.core.relay.recovery import Recovery
from voicefleet_dataplane.wire.stun import build_binding_success

CLUSTER = 9
UNIX_MS = 1_700_000_000_123
RECORD = encode_cached_flow(ALICE, (1, 1), CLUSTER, KEYS)
HEADER = encode_spp(ALICE, INNER)


class Cached:
    """A relay with a flow cache, and the questions that it put."""

    def __init__(self, max_flows=100, **bounds):
        self.relay = a_relay(max_flows)
        self.recovery = Recovery(self.relay, Lookups(**bounds))

    def media(self, packet=RTP, client=ALICE, now=0.0):
        return self.relay.receive_outside(packet, client, now)

    def answer(self, *records, now=0.001):
        asked = self.recovery.lookups.take_questions(100)
        return self.recovery.answered(asked, records, now, UNIX_MS)

    def restore(self, now=0.0):
        assert self.media(now=now) is None
        self.answer(RECORD, now=now)
        return self

    def outcomes(self):
        return {outcome.value: count for outcome, count in self.recovery.lookups.outcomes.items() if count}


@pytest.fixture
def cached():
    return Cached()


# ---- a flow comes back


def test_media_of_an_unknown_flow_is_held_asked_about_restored_and_on_its_way(cached):
    assert cached.media() is None
    assert cached.recovery.names([ALICE]) == [cached_flow_name(ALICE, CLUSTER, KEYS)]
    out = cached.answer(RECORD)
    [(announcement, to), held] = out.inward
    assert to == OWNER_A
    assert decode_spp(announcement) == (ALICE, INNER)
    owner = Addressee(CLUSTER, 1, 1)
    assert decode_announcement(announcement[HEADER_BYTES:], announcement[:HEADER_BYTES], owner, KEYS) == UNIX_MS
    assert held == (HEADER + RTP, OWNER_A)
    assert out.outward == []
    assert cached.media(now=0.02) == (HEADER + RTP, OWNER_A)
    assert cached.relay.receive_inside(HEADER + RTP, OWNER_A, 0.03) == (RTP, ALICE)
    assert moved(cached.relay) == {}
    assert cached.outcomes() == {"restored": 1}
    assert (cached.relay.inward.packets, cached.recovery.announced) == (2, 1)


def test_the_owners_media_restores_the_flow_too_and_reaches_the_client(cached):
    assert cached.relay.receive_inside(HEADER + RTP, OWNER_A, 0.0) is None
    out = cached.answer(RECORD)
    assert out.outward == [(RTP, ALICE)]
    assert [to for _, to in out.inward] == [OWNER_A]  # the announcement


def test_both_ways_wait_for_one_question(cached):
    assert cached.media(DTLS) is None
    assert cached.relay.receive_inside(HEADER + RTP, OWNER_A, 0.0) is None
    out = cached.answer(RECORD)
    assert out.inward[1:] == [(HEADER + DTLS, OWNER_A)]
    assert out.outward == [(RTP, ALICE)]


def test_another_members_media_does_not_ride_on_a_restored_flow(cached):
    assert cached.relay.receive_inside(HEADER + RTP, OWNER_B, 0.0) is None
    assert cached.answer(RECORD).outward == []
    assert moved(cached.relay) == {DropReason.FLOW_OF_ANOTHER_OWNER: 1}


def test_a_restored_flow_lives_on_its_owners_word_and_on_checks_like_any(cached):
    cached.restore()
    for second in range(1, 100):
        cached.relay.receive_inside(HEADER + RTP, OWNER_A, float(second))
        cached.relay.advance(float(second))
    assert isinstance(cached.media(now=100.0), tuple)
    assert isinstance(cached.relay.receive_outside(check(), ALICE, 100.0), tuple)
    answer = build_binding_success(b"t" * 12, ALICE, ice_pwd(ufrag(), 1, KEYS).encode())
    assert isinstance(cached.relay.receive_inside(HEADER + answer, OWNER_A, 100.1), tuple)
    assert cached.relay.flows.by_client[ALICE].ufrag == ufrag().encode()


def test_a_restored_flow_whose_owner_never_speaks_is_forgotten(cached):
    cached.restore()
    for second in range(int(IDLE_S) + 3):
        cached.media(now=float(second))
        cached.relay.advance(float(second))
    assert len(cached.relay.flows) == 0


def test_a_check_that_is_faster_than_the_cache_decides(cached):
    assert cached.media() is None
    bound(cached.relay, name=ufrag(slot=2, generation=7))
    out = cached.answer(RECORD)
    assert out.inward == [(HEADER + RTP, OWNER_B)]
    assert cached.recovery.announced == 0
    assert cached.outcomes() == {"bound_meanwhile": 1}


# ---- rule 6: a restored flow is on trial


def test_a_cache_that_is_wrong_gives_way_to_the_next_check_of_another_owner(cached):
    cached.restore()
    other = check(ufrag(slot=2, generation=7))
    assert cached.relay.receive_outside(other, ALICE, GOODBYE_S)[1] == OWNER_B
    assert cached.media(now=GOODBYE_S) == (HEADER + RTP, OWNER_B)


def test_once_its_owner_has_spoken_a_restored_flow_is_not_rebound(cached):
    cached.restore()
    cached.relay.receive_inside(HEADER + RTP, OWNER_A, 0.1)
    cached.relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, GOODBYE_S + 1)
    assert cached.media(now=GOODBYE_S + 1) == (HEADER + RTP, OWNER_A)


# ---- what is not believed


@pytest.mark.parametrize(
    ("record", "state", "outcome"),
    [
        (None, MemberState.ACTIVE, "unknown"),
        (RECORD, MemberState.GONE, "owner_gone"),
        (encode_cached_flow(ALICE, (1, 2), CLUSTER, KEYS), MemberState.ACTIVE, "owner_gone"),
        (encode_cached_flow(ALICE, (5, 1), CLUSTER, KEYS), MemberState.ACTIVE, "owner_gone"),
        (encode_cached_flow(MALLORY, (1, 1), CLUSTER, KEYS), MemberState.ACTIVE, "not_authentic"),
        (encode_cached_flow(ALICE, (1, 1), CLUSTER + 1, KEYS), MemberState.ACTIVE, "not_authentic"),
        (encode_cached_flow(ALICE, (1, 1), CLUSTER, OTHER_KEYS), MemberState.ACTIVE, "not_authentic"),
        (encode_cached_flow(ALICE, (1, 1), CLUSTER, KeyRing({2: b"k" * 32}, 2)), MemberState.ACTIVE, "not_authentic"),
        (b"", MemberState.ACTIVE, "not_authentic"),
        (b'{"owner": "10.0.0.66:1"}', MemberState.ACTIVE, "not_authentic"),
    ],
)
def test_nothing_goes_anywhere_for_an_answer_that_is(cached, record, state, outcome):
    cached.relay.set_topology(topology(state))
    assert cached.media() is None
    out = cached.answer(record)
    assert (out.inward, out.outward, len(cached.relay.flows)) == ([], [], 0)
    assert moved(cached.relay) == {DropReason.FLOW_UNKNOWN: 1}
    assert cached.outcomes() == {outcome: 1}


def test_a_full_table_is_not_made_fuller():
    cached = Cached(max_flows=1)
    bound(cached.relay, MALLORY)
    assert cached.media() is None
    assert cached.answer(RECORD).inward == []
    assert cached.outcomes() == {"no_room": 1}


# ---- bounds


def test_a_few_packets_a_way_are_held_in_order_and_those_behind_them_are_counted(cached):
    packets = [b"\x80\x6f" + bytes((0, number)) + bytes(158) for number in range(HELD_A_WAY + 1)]
    verdicts = [cached.media(packet) for packet in packets]
    assert verdicts == [None] * HELD_A_WAY + [DropReason.FLOW_LOOKUP_PENDING]
    verdicts = [cached.relay.receive_inside(HEADER + packet, OWNER_A, 0.0) for packet in packets]
    assert verdicts == [None] * HELD_A_WAY + [DropReason.FLOW_LOOKUP_PENDING]
    out = cached.answer(RECORD)
    assert out.inward[1:] == [(HEADER + packet, OWNER_A) for packet in packets[:HELD_A_WAY]]
    assert out.outward == [(packet, ALICE) for packet in packets[:HELD_A_WAY]]
    assert moved(cached.relay) == {DropReason.FLOW_LOOKUP_PENDING: 2}


def test_no_more_packets_are_held_than_there_is_room_for(cached, monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD", 2)
    assert [cached.media(), cached.media(), cached.media()] == [None, None, DropReason.FLOW_LOOKUP_PENDING]
    cached.answer(None)
    assert cached.media(client=MALLORY) is None  # room again


def test_questions_have_a_rate_and_what_is_over_it_asks_again_later():
    cached = Cached(per_s=10, burst=3)
    clients = [Address(f"198.51.{network}.1", 1) for network in range(1, 6)]
    verdicts = [cached.media(client=client) for client in clients]
    assert verdicts == [None, None, None, DropReason.FLOW_LOOKUP_LIMIT, DropReason.FLOW_LOOKUP_LIMIT]
    cached.answer(None, None, None)
    assert cached.media(client=clients[3], now=0.1) is None


def test_one_network_gets_a_part_of_the_questions_and_leaves_the_rest_to_others():
    cached = Cached(per_s=8, burst=8)
    crowd = [cached.media(client=Address("198.51.100.1", port)) for port in range(1, 6)]
    assert crowd == [None, None] + [DropReason.FLOW_LOOKUP_LIMIT] * 3
    others = [cached.media(client=Address(f"198.51.{network}.1", 1)) for network in range(1, 8)]
    assert others == [None] * 6 + [DropReason.FLOW_LOOKUP_LIMIT]


def test_no_more_clients_wait_than_there_is_room_for(cached, monkeypatch):
    monkeypatch.setattr(module, "MOST_PENDING", 2)
    verdicts = [cached.media(client=Address("198.51.100.1", port)) for port in range(1, 4)]
    assert verdicts == [None, None, DropReason.FLOW_LOOKUP_LIMIT]


def test_who_is_not_in_the_cache_is_not_asked_about_for_a_while(cached):
    assert cached.media() is None
    cached.answer(None, now=0.0)
    assert cached.media(now=ABSENT_S - 0.01) is DropReason.FLOW_UNKNOWN
    assert cached.media(now=ABSENT_S) is None


def test_the_memory_of_who_is_not_in_the_cache_is_bounded(cached, monkeypatch):
    monkeypatch.setattr(module, "MOST_ABSENT", 2)
    clients = [Address("198.51.100.1", port) for port in range(1, 4)]
    for client in clients:
        assert cached.media(client=client) is None
        cached.answer(None, now=0.0)
    assert cached.media(client=clients[0]) is None
    assert cached.media(client=clients[2]) is DropReason.FLOW_UNKNOWN


def test_a_cache_that_fails_costs_the_next_check_and_nothing_is_held_for_it_meanwhile(cached):
    assert cached.media() is None
    cached.recovery.unanswered(cached.recovery.lookups.take_questions(100), 1.0)
    assert len(cached.recovery.lookups) == 0
    assert cached.media(now=1.0 + FAILED_PAUSE_S / 2) is DropReason.FLOW_UNKNOWN
    assert moved(cached.relay) == {DropReason.FLOW_UNKNOWN: 2}
    bound(cached.relay, now=1.5)
    assert isinstance(cached.media(now=1.6), tuple)
    assert cached.media(client=MALLORY, now=1.0 + FAILED_PAUSE_S) is None  # asked again
    assert cached.outcomes() == {"failed": 1}


def test_garbage_and_strangers_on_the_inner_side_are_not_asked_about(cached):
    for packet in (b"", b"\xff" * 40, b"\x00\x01" + bytes(18), check(password="wrong")):
        assert cached.media(packet) is not None
    assert cached.relay.receive_inside(HEADER + RTP, MALLORY, 0.0) is DropReason.SPP_FROM_STRANGER
    assert cached.relay.receive_inside(HEADER, OWNER_A, 0.0) is DropReason.FLOW_UNKNOWN
    assert not cached.recovery.lookups.to_ask


# ---- what the cache hears


def test_a_bound_flow_is_written_once_and_a_restored_one_is_not(cached):
    bound(cached.relay)
    assert cached.recovery.records(10) == [(cached_flow_name(ALICE, CLUSTER, KEYS), RECORD)]
    assert cached.recovery.records(10) == []
    cached.media(client=MALLORY)
    cached.answer(encode_cached_flow(MALLORY, (1, 1), CLUSTER, KEYS))
    assert cached.recovery.records(10) == []


def test_a_flow_that_lives_is_written_again_before_the_cache_forgets_it(cached):
    bound(cached.relay)
    cached.recovery.records(10)
    written_at = [0.0]
    for second in range(1, 1000):
        cached.relay.receive_outside(check(), ALICE, float(second))
        cached.relay.advance(float(second))
        if cached.recovery.records(10):
            written_at.append(float(second))
    gaps = [later - earlier for earlier, later in itertools.pairwise(written_at)]
    assert len(gaps) >= 6
    assert all(CACHE_REFRESH_S <= gap <= CACHE_REFRESH_S * 1.1 for gap in gaps)


def test_a_flow_that_was_rebound_or_forgotten_meanwhile_is_not_written(cached):
    bound(cached.relay)
    cached.relay.set_topology(topology(MemberState.GONE))
    assert cached.recovery.records(10) == []


def test_records_come_in_batches_and_a_cache_that_is_away_is_kept_nothing_for(cached):
    for port in range(1, 8):
        bound(cached.relay, Address("198.51.100.1", port), name=ufrag(nonce=port))
    assert len(cached.recovery.records(3)) == 3
    cached.recovery.forget_records()
    assert cached.recovery.records(10) == []
    cached.recovery.remember_all()
    assert len(cached.recovery.records(10)) == 7


def test_flows_from_before_the_cache_was_opened_are_written():
    relay = a_relay()
    bound(relay)
    assert len(Recovery(relay).records(10)) == 1


def test_without_a_flow_cache_nothing_is_kept_for_one():
    relay = a_relay()
    bound(relay)
    assert relay.flows.unwritten is None
    assert relay.receive_outside(RTP, MALLORY, 0.0) is DropReason.FLOW_UNKNOWN


def test_every_outcome_has_a_counter():
    assert set(Lookups().outcomes) == set(LookupOutcome)
