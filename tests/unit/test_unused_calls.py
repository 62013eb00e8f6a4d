"""Streams that come and go in one call, and calls that nobody uses (core/call/incoming.py, core/call/lifetime.py)."""

import json
from unittest.mock import Mock

from tests.support.transceiver import World
from tests.unit.test_listening import running
from tests.unit.test_paths import SPEECH, agent_speaks, report
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.model import EndReason, Limits
from voicefleet_dataplane.core.call.srtp import Srtp
from voicefleet_dataplane.media.echo import Echo
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp

# ---- streams


def test_eight_ssrcs_in_turn_are_heard():
    """asterisk/asterisk#927, sipwise/rtpengine#102: the fifth was never heard."""
    world = World()
    caller = world.connected()
    recorded = []
    for ssrc in range(100, 108):
        packets = [caller.build_audio(sequence=number, ssrc=ssrc) for number in range(1, 21)]
        assert [caller.send(packet) for packet in packets] == [None] * 20
        recorded += packets
        world.pass_time(1.0)
    assert len(caller.session._incoming.streams) == 4
    assert {caller.send(packet) for packet in recorded} == {DropReason.SRTP_REPLAY}


def test_a_stream_that_gave_way_comes_back_ahead_of_where_it_was_and_not_behind():
    world = World()
    caller = world.connected()
    packets = [caller.build_audio(sequence=number, ssrc=100) for number in range(1, 41)]
    for packet in packets[10:20]:
        caller.send(packet)
    for ssrc in range(101, 106):
        world.pass_time(1.0)
        caller.speak(ssrc=ssrc)
    assert caller.send(packets[5]) is DropReason.SRTP_REPLAY  # never seen, and behind
    assert caller.send(packets[25]) is None
    assert caller.session._incoming.streams[100].highest == 26


def test_a_forged_ssrc_makes_none_give_way_and_the_memory_of_them_is_bounded():
    world = World()
    caller = world.connected()
    for ssrc in range(100, 104):
        caller.speak(ssrc=ssrc)
    forged = bytearray(caller.build_audio(ssrc=105))
    forged[-1] ^= 1
    assert caller.send(bytes(forged)) is DropReason.SRTP_AUTH
    assert set(caller.session._incoming.streams) == {100, 101, 102, 103}
    verdicts = []
    for ssrc in range(200, 300):
        world.pass_time(1.0)
        caller.check()
        verdicts.append(caller.speak(ssrc=ssrc))
    assert verdicts == [None] * 60 + [DropReason.RTP_UNEXPECTED] * 40
    assert caller.speak(ssrc=259) is None


# ---- whether anybody uses it


def test_a_muted_client_hears_its_agent_for_ten_minutes():
    world = World()
    caller = world.connected()
    for second in range(600):
        if second % 5 == 0:
            caller.check()
        if second % 20 == 0:
            agent_speaks(caller)
        world.pass_time(1.0)
    assert caller.heard.ended == []


def test_one_that_offered_to_listen_only_is_not_idle_and_is_abandoned_when_it_only_checks():
    world = World(limits=Limits(abandoned_s=300.0))
    caller = world.connected(direction="recvonly")
    for second in range(700):
        if second < 200 and second % 5 == 0:
            caller.send(report(caller))
        caller.check()
        world.pass_time(1.0)
        if caller.heard.ended:
            break
    assert caller.heard.ended == [EndReason.ABANDONED]
    assert 494 <= second <= 497


def test_an_abandoned_tab_that_only_checks_ends_though_its_agent_speaks_on():
    world = World(limits=Limits(abandoned_s=300.0))
    caller = world.connected()
    second = 0
    while not caller.heard.ended and second < 400:
        second += 1
        caller.check()
        agent_speaks(caller)
        world.pass_time(1.0)
    assert caller.heard.ended == [EndReason.ABANDONED]
    assert 298 <= second <= 301


def test_who_uses_the_call_is_warned_once_each_time_that_its_end_comes_near():
    world = World()
    caller = world.connected()
    world.pass_time(25.0)
    caller.check()
    world.pass_time(24.9)
    assert caller.heard.warned == []
    world.pass_time(0.2)
    assert [(why, round(left)) for why, left in caller.heard.warned] == [(EndReason.IDLE, 10)]
    caller.check()
    caller.speak()
    world.pass_time(25.0)
    caller.check()
    world.pass_time(27.0)
    caller.check()
    assert len(caller.heard.warned) == 2
    world.pass_time(10.0)
    assert caller.heard.ended == [EndReason.IDLE]


def test_sequence_numbers_that_begin_anew_under_one_context_end_with_a_reason_that_names_srtp():
    world = World()
    caller = world.connected()
    caller.sequence = 60_000
    for _ in range(5_000):
        caller.srtp.protect(build_rtp(RtpPacket(False, 111, caller.sequence, 0, 77, b"x")))
        caller.sequence += 1
    assert caller.speak() is None
    begun_anew = Srtp(caller.dtls.keys)
    for number in range(70):
        for sequence in range(1 + 50 * number, 51 + 50 * number):
            caller.send(begun_anew.protect(build_rtp(RtpPacket(False, 111, sequence, 0, 77, SPEECH))))
        caller.check()
        world.pass_time(1.0)
        if caller.heard.ended:
            break
    assert caller.heard.ended == [EndReason.SRTP_FAILED]
    assert 58 <= number <= 61


async def test_the_client_is_told_in_events_before_and_why(monkeypatch):
    world = World()
    client = world.connected()
    told = []
    call = running(client, Echo)
    monkeypatch.setattr(call.hub, "tell", lambda event: told.append(json.loads(event)))
    for _ in range(61):
        client.check()
        world.pass_time(1.0)
    kinds = [(event["type"], event["reason"]) for event in told]
    assert kinds == [("voicefleet.call.ends_soon", "idle")]
    assert told[0]["seconds"] == 10.0
    assert client.session.end_reason is EndReason.IDLE


async def test_a_client_with_channels_hears_why_its_call_is_over(monkeypatch):
    world = World()
    client = world.connected()
    told = []
    call = running(client, Echo)
    monkeypatch.setattr(call.hub, "tell", lambda event: told.append(json.loads(event)))
    call._channels = Mock(close_all=lambda: False)
    client.session.end(EndReason.MAX_DURATION)
    assert [(event["type"], event["reason"]) for event in told] == [("voicefleet.call.ended", "max_duration")]
