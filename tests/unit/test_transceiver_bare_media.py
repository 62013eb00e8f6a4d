"""Media without a header, to and from a relay's flow port: what announces it, what it may be, and when it ends."""

import pytest

from tests.support.transceiver import CLIENT, OTHER_RELAY, RELAY, TOPOLOGY, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.spp import HEADER_BYTES, decode_spp, encode_spp
from voicefleet_contract.topology import Endpoint, Relay, Topology, TopologyIndex
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.wire.demux import Kind, classify
from voicefleet_dataplane.wire.stun import parse_binding_response

PORT = Address(RELAY.host, 40_001)
OTHER_CLIENT = Address("192.0.2.77", 4444)
SECOND_RELAY = Address(RELAY.host, 4479)  # another VoiceRelay on the same node


@pytest.fixture
def world():
    return World()


def announce(world, caller, bare, *, client=None, relay=RELAY, check=None):
    """Send a check under a header that names where bare media will come from; gives the header of the answer."""
    header = encode_spp(client or caller.address, bare)
    reason = world.core.receive(header + (check or caller.build_check()), relay, world.now)
    assert reason is None, reason
    answers = [(d, to) for d, to in world.drain() if classify(d[HEADER_BYTES:]) is Kind.STUN]
    assert [to for _, to in answers] == [relay]
    return decode_spp(answers[0][0])


def said(world, caller):
    """Have the transceiver send one audio packet; gives what was sent and where."""
    sequence = caller.session.packets_out + 1
    assert caller.session.send_audio(b"opus", sequence, sequence * 960)
    (sent,) = world.drain()
    return sent


def test_an_announced_port_carries_media_both_ways_without_a_header(world):
    caller = world.connected()
    assert announce(world, caller, PORT) == (CLIENT, RELAY)
    assert world.core.receive(caller.build_audio(), PORT, world.now) is None
    assert caller.heard.audio
    packet, to = said(world, caller)
    assert (to, classify(packet)) == (PORT, Kind.RTP)
    assert world.drops() == {}


def test_consent_is_withdrawn_under_the_relays_own_address(world):
    """Under the one that was announced it would be the word of an owner that does not understand announcements."""
    caller = world.connected()
    announce(world, caller, PORT)
    world.core.calls.hang_up(caller.session.agreed.call_id)
    world.drain()
    reason = world.core.receive(encode_spp(CLIENT, PORT) + caller.build_check(), RELAY, world.now)
    assert reason is DropReason.SESSION_ENDED
    ((refusal, to),) = world.drain()
    assert (decode_spp(refusal), to) == ((CLIENT, RELAY), RELAY)
    assert parse_binding_response(refusal[HEADER_BYTES:]).error_code == 403


def test_a_call_that_ends_says_goodbye_by_both_ways(world):
    caller = world.connected()
    announce(world, caller, PORT)
    said(world, caller)
    world.core.calls.hang_up(caller.session.agreed.call_id)
    bye, *last_words = world.drain()
    assert (bye[1], classify(bye[0])) == (PORT, Kind.RTCP)
    kinds = [(to, classify(datagram[HEADER_BYTES:])) for datagram, to in last_words]
    assert kinds == [
        (RELAY, Kind.DTLS),
        (RELAY, Kind.STUN),
    ]  # for the client; for the relay, which can verify the second


def test_a_relay_that_puts_headers_on_everything_gets_them_back(world):
    caller = world.connected()
    assert announce(world, caller, RELAY) == (CLIENT, RELAY)
    assert said(world, caller)[1] == RELAY


def test_a_relay_that_goes_back_to_headers_gets_them_and_loses_nothing_that_is_on_its_way(world):
    caller = world.connected()
    announce(world, caller, PORT)
    announce(world, caller, RELAY)
    packet, to = said(world, caller)
    assert (to, decode_spp(packet)) == (RELAY, (CLIENT, RELAY))
    assert world.core.receive(caller.build_audio(), PORT, world.now) is None


@pytest.mark.parametrize("datagram", [b"\x16\xfe\xfd" + bytes(20), b"\x00\x01" + bytes(18), b"\x05" * 20, b"\xff" * 20])
def test_only_media_comes_bare(world, datagram):
    caller = world.connected()
    announce(world, caller, PORT)
    assert world.core.receive(datagram, PORT, world.now) is DropReason.DIRECT_NOT_ACCEPTED


def test_a_check_does_not_come_bare(world):
    caller = world.connected()
    announce(world, caller, PORT)
    assert world.core.receive(caller.build_check(), PORT, world.now) is DropReason.DIRECT_NOT_ACCEPTED
    assert world.drain() == []


def test_media_from_a_port_that_nobody_announced_is_dropped(world):
    caller = world.connected()
    announce(world, caller, PORT)
    for stranger in (PORT._replace(port=40_002), PORT._replace(host=OTHER_RELAY.host), CLIENT):
        assert world.core.receive(caller.build_audio(), stranger, world.now) is DropReason.DIRECT_NOT_ACCEPTED


def test_a_check_that_is_not_authentic_announces_nothing(world):
    caller = world.connected()
    header = encode_spp(CLIENT, PORT)
    reason = world.core.receive(header + caller.build_check(pwd="x" * 24), RELAY, world.now)
    assert reason is DropReason.STUN_BAD_INTEGRITY
    assert world.core.receive(caller.build_audio(), PORT, world.now) is DropReason.DIRECT_NOT_ACCEPTED


def test_a_stranger_announces_nothing(world):
    caller = world.connected()
    header = encode_spp(CLIENT, Address("203.0.113.66", 9))
    source = Address("203.0.113.66", 3479)
    assert world.core.receive(header + caller.build_check(), source, world.now) is DropReason.SPP_FROM_STRANGER


def test_media_on_a_header_announces_nothing(world):
    caller = world.connected()
    assert world.core.receive(encode_spp(CLIENT, PORT) + caller.build_audio(), RELAY, world.now) is None
    assert world.core.receive(caller.build_audio(), PORT, world.now) is DropReason.DIRECT_NOT_ACCEPTED
    assert said(world, caller)[1] == RELAY


def test_a_port_on_another_host_than_the_relays_is_refused_under_the_header_that_came(world):
    caller = world.connected()
    elsewhere = Address("203.0.113.66", 40_001)
    assert announce(world, caller, elsewhere) == (CLIENT, elsewhere)
    assert said(world, caller)[1] == RELAY


def test_a_relay_on_our_own_host_may_hand_over_clients_packets_as_they_are():
    world = World(inner_host=RELAY.host)
    caller = world.connected()
    assert announce(world, caller, CLIENT) == (CLIENT, RELAY)
    assert world.core.receive(caller.build_audio(), CLIENT, world.now) is None
    assert said(world, caller)[1] == CLIENT


def test_a_relay_elsewhere_may_not(world):
    caller = world.connected()
    assert announce(world, caller, CLIENT) == (CLIENT, CLIENT)
    assert said(world, caller)[1] == RELAY


def test_another_relay_of_the_host_may_not_use_a_port_that_is_in_use():
    world = World()
    second = Relay(name="fra-1b", inner=(Endpoint(address=SECOND_RELAY.host, port=SECOND_RELAY.port),))
    relays = (*TOPOLOGY.topology.relays, second)
    world.core.set_topology(TopologyIndex(TOPOLOGY.topology.model_copy(update={"relays": relays})))
    caller, other = world.connected(), world.connected(OTHER_CLIENT)
    announce(world, caller, PORT)
    assert announce(world, other, PORT, relay=SECOND_RELAY) == (OTHER_CLIENT, PORT)
    assert said(world, other)[1] == SECOND_RELAY
    world.core.calls.hang_up(caller.session.agreed.call_id, EndReason.HANG_UP)
    world.drain()
    assert announce(world, other, PORT, relay=SECOND_RELAY) == (OTHER_CLIENT, SECOND_RELAY)
    assert said(world, other)[1] == PORT


def test_a_port_that_its_relay_gave_to_another_client_is_the_first_ones_no_more(world):
    caller, other = world.connected(), world.connected(OTHER_CLIENT)
    announce(world, caller, PORT)
    announce(world, other, PORT)
    assert said(world, caller)[1] == RELAY
    assert said(world, other)[1] == PORT
    assert world.core.receive(other.build_audio(), PORT, world.now) is None
    assert world.core.receive(caller.build_audio(sequence=9), PORT, world.now) is DropReason.SRTP_AUTH


def test_ports_of_a_relay_that_left_the_topology_are_strangers(world):
    caller = world.connected()
    announce(world, caller, PORT)
    world.core.set_topology(TOPOLOGY)  # another revision that still has it
    assert world.core.receive(caller.build_audio(), PORT, world.now) is None
    world.core.set_topology(TopologyIndex(Topology(cluster=TOPOLOGY.cluster)))
    assert world.core.receive(caller.build_audio(), PORT, world.now) is DropReason.DIRECT_NOT_ACCEPTED


def test_a_retransmitted_check_confirms_no_port_since_it_moves_nothing(world):
    caller = world.connected()
    check = caller.build_check()
    announce(world, caller, RELAY, check=check)
    assert announce(world, caller, PORT, check=check) == (CLIENT, PORT)
    assert said(world, caller)[1] == RELAY


def test_a_call_that_ended_leaves_no_port_behind(world):
    caller = world.connected()
    announce(world, caller, PORT)
    audio = caller.build_audio()
    world.core.calls.hang_up(caller.session.agreed.call_id)
    assert world.core.receive(audio, PORT, world.now) is DropReason.DIRECT_NOT_ACCEPTED
    assert not world.core._routes.by_tuple
