"""How much a client may make a transceiver do, by packets of its own call; in virtual time."""

import os

import pytest

from tests.support.transceiver import World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.budgets import (
    DATA_PER_S,
    DEPTH_S,
    KEYPAD_PER_S,
    MESSAGES_PER_S,
    RTCP_PER_S,
    UNKNOWN_SSRC_PER_S,
)
from voicefleet_dataplane.core.call.model import Limits
from voicefleet_dataplane.wire.opus import parse_duration_ticks
from voicefleet_dataplane.wire.rtcp import SenderInfo, build_report

OF_2_5_MS, OF_20_MS, OF_120_MS = b"\xe0opus", b"\x48opus", b"\x59opus"
ELSEWHERE = Address("198.51.100.2", 40_002)
A_CALL = Limits(idle_s=0)


class Opened:
    """Counts what is given to libsrtp."""

    def __init__(self, session):
        self.count = 0
        self._session = session._srtp._receive
        session._srtp._receive = self

    def unprotect(self, packet):
        self.count += 1
        return self._session.unprotect(packet)

    def unprotect_rtcp(self, packet):
        self.count += 1
        return self._session.unprotect_rtcp(packet)


@pytest.fixture
def caller():
    return World(limits=A_CALL).connected()


def speak(caller, payload, count, *, every_s=0.0, **options):
    """How many were taken."""
    taken = 0
    for _ in range(count):
        taken += caller.speak(payload, **options) is None
        caller.world.now += every_s
        caller.world.core.transmit.clear()
    return taken


def heard_s(caller):
    return sum(parse_duration_ticks(packet.payload) for packet in caller.heard.audio) / 48_000


# ---- what is refused


def test_long_packets_in_a_flood_are_a_few_seconds_of_audio_and_the_rest_is_not_opened(caller):
    opened = Opened(caller.session)
    speak(caller, OF_120_MS, 2_000)
    assert heard_s(caller) == pytest.approx(DEPTH_S, abs=0.25)
    assert opened.count == len(caller.heard.audio) < 50
    assert caller.world.drops() == {DropReason.AUDIO_RATE: 2_000 - opened.count}


def test_a_flood_for_a_minute_is_a_minute_of_audio(caller):
    speak(caller, OF_120_MS, 6_000, every_s=0.01)
    assert heard_s(caller) <= 60.0 * 1.05 + DEPTH_S + 0.12


@pytest.mark.parametrize("payload", [b"", b"\x03", OF_2_5_MS, OF_20_MS], ids=["empty", "no Opus", "2.5 ms", "20 ms"])
def test_no_packet_comes_more_often_than_a_codec_sends_it(caller, payload):
    opened = Opened(caller.session)
    speak(caller, payload, 6_000, every_s=0.001)
    assert opened.count <= 11.5 * 420  # the shortest frame that Opus has


def test_another_peer_connection_of_a_call_brings_no_other_budget(caller):
    world = caller.world
    speak(caller, OF_120_MS, 100)
    again = world.call(ELSEWHERE)
    again.session.inherit(caller.session)
    again.check()
    world.settle()
    assert again.speak(OF_20_MS) is DropReason.AUDIO_RATE


def test_keys_pressed_in_a_flood_are_some_and_speech_goes_on(caller):
    speak(caller, b"\x05\x8a\x03\x20", 5_000, payload_type=caller.session.agreed.telephone_event_type)
    assert len(caller.heard.keypad) <= KEYPAD_PER_S * DEPTH_S + 1
    assert caller.world.drops() == {DropReason.KEYPAD_RATE: 5_000 - len(caller.heard.keypad)}
    assert caller.speak(OF_20_MS) is None


def test_reports_in_a_flood_are_not_opened(caller):
    opened = Opened(caller.session)
    reports = [
        caller.srtp.protect_rtcp(build_report(SenderInfo(77, 1, 1, number, 1), (), "c")) for number in range(1, 2_001)
    ]
    reasons = [caller.send(report) for report in reports]
    assert opened.count <= RTCP_PER_S + 1
    assert set(reasons) == {None, DropReason.RTCP_RATE}
    assert caller.speak(OF_20_MS) is None


def test_data_in_a_flood_is_not_opened_and_many_records_in_a_datagram_are_many(caller):
    def send(count, records):
        datagrams = []
        for _ in range(count):
            for _ in range(records):
                assert caller.dtls.send(b"sctp")
            datagrams.append(b"".join(caller.dtls.poll()))
        return [caller.send(datagram) for datagram in datagrams]

    reasons = send(1_000, 8)
    assert len(caller.heard.sctp) <= DATA_PER_S * DEPTH_S + 8
    assert reasons.count(DropReason.DATA_RATE) >= 800
    assert caller.speak(OF_20_MS) is None
    caller.world.now += 1.0
    assert send(1, 1) == [None]


def test_forged_packets_under_the_clients_ssrc_do_not_silence_it(caller):
    caller.speak(OF_20_MS)
    for _ in range(100):  # two seconds, and 5,000 forged packets in each
        packet = caller.build_audio(OF_20_MS)
        for _ in range(100):
            assert caller.send(packet[:-16] + os.urandom(16)) is DropReason.SRTP_AUTH
        assert caller.send(packet) is None
        caller.world.now += 0.02


def test_forged_packets_under_made_up_ssrcs_are_not_opened_and_take_nothing_from_the_client(caller):
    caller.speak(OF_20_MS)
    opened = Opened(caller.session)
    packet = caller.build_audio(OF_20_MS)
    reasons = [caller.send(packet[:8] + os.urandom(4) + packet[12:]) for _ in range(20_000)]
    assert opened.count <= UNKNOWN_SSRC_PER_S + 1
    assert reasons.count(DropReason.AUDIO_RATE) == 20_000 - opened.count
    assert caller.speak(OF_20_MS) is None


def test_forged_records_do_not_end_the_data_of_a_call(caller):
    for _ in range(4_000):
        body = os.urandom(40)
        caller.send(b"\x17\xfe\xfd\x00\x01" + os.urandom(6) + len(body).to_bytes(2) + body)
    caller.send_data(b"sctp")
    assert caller.heard.sctp == [b"sctp"]


@pytest.mark.parametrize("packet", [b"\x80", b"\x80\x6f", b"\x80\x6f" + bytes(9)])
def test_what_is_too_short_to_have_a_header_is_a_drop(caller, packet):
    assert caller.send(packet) is DropReason.SRTP_MALFORMED


def test_messages_in_a_flood_wait(caller):
    heard = 0
    while caller.session.may_hear_message(caller.world.now):
        caller.session.note_message(caller.world.now)
        heard += 1
    assert MESSAGES_PER_S * DEPTH_S <= heard <= MESSAGES_PER_S * DEPTH_S + 1
    assert caller.world.drops() == {}
    caller.world.pass_time(0.1)
    assert caller.session.may_hear_message(caller.world.now)


# ---- what is not


def test_a_burst_after_three_seconds_without_a_packet_passes_whenever_it_comes(caller):
    for _ in range(5):
        assert speak(caller, OF_20_MS, 100, every_s=0.02) == 100
        caller.world.now += 3.0
        assert speak(caller, OF_20_MS, 150) == 150
    assert not caller.world.drops()


def test_an_hour_of_a_clock_that_is_fast_by_a_percent_passes(caller):
    assert speak(caller, OF_120_MS, 30_303, every_s=0.1188) == 30_303


def test_a_minute_of_the_shortest_packets_passes(caller):
    assert speak(caller, OF_2_5_MS, 24_000, every_s=0.0025) == 24_000


def test_pauses_with_comfort_noise_pass(caller):
    assert speak(caller, b"\x48\x00", 500, every_s=0.4) == 500


def test_a_key_held_for_half_a_minute_beside_speech_passes(caller):
    event = caller.session.agreed.telephone_event_type
    for _ in range(1_500):
        assert caller.speak(b"\x05\x0a\x03\x20", payload_type=event) is None
        assert caller.speak(OF_20_MS) is None
        caller.world.now += 0.02
