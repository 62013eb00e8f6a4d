"""A call lives as long as its client does, on whatever path that client uses: the rule of core/call/paths.py, line by line."""

import pytest

from tests.support.relayed_calls import OWNERS, Fleet
from tests.support.transceiver import CLIENT, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.model import EndReason, Limits
from voicefleet_dataplane.core.call.paths import CONSENT_S, EVIDENCE_S, SILENT_S
from voicefleet_dataplane.wire.rtcp import SenderInfo, build_report
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp

ELSEWHERE = Address("203.0.113.9", 5_555)
SPEECH = b"o" * 80


def report(caller):
    return caller.srtp.protect_rtcp(build_report(SenderInfo(77, 0, 0, 0, 0), (), "c"))


def agent_speaks(caller):
    session = caller.session
    number = session.sending.packets + 1
    return session.send_audio(SPEECH, number, number * 960)


def seconds_of(caller, seconds, *, address=None, speaks=True, check_every_s=None):
    """Both sides speak, 50 packets a second; gives how many of the agent's the client heard."""
    world, before = caller.world, len(caller.media)
    for frame in range(round(seconds * 50)):
        if check_every_s and frame % round(check_every_s * 50) == 0:
            caller.check(address=address, nominate=False)
        if speaks:
            caller.send(caller.build_audio(SPEECH), address=address)
        agent_speaks(caller)
        world.pass_time(0.02)
    return len(caller.media) - before


def rebound(caller, address=ELSEWHERE):
    """A NAT has given the client another address: what goes to the old one is lost."""
    world = caller.world
    del world.clients[caller.address]
    world.clients[address] = caller
    caller.address = address


# ---- what keeps a path alive


@pytest.mark.parametrize("kind", ["SRTP", "SRTCP", "DTLS", "the answer to a check"])
def test_what_is_authentic_keeps_a_call_whose_client_never_checks_again(kind):
    """Pion 3 to 4.0.7 and libnice before 0.1.22 check seldom or never while media flows."""
    world = World(limits=Limits(idle_s=0))
    caller = world.connected()
    for _ in range(45):
        world.pass_time(1.0)
        if kind == "SRTP":
            assert caller.speak() is None
        elif kind == "SRTCP":
            assert caller.send(report(caller)) is None
        elif kind == "DTLS":
            caller.send_data(b"heartbeat")
        else:
            caller.session.ice.selected.contest(world.now)  # so that it is asked
    assert caller.heard.ended == []
    world.pass_time(max(CONSENT_S, EVIDENCE_S) + 1)
    assert caller.heard.ended == [EndReason.CONSENT_EXPIRED]


def test_what_is_not_authentic_or_was_sent_before_keeps_no_path():
    world = World(limits=Limits(idle_s=0))
    caller = world.connected()
    recorded, recorded_report, data = caller.build_audio(), report(caller), []
    caller.dtls.send(b"data")
    data += caller.dtls.poll()
    for packet in (recorded, recorded_report, *data):
        assert caller.send(packet) is None
    for _ in range(29):
        world.pass_time(1.0)
        for packet in (recorded, recorded_report):
            assert caller.send(packet) is DropReason.SRTP_REPLAY
        for packet in (bytes([0x80, 111]) + bytes(60), bytes([0x80, 200]) + bytes(60), *data):
            caller.send(packet)
    world.pass_time(1.1)
    assert caller.heard.ended == [EndReason.CONSENT_EXPIRED]


def test_while_nobody_speaks_the_client_hears_a_report_each_five_seconds():
    world = World(limits=Limits(idle_s=0))
    caller = world.connected()
    for _ in range(12):
        before = len(caller.rtcp)
        world.pass_time(5.0)
        caller.check()
        assert len(caller.rtcp) > before


def test_a_relays_flow_lives_on_the_reports_while_a_client_that_never_checks_speaks():
    fleet = Fleet()
    caller = fleet.worlds[5].connected(CLIENT)
    for _ in range(120):
        fleet.pass_time(1.0)
        assert caller.speak() is None
    assert fleet.flow(CLIENT).owner_address == OWNERS[5]
    assert fleet.relay.flows.is_live(fleet.flow(CLIENT), fleet.now - 20.0)
    assert caller.session.packets_in == 120


# ---- where media goes


@pytest.mark.parametrize("check_every_s", [0.5, 5.0])
def test_after_a_rebinding_a_client_that_nominates_nothing_hears_again(check_every_s):
    """Of Pion 4.2, libdatachannel and Firefox consent checks carry no USE-CANDIDATE: 27 to 30 s of silence it was."""
    caller = World().connected()
    assert seconds_of(caller, 2.0) == 100
    rebound(caller)
    heard = seconds_of(caller, 5.0, check_every_s=check_every_s)
    assert caller.session.ice.selected.client == ELSEWHERE
    assert heard >= 250 - 50 * (SILENT_S + 0.5)


def test_a_muted_client_that_rebinds_hears_again_with_its_next_report():
    caller = World().connected()
    rebound(caller)
    caller.check(nominate=False)
    assert seconds_of(caller, 1.5, speaks=False) == 0
    assert caller.send(report(caller)) is None
    assert seconds_of(caller, 1.0, speaks=False) == 50


def test_media_moves_nothing_while_the_selected_path_is_heard():
    world = World()
    caller = world.connected()
    caller.check(address=ELSEWHERE, nominate=False)
    for _ in range(200):
        caller.send(caller.build_audio(), address=ELSEWHERE)
        caller.send(caller.build_audio())
        world.pass_time(0.02)
    assert caller.session.ice.selected.client == CLIENT


@pytest.mark.parametrize("kind", ["late", "replayed", "not authentic"])
def test_a_packet_that_is_late_replayed_or_not_authentic_moves_nothing(kind):
    world = World()
    caller = world.connected()
    held_back = [caller.build_audio() for _ in range(20)]
    caller.speak()
    caller.check(address=ELSEWHERE, nominate=False)
    world.pass_time(SILENT_S + 1)
    for original in held_back:
        packet = original
        if kind == "replayed":
            caller.send(packet)
            world.pass_time(SILENT_S + 1)
        if kind == "not authentic":
            packet = packet[:-1] + bytes([packet[-1] ^ 1])
        caller.send(packet, address=ELSEWHERE)
    assert caller.session.ice.selected.client == CLIENT


def test_a_late_or_replayed_report_moves_nothing():
    world = World()
    caller = world.connected()
    late, newest = report(caller), report(caller)
    assert caller.send(newest) is None
    caller.check(address=ELSEWHERE, nominate=False)
    world.pass_time(SILENT_S + 1)
    assert caller.send(late, address=ELSEWHERE) is None
    assert caller.send(newest, address=ELSEWHERE) is DropReason.SRTP_REPLAY
    assert caller.session.ice.selected.client == CLIENT
    assert caller.send(report(caller), address=ELSEWHERE) is None
    assert caller.session.ice.selected.client == ELSEWHERE


def test_aggressive_nomination_of_two_paths_leaves_media_where_it_is_heard():
    """versatica/mediasoup#650: each check of both nominates, and half of the packets went elsewhere."""
    world = World()
    caller = world.connected()
    world.clients[ELSEWHERE] = caller
    selected = []
    for _ in range(100):
        for address in (CLIENT, ELSEWHERE):
            caller.check(address=address)
        for _ in range(10):
            caller.speak()
            world.pass_time(0.02)
        selected.append(caller.session.ice.selected.client)
    assert set(selected[10:]) == {CLIENT}


def test_a_client_that_goes_back_to_a_path_that_it_nominated_before_is_followed():
    world = World()
    caller = world.connected()
    world.clients[ELSEWHERE] = caller
    for address in (ELSEWHERE, CLIENT, ELSEWHERE, CLIENT):
        caller.check(address=address)
        world.settle()
        assert seconds_of(caller, 2.0, address=address) == 100
        assert caller.session.ice.selected.client == address


def test_a_flapping_client_moves_media_at_most_once_in_a_second():
    world = World()
    caller = world.connected()
    world.clients[ELSEWHERE] = caller
    moves, selected = 0, caller.session.ice.selected
    for frame in range(1_000):
        address = (CLIENT, ELSEWHERE)[frame % 2]
        caller.check(address=address)
        caller.send(caller.build_audio(), address=address)
        world.pass_time(0.02)
        moves += caller.session.ice.selected is not selected
        selected = caller.session.ice.selected
    assert moves <= 1 + 20 / SILENT_S


# ---- networks and headers of other kinds


@pytest.mark.parametrize("address", [Address("2001:db8::9", 5_555), Address("64:ff9b::cb00:7109", 5_555)])
def test_a_client_of_ipv6_or_behind_nat64_calls_and_a_switch_to_new_sockets_is_followed_without_nomination(address):
    """webrtc-rs/webrtc#868: another network, other sockets, and nothing nominates them."""
    world = World()
    caller = world.connected(address)
    assert seconds_of(caller, 1.0) == 50
    rebound(caller, Address("198.51.100.200", 1_234))
    assert seconds_of(caller, 4.0, check_every_s=0.5) >= 120
    assert caller.session.ice.selected.client == caller.address


@pytest.mark.parametrize("header", ["two-byte extension", "CSRCs"])
def test_what_stands_between_header_and_speech_is_passed_over(header):
    world = World()
    caller = world.connected()
    clear = bytearray(build_rtp(RtpPacket(False, 111, 9, 960, 77, b"")))
    if header == "CSRCs":
        clear[0] |= 3
        clear += bytes(range(12))
    else:  # RFC 8285 section 4.3: 0x100 and four application bits, then id, length, value
        clear[0] |= 0x10
        clear += b"\x10\x05\x00\x02" + b"\x01\x03abc\x00\x00\x00"
    clear += SPEECH
    assert caller.send(caller.srtp.protect(bytes(clear))) is None
    assert caller.heard.audio[-1].payload == SPEECH
