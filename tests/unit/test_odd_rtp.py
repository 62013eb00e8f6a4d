"""RTP as some stacks send it: packets of padding, empty ones, keypads on an SSRC and a clock of their own."""

import pytest

from tests.support.transceiver import World
from tests.support.voice_world import World as VoiceWorld
from tests.support.voice_world import speech_like
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.streams import ReceiveStream
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp

PADDED = b"\x00\x00\x00\x04"


def send_padding(caller, *, sequence: int | None = None, ssrc: int = 77):
    """A packet of four bytes, all of them padding (RFC 3550 section 5.1: P, and the last byte counts)."""
    caller.sequence += 1
    number = caller.sequence if sequence is None else sequence
    clear = bytearray(build_rtp(RtpPacket(False, 111, number, 1_234_567, ssrc, PADDED)))
    clear[0] |= 0x20
    return caller.send(caller.srtp.protect(bytes(clear)))


def test_padding_takes_its_number_and_no_time():
    world = World()
    caller = world.connected()
    caller.speak()
    before = caller.session.lifetime.active_at, caller.session.audio_at
    world.now += 1
    assert send_padding(caller) is None
    assert caller.speak(b"") is None
    assert (len(caller.heard.audio), len(caller.heard.padding)) == (1, 2)
    assert (caller.session.lifetime.active_at, caller.session.audio_at) == before
    stream = caller.session._incoming.streams[77]
    assert (stream.expected, stream.lost) == (3, 0)


def test_padding_alone_is_no_media():
    world = World()
    caller = world.connected()
    assert send_padding(caller) is None
    assert caller.session.audio_at is None


def test_a_burst_of_padding_does_not_silence_the_voice():
    """Some stacks probe the path with hundreds of them."""
    world = World()
    caller = world.connected()
    for _ in range(300):
        assert send_padding(caller) is None
    assert caller.speak() is None
    flood = {send_padding(caller) for _ in range(20_000)}
    assert DropReason.AUDIO_RATE in flood


def test_padding_moves_no_jitter():
    stream = ReceiveStream(7, 1, 0, 0.0)
    stream.note(1, 0, 0.0)
    stream.note_padding(2)
    stream.note(3, 960, 0.02)
    assert (stream.jitter, stream.lost) == (0.0, 0)


@pytest.mark.parametrize("between", ["padding", "keypad", "keypad of its own"])
def test_what_has_no_audio_costs_a_listener_nothing(between):
    """Packets without audio among those with, which come out of order: nothing begins anew, the words are whole."""
    world = VoiceWorld()
    encoder, samples = OpusEncoder(48_000, dtx=False), speech_like(1.0, 48_000)
    frames = [encoder.encode(samples[at : at + 960].tobytes()) for at in range(0, len(samples), 960)]
    own = between == "keypad of its own"
    for pair in range(25):
        one, two = (
            RtpPacket(
                False, 111, pair * (2 + (not own)) + place, (2 * pair + place) * 960, 77, frames[2 * pair + place]
            )
            for place in (0, 1)
        )
        odd = RtpPacket(
            False, 110, pair if own else two.sequence + 1, two.timestamp, 78 if own else 77, b"\x05\x0a\x01\x00"
        )
        first, second = (two, one) if pair else (one, two)
        world.voice.receive(first)
        world.voice.receive(odd._replace(payload=b"") if between == "padding" else odd, is_audio=False)
        world.voice.receive(second)
        world.run(0.04)
    counts = world.voice.counts()
    assert (counts["lost"], counts["concealed"], counts["late"]) == (0, 0, 0)
    assert len(world.heard_samples()) == 50 * 320
