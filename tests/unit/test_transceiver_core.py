"""Calls of one transceiver in simulated time: who gets in, who stays out, and why a call ends."""

import pytest

from tests.support.offers import CHROMIUM
from tests.support.transceiver import HINT_KEYS, OTHER_RELAY, RELAY, STRANGER, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.call_id import decode_call_id
from voicefleet_contract.drops import DropReason
from voicefleet_contract.hint import decode_hint
from voicefleet_contract.http_api import RefusalReason
from voicefleet_contract.spp import HEADER_BYTES, encode_spp
from voicefleet_contract.topology import MemberState, Topology, TopologyIndex
from voicefleet_dataplane.core.call.dtls import MISMATCH_PATIENCE_S
from voicefleet_dataplane.core.call.dtls_hello import PATIENCE_S
from voicefleet_dataplane.core.call.ice import CONSENT_S
from voicefleet_dataplane.core.call.model import EndReason, Limits
from voicefleet_dataplane.core.call.session import MAX_EARLY_PACKETS
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.core.transceiver.admission import NoRoom
from voicefleet_dataplane.wire.rtcp import ReportBlock, SenderInfo, build_report, parse_rtcp
from voicefleet_dataplane.wire.sdp.model import SdpError, SetupRole
from voicefleet_dataplane.wire.stun import parse_binding_response

ELSEWHERE = Address("203.0.113.9", 5_555)
VICTIM = Address("198.51.100.77", 41_000)


# ---- setting up


@pytest.mark.parametrize("setup", [SetupRole.ACTPASS, SetupRole.ACTIVE, SetupRole.PASSIVE])
def test_a_client_of_any_role_gets_a_call_with_echoed_audio(setup):
    caller = World().connected(setup=setup, echo=True)
    for index in range(3):
        assert caller.speak(b"word %d" % index) is None
    caller.world.settle()
    assert [packet.payload for packet in caller.media] == [b"word 0", b"word 1", b"word 2"]
    assert {packet.ssrc for packet in caller.media} == {caller.ssrc}
    assert [packet.sequence for packet in caller.media] == list(
        range(caller.media[0].sequence, caller.media[0].sequence + 3)
    )


def test_a_client_on_ipv6_gets_its_call_through_the_same_relay():
    caller = World().connected(Address("2001:db8::5", 40_000), echo=True)
    assert caller.speak(b"six") is None
    caller.world.settle()
    assert [packet.payload for packet in caller.media] == [b"six"]
    assert session_status(caller.session, caller.world.now).client == "[2001:db8::5]:40000"


def test_we_answer_as_passive_when_the_pool_says_so():
    caller = World(prefer_active=False).connected(echo=True)
    assert caller.field("setup") == "passive"
    assert caller.speak() is None


def test_the_ufrag_is_a_hint_to_this_slot_and_the_call_id_names_it_too():
    world = World()
    caller = world.call()
    hint = decode_hint(caller.server_ufrag, HINT_KEYS)
    assert (hint.cluster, hint.slot, hint.generation) == (7, 5, 2)
    call = decode_call_id(caller.session.agreed.call_id, world.core.calls.call_keys)
    assert (call.cluster, call.slot, call.generation) == (7, 5, 2)


def test_as_dtls_client_our_hello_goes_out_with_the_answer_to_the_first_check():
    world = World()
    caller = world.call()
    caller.check(nominate=False)
    kinds = [datagram[HEADER_BYTES] for datagram, _ in world.drain()]
    assert kinds == [1, 22]


def test_nothing_is_sent_before_the_first_check():
    world = World()
    world.call()
    assert world.drain() == []


def test_without_dtls_from_the_client_no_path_gets_more_than_three_times_its_bytes():
    world = World(limits=Limits(setup_s=20.0))
    caller = world.call()
    del world.clients[caller.address]  # it hears nothing and says nothing: a spoofed victim
    check = caller.build_check()
    caller.send(check)
    world.pass_time(25.0)
    assert caller.session.end_reason is EndReason.SETUP_TIMEOUT
    assert 0 < world.sent_bytes[caller.address] <= 3 * len(check)
    assert world.drops()[DropReason.DTLS_AMPLIFICATION] > 0


def test_a_wrong_certificate_ends_the_call_with_its_reason():
    for setup in (SetupRole.ACTPASS, SetupRole.ACTIVE):
        world = World()
        caller = world.call(setup=setup, offered_digest=b"\x01" * 32)
        caller.check()
        world.settle()
        world.pass_time(PATIENCE_S)
        assert caller.heard.ended == []  # the right one may come yet: who forges is no reason to hang up
        world.pass_time(MISMATCH_PATIENCE_S)
        assert caller.heard.ended == [EndReason.FINGERPRINT_MISMATCH]
        assert caller.heard.connected == 0
        assert world.core.calls.sessions == {}


def test_a_nonce_is_not_given_twice():
    class Repeating:
        def __init__(self):
            self.count = 0

        def __call__(self, size):
            self.count += 1
            return bytes(size) if self.count < 6 else self.count.to_bytes(size)

    world = World()
    world.core.calls._random_bytes = world.core.calls.ufrags._random_bytes = Repeating()
    assert world.call().server_ufrag != world.call(ELSEWHERE).server_ufrag


# ---- admission


def test_a_full_transceiver_refuses_and_says_when_to_ask_again():
    world = World(capacity=1)
    world.call()
    refused = world.core.calls.create(CHROMIUM, [RELAY], world.now, request_id="another", region="", relay="")
    assert isinstance(refused, NoRoom)
    assert refused.reason is RefusalReason.FULL
    assert refused.retry_after_s > 0


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (MemberState.STARTING, RefusalReason.STARTING),
        (MemberState.DRAINING, RefusalReason.DRAINING),
        (MemberState.GONE, RefusalReason.DRAINING),
    ],
)
def test_only_an_active_transceiver_takes_calls(state, reason):
    world = World()
    world.core.calls.state = state
    refused = world.core.calls.create(CHROMIUM, [RELAY], world.now, request_id="request-x", region="", relay="")
    assert isinstance(refused, NoRoom)
    assert refused.reason is reason


def test_offers_whose_clients_never_come_leave_room_for_others():
    world = World(capacity=100)
    for _ in range(25):
        world.create(CHROMIUM)
    refused = world.core.calls.create(CHROMIUM, [RELAY], world.now, request_id="request-x", region="", relay="")
    assert isinstance(refused, NoRoom)
    assert refused.reason is RefusalReason.OVERLOADED
    world.pass_time(31.0)
    assert world.core.calls.sessions == {}
    world.create(CHROMIUM)


def test_a_repeated_request_is_the_same_call():
    world = World()
    first = world.create(CHROMIUM, "request-same")
    assert world.create(CHROMIUM, "request-same") is first
    assert len(world.core.calls.sessions) == 1


def test_a_refused_offer_leaves_nothing_behind():
    world = World()
    with pytest.raises(SdpError):
        world.core.calls.create("v=0", [RELAY], world.now, request_id="request-x", region="", relay="")
    assert world.core.calls.sessions == {}
    assert world.core.calls.deadline() is None


# ---- who is believed


def test_spp_from_a_stranger_is_dropped_unseen():
    world = World()
    caller = world.connected()
    packet = encode_spp(caller.address, STRANGER) + caller.build_audio()
    assert world.core.receive(packet, STRANGER, world.now) is DropReason.SPP_FROM_STRANGER
    # ... also with the very header of a relay, which is in the table of headers
    packet = encode_spp(caller.address, RELAY) + caller.build_audio()
    assert world.core.receive(packet, STRANGER, world.now) is DropReason.SPP_FROM_STRANGER
    assert world.drain() == []


def test_a_relay_that_left_the_topology_is_a_stranger():
    world = World()
    caller = world.connected()
    assert caller.speak() is None
    world.core.set_topology(TopologyIndex(Topology(cluster=7)))
    assert caller.speak() is DropReason.SPP_FROM_STRANGER


def test_bare_packets_are_taken_only_where_the_setting_says_so():
    assert World().call(relay=None).check() is DropReason.DIRECT_NOT_ACCEPTED
    assert World(accept_direct=True).connected(relay=None, echo=True).speak() is None


def test_media_from_an_address_without_a_check_goes_nowhere():
    caller = World().connected()
    assert caller.send(caller.build_audio(), address=ELSEWHERE) is DropReason.ADDRESS_NOT_CHECKED
    assert caller.send(b"\x16\xfe\xfd" + bytes(10), address=ELSEWHERE) is DropReason.ADDRESS_NOT_CHECKED
    assert caller.session.ice.selected.client == caller.address


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pwd": "x" * 32}, DropReason.STUN_BAD_INTEGRITY),
        ({"username": "A" * 24 + ":c1ie"}, DropReason.SESSION_UNKNOWN),
        ({"extra": [(0x0026, b"1234")]}, DropReason.STUN_UNKNOWN_ATTRIBUTE),
    ],
)
def test_a_check_that_is_not_authentic_moves_nothing(change, reason):
    caller = World().connected()
    before = caller.session.ice.selected
    assert caller.check(address=ELSEWHERE, **change) is reason
    assert caller.session.ice.selected is before
    assert caller.world.drops() == {reason: 1}
    assert caller.world.drain() == []


def test_a_check_of_another_clients_ufrag_is_refused():
    caller = World().connected()
    assert caller.check(username=f"{caller.server_ufrag}:else") is DropReason.ICE_WRONG_CLIENT


def test_a_client_that_claims_to_be_controlled_is_told_487_and_learns_no_path():
    world = World()
    caller = world.call()
    assert caller.check(ice_controlling=None, ice_controlled=9) is None
    world.settle()
    assert parse_binding_response(caller.answered[0]).error_code == 487
    assert caller.session.ice.paths == {}


def test_a_transaction_seen_from_another_address_moves_nothing_and_gets_no_answer():
    world = World()
    caller = world.connected()
    check = caller.build_check()
    assert caller.send(check) is None
    world.settle()
    answers = len(caller.answered)
    assert caller.send(check, address=ELSEWHERE) is DropReason.ICE_REPLAY
    assert world.drain() == []
    assert caller.session.ice.selected.client == caller.address
    assert caller.send(check) is None  # a retransmission
    world.settle()
    assert len(caller.answered) == answers + 1


def test_an_old_check_replayed_from_its_own_address_does_not_move_the_call_back():
    world = World()
    caller = world.connected()
    old = caller.build_check()
    caller.send(old)
    assert caller.check(address=ELSEWHERE) is None
    assert caller.session.ice.selected.client == ELSEWHERE
    assert caller.send(old) is None
    assert caller.session.ice.selected.client == ELSEWHERE


def test_the_memory_of_transactions_is_as_long_as_stated(monkeypatch):
    monkeypatch.setattr("voicefleet_dataplane.core.call.ice.TRANSACTIONS_REMEMBERED", 5)
    world = World()
    caller = world.connected()
    old = caller.build_check()
    caller.send(old)
    for _ in range(4):
        caller.check()
    assert caller.send(old, address=ELSEWHERE) is DropReason.ICE_REPLAY
    caller.check()
    assert caller.send(old, address=ELSEWHERE) is None
    assert len(caller.session.ice._transactions) == 5


def test_a_valid_caller_cannot_take_a_victims_tuple():
    world = World()
    victim = world.connected(VICTIM, echo=True)
    attacker = world.connected()
    assert attacker.check(address=VICTIM) is DropReason.ICE_TUPLE_TAKEN
    world.settle()
    assert victim.speak(b"still mine") is None
    world.settle()
    assert victim.media[-1].payload == b"still mine"


def test_a_tuple_whose_call_has_ended_is_free():
    world = World()
    first = world.connected(VICTIM)
    assert world.core.calls.hang_up(first.session.agreed.call_id)
    world.settle()
    second = world.connected(VICTIM, echo=True)
    assert second.speak() is None


def test_addresses_of_one_call_are_limited():
    caller = World().connected()
    reasons = [caller.check(address=Address("203.0.113.1", port), nominate=False) for port in range(1, 10)]
    assert reasons == [None] * 7 + [DropReason.ICE_TOO_MANY_TUPLES] * 2


def test_a_check_of_a_call_that_ended_is_named_so():
    world = World()
    caller = world.connected()
    world.core.calls.hang_up(caller.session.agreed.call_id)
    assert caller.check() is DropReason.SESSION_ENDED


# ---- the return path


def test_before_nomination_the_first_checked_address_gets_the_packets():
    world = World()
    caller = world.call()
    caller.check(nominate=False)
    caller.check(address=ELSEWHERE, nominate=False)
    assert caller.session.ice.selected.client == caller.address


def test_the_call_follows_the_nominated_address():
    world = World()
    caller = world.connected(echo=True)
    assert caller.check(address=ELSEWHERE) is None
    world.clients[ELSEWHERE] = caller
    world.drain()
    assert caller.send(caller.build_audio(), address=ELSEWHERE) is None
    ((datagram, destination),) = world.drain()
    assert destination == RELAY
    assert datagram[:HEADER_BYTES] == encode_spp(ELSEWHERE, RELAY)


def test_the_call_follows_its_flow_to_another_relay():
    world = World()
    caller = world.connected(echo=True)
    assert caller.check(relay=OTHER_RELAY) is None
    world.drain()
    assert caller.send(caller.build_audio(), relay=OTHER_RELAY) is None
    ((datagram, destination),) = world.drain()
    assert destination == OTHER_RELAY
    assert datagram[:HEADER_BYTES] == encode_spp(caller.address, OTHER_RELAY)


def test_media_through_another_relay_does_not_move_the_return_path():
    world = World()
    caller = world.connected(echo=True)
    assert caller.send(caller.build_audio(), relay=OTHER_RELAY) is None
    ((_, destination),) = world.drain()
    assert destination == RELAY


# ---- media and reports


def test_replayed_and_forged_media_are_counted_and_end_nothing():
    caller = World().connected(echo=True)
    packet = caller.build_audio()
    assert caller.send(packet) is None
    assert caller.send(packet) is DropReason.SRTP_REPLAY
    assert caller.send(packet[:-1] + bytes((packet[-1] ^ 1,))) is DropReason.SRTP_REPLAY
    fresh = caller.build_audio()
    assert caller.send(fresh[:-1] + bytes((fresh[-1] ^ 1,))) is DropReason.SRTP_AUTH
    assert caller.send(fresh) is None


def test_the_clients_keypad_reaches_the_listener_apart_from_its_audio():
    caller = World().connected()
    assert caller.speak(b"\x05\x8a\x03\xc0", payload_type=110) is None
    assert caller.speak(b"opus") is None
    assert [packet.payload for packet in caller.heard.keypad] == [b"\x05\x8a\x03\xc0"]
    assert [packet.payload for packet in caller.heard.audio] == [b"opus"]


def test_a_payload_type_that_nobody_agreed_on_reaches_no_backend():
    caller = World().connected()
    assert caller.speak(payload_type=96) is DropReason.RTP_UNEXPECTED
    assert caller.heard.audio == []


def test_ssrcs_of_one_call_are_limited():
    caller = World().connected()
    reasons = [caller.speak(ssrc=ssrc, sequence=1) for ssrc in range(1, 6)]
    assert reasons == [None] * 4 + [DropReason.RTP_UNEXPECTED]


def test_reports_before_the_handshake_are_not_ready():
    caller = World().call()
    caller.check()
    assert caller.send(b"\x80\xc8" + bytes(60)) is DropReason.SRTP_NOT_READY


def test_media_that_overtakes_the_handshakes_last_flight_is_heard():
    """Media goes through a relay's kernel, DTLS through its process: the first words may come first."""
    world = World()
    caller = world.call()
    caller.check()
    while caller.srtp is None:  # until the client has keys, and its last flight stands ready
        caller.flush()
        for datagram, destination in world.drain():
            world.arrive(datagram, destination)
    assert caller.speak(sequence=1) is None
    assert caller.speak(sequence=2) is None
    assert caller.session.packets_in == 0
    world.settle()
    assert caller.session.packets_in == 2
    assert world.core.drops[DropReason.SRTP_NOT_READY] == 0


def test_early_media_is_bounded_and_counted_when_the_call_never_connects():
    world = World()
    caller = world.call()
    caller.check()
    reasons = [caller.send(b"\x80\x6f" + bytes(60)) for _ in range(MAX_EARLY_PACKETS + 2)]
    assert reasons == [None] * MAX_EARLY_PACKETS + [DropReason.SRTP_NOT_READY] * 2
    world.core.calls.hang_up(caller.session.agreed.call_id)
    assert world.core.drops[DropReason.SRTP_NOT_READY] == MAX_EARLY_PACKETS + 2


def test_early_media_that_is_not_authentic_is_counted_as_such_once_there_are_keys():
    world = World()
    caller = world.call()
    caller.check()
    assert caller.send(b"\x80\x6f" + bytes(60)) is None
    world.settle()
    assert world.core.drops[DropReason.SRTP_AUTH] == 1


def test_mid_is_sent_until_the_client_reports_on_our_stream():
    world = World()
    caller = world.connected(echo=True)
    caller.speak()
    world.settle()
    assert caller.raw_media[-1][0] == 0x90
    block = ReportBlock(caller.ssrc, 0, 0, 0, 0, 0, 0)
    caller.send(caller.srtp.protect_rtcp(build_report(SenderInfo(77, 0, 0, 0, 0), (block,), "c")))
    caller.speak()
    world.settle()
    assert caller.raw_media[-1][0] == 0x80


def test_a_sender_report_is_answered_with_loss_and_round_trip():
    world = World()
    caller = world.connected(echo=True)
    for sequence in (1, 2, 3, 5):
        caller.speak(sequence=sequence)
        world.now += 0.02
    world.settle()
    caller.send(caller.srtp.protect_rtcp(build_report(SenderInfo(77, 0xAABBCCDD << 16, 960, 4, 16), (), "c")))
    world.settle()
    reports = parse_rtcp(caller.rtcp[-1])
    (sender,), (block,) = reports.senders, reports.blocks
    assert (sender.ssrc, sender.packets) == (caller.ssrc, 4)
    assert (block.ssrc, block.cumulative_lost, block.highest_sequence) == (77, 1, 5)
    assert block.last_report == 0xAABBCCDD
    # the client answers 250 ms later, having held the report for 50 ms
    world.now += 0.25
    answer = ReportBlock(caller.ssrc, 0, 0, 0, 0, sender.middle_ntp, int(0.05 * 65_536))
    caller.send(caller.srtp.protect_rtcp(build_report(SenderInfo(77, 1, 1, 5, 5), (answer,), "c")))
    status = session_status(caller.session, world.now)
    assert status.rtt_ms == pytest.approx(200, abs=1)
    assert status.loss == pytest.approx(1 / 5)
    assert status.packets_in == 4


def test_a_client_that_only_speaks_is_sent_no_audio():
    caller = World().connected(direction="sendonly", echo=True)
    assert caller.speak() is None
    caller.world.settle()
    assert caller.media == []


def test_sctp_packets_pass_both_ways():
    world = World()
    caller = world.connected()
    caller.send_data(b"sctp up")
    assert caller.heard.sctp == [b"sctp up"]
    assert caller.session.send_sctp(b"sctp down", world.now)
    world.settle()
    assert caller.data == [b"sctp down"]


# ---- why a call ends


def test_a_call_without_checks_ends_after_thirty_seconds():
    world = World()
    caller = world.connected()
    for _ in range(4):
        world.pass_time(10.0)
        caller.check()
        caller.speak()
    for _ in range(31):
        world.pass_time(1.0)
        caller.speak()
    assert caller.heard.ended == [EndReason.CONSENT_EXPIRED]


@pytest.mark.timeout(60)  # it went round for ever: where now is the very sum, and its difference rounds to less
def test_consent_runs_out_at_its_timer_however_the_time_rounds():
    rounding = [at for at in (100.0 + n / 100 for n in range(2_000)) if at + CONSENT_S - at < CONSENT_S]
    assert rounding
    for at in rounding[:20]:
        world = World()
        world.now = at
        caller = world.connected()
        world.core.calls.advance(at + CONSENT_S)
        assert caller.heard.ended == [EndReason.CONSENT_EXPIRED]


def test_a_replayed_check_is_no_consent():
    world = World()
    caller = world.connected()
    check = caller.build_check()
    caller.send(check)
    for _ in range(31):
        world.pass_time(1.0)
        caller.send(check)
        caller.speak()
    assert caller.heard.ended == [EndReason.CONSENT_EXPIRED]


def test_nothing_is_sent_to_an_address_whose_consent_has_run_out():
    world = World()
    caller = world.connected(echo=True)
    world.pass_time(20.0)
    caller.check(address=ELSEWHERE, nominate=False)
    world.pass_time(15.0)
    assert caller.session.ice.selected.client == ELSEWHERE
    assert caller.speak() is DropReason.ADDRESS_NOT_CHECKED


def test_an_idle_call_ends_and_one_with_data_does_not():
    world = World(limits=Limits(idle_s=40.0))
    quiet = world.connected()
    chatty = world.connected(ELSEWHERE)
    for _ in range(10):
        world.pass_time(5.0)
        quiet.check()
        chatty.check()
        assert chatty.session.note_message(world.now)
    assert quiet.heard.ended == [EndReason.IDLE]
    assert chatty.heard.ended == []


def test_a_call_ends_at_its_longest_duration():
    world = World(limits=Limits(duration_s=100.0))
    caller = world.connected()
    for _ in range(12):
        world.pass_time(10.0)
        caller.check()
        if caller.srtp and not caller.heard.ended:
            caller.speak()
    assert caller.heard.ended == [EndReason.MAX_DURATION]
    assert world.core.calls.tally.ended[EndReason.MAX_DURATION] == 1


def test_the_client_hears_bye_and_close_notify_at_a_hang_up():
    world = World()
    caller = world.connected(echo=True)
    caller.speak()
    assert world.core.calls.hang_up(caller.session.agreed.call_id)
    world.settle()
    assert parse_rtcp(caller.rtcp[-1]).byes == (caller.ssrc,)
    assert caller.dtls.state == "closed"
    assert caller.heard.ended == [EndReason.HANG_UP]
    assert not world.core.calls.hang_up(caller.session.agreed.call_id)


def test_a_client_that_closes_ends_its_call():
    world = World()
    caller = world.connected()
    caller.dtls.close()
    world.settle()
    assert caller.heard.ended == [EndReason.CLOSED_BY_CLIENT]


def test_an_ended_call_leaves_no_address_header_or_timer_behind():
    world = World()
    caller = world.connected(echo=True)
    caller.speak()
    world.core.calls.hang_up(caller.session.agreed.call_id)
    world.drain()
    core = world.core
    assert not core._routes.by_client
    assert not core._routes.by_header
    assert not core.calls._by_request
    assert not core.calls.ufrags.sessions
    assert core.calls.deadline() is None
    assert caller.speak() is DropReason.ADDRESS_NOT_CHECKED
