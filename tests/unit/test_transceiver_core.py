"""Calls of one transceiver in simulated time: how they are set up, and who gets in."""

import pytest

from tests.support.offers import CHROMIUM
from tests.support.transceiver import HINT_KEYS, RELAY, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.call_id import decode_call_id
from voicefleet_contract.drops import DropReason
from voicefleet_contract.hint import decode_hint
from voicefleet_contract.http_api import RefusalReason
from voicefleet_contract.spp import HEADER_BYTES
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.core.call.dtls import MISMATCH_PATIENCE_S
from voicefleet_dataplane.core.call.dtls_hello import PATIENCE_S
from voicefleet_dataplane.core.call.model import EndReason, Limits
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.core.transceiver.admission import NoRoom
from voicefleet_dataplane.wire.sdp.model import SdpError, SetupRole

ELSEWHERE = Address("203.0.113.9", 5_555)


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
