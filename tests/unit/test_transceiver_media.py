"""Calls of one transceiver in simulated time: media and reports."""

import pytest

from tests.support.transceiver import World
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.incoming import MAX_EARLY_PACKETS
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.wire.rtcp import ReportBlock, SenderInfo, build_report, parse_rtcp


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
    assert reasons == [None] * 5
    assert len(caller.session._incoming.streams) == 4


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
