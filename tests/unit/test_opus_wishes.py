"""Opus as the client wishes to receive it (RFC 7587): DTX, bit rate, constant rate, band, packets' length, copies."""

import numpy as np
import pytest

from tests.support.voice_world import World, longest_gap_s, similarity, speech_like
from voicefleet_dataplane.media.backend import RateHz
from voicefleet_dataplane.media.opus import BITRATE, OpusDecoder, OpusEncoder
from voicefleet_dataplane.media.opus_packets import join
from voicefleet_dataplane.wire.opus import parse_duration_ticks
from voicefleet_dataplane.wire.sdp.model import OpusWishes

RATE = 16_000
SECONDS = 4.0


def tone(hz: float = 440.0, seconds: float = SECONDS, gain: float = 8_000.0) -> np.ndarray:
    return (gain * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.int16)


def chord() -> np.ndarray:
    return tone(262, gain=3_000) + tone(330, gain=3_000) + tone(392, gain=3_000)


def said(samples: np.ndarray, **wishes) -> World:
    world = World(RateHz.WIDE, **wishes)
    world.voice.say(samples.tobytes(), "item")
    world.run(len(samples) / RATE + 1)
    assert world.voice.played_ms("item") == len(samples) * 1_000 // RATE
    return world


def payloads(world: World) -> list[bytes]:
    return [payload for *_, payload, _ in world.sent]


SOUNDS = {"tone": tone(), "chord": chord(), "quiet voice": (speech_like(SECONDS, RATE) * 0.005).astype(np.int16)}


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("dtx", [False, True])
def test_every_frame_of_a_sound_goes_out(sound, dtx):
    """libopus takes tones for silence: four fifths of their frames were lost. Quiet voices too."""
    loud = [np.abs(SOUNDS[sound][at : at + 320].astype(int)).max() > 16 for at in range(0, len(SOUNDS[sound]), 320)]
    world = said(SOUNDS[sound], dtx=dtx)
    sent = {timestamp // 960: payload for _, _, timestamp, payload, _ in world.sent}
    assert not [number for number, is_loud in enumerate(loud) if is_loud and len(sent.get(number, b"")) <= 2]
    if not dtx:
        assert len(sent) == len(loud)


def test_silence_goes_out_whole_unless_the_client_wants_it_otherwise():
    silence = np.zeros(RATE * 10, np.int16)
    assert len(said(silence).sent) == 500
    few = said(silence, dtx=True)
    assert len(few.sent) < 80
    assert any(len(payload) <= 2 for payload in payloads(few)), "the client's decoder is told that silence begins"


def test_a_pause_under_dtx_is_silent_and_the_words_around_it_are_whole():
    words, pause = speech_like(1.5, RATE), np.zeros(RATE * 2, np.int16)
    world = said(np.concatenate((words, pause, words)), dtx=True)
    decoder, heard, expected = OpusDecoder(RATE), [], 0
    for (
        _,
        _,
        timestamp,
        payload,
        _,
    ) in world.sent:  # as a client without a clever jitter buffer: conceal what is not there
        while expected < timestamp:
            heard.append(decoder.conceal(960))
            expected += 960
        heard.append(decoder.decode(payload))
        expected = timestamp + 960
    samples = np.frombuffer(b"".join(heard), np.int16)
    assert similarity(samples[: len(words)], words) > 0.9
    assert similarity(samples[-len(words) :], words) > 0.9
    middle = samples[len(words) + RATE // 2 : len(words) + len(pause) - 400].astype(int)
    assert np.abs(middle).max() < 100
    assert longest_gap_s(samples[: len(words)], RATE) < 0.4


@pytest.mark.parametrize(
    ("wish", "most"), [(6_000, 9_000), (12_000, 15_000), (20_000, 24_000), (510_000, BITRATE * 1.15)]
)
def test_the_bit_rate_is_no_more_than_the_client_takes(wish, most):
    world = said(speech_like(SECONDS, RATE), max_bitrate=wish)
    assert sum(map(len, payloads(world))) * 8 / SECONDS < most


def test_a_constant_rate_has_packets_of_one_length():
    sizes = {len(payload) for payload in payloads(said(speech_like(SECONDS, RATE), cbr=True))}
    assert len(sizes) == 1
    assert len({len(payload) for payload in payloads(said(speech_like(SECONDS, RATE)))}) > 10


def test_no_wider_band_than_the_client_plays():
    """Configurations 0-3, 12 and 16-19 are narrow band (RFC 6716 section 3.1, table 2)."""
    narrow = said(speech_like(SECONDS, RATE), max_playback_hz=8_000)
    assert {payload[0] >> 3 for payload in payloads(narrow)} <= {0, 1, 2, 3, 16, 17, 18, 19}
    wide = said(speech_like(SECONDS, RATE))
    assert {payload[0] >> 3 for payload in payloads(wide)} - {0, 1, 2, 3, 16, 17, 18, 19}


def test_copies_for_loss_are_made_for_who_can_use_them():
    with_copies, without = (World(loss=0.1, inband_fec=wish) for wish in (True, False))
    for world in (with_copies, without):
        world.voice.say(speech_like(SECONDS, RATE).tobytes())
        world.run(SECONDS + 1)
    assert payloads(with_copies) != payloads(without)
    assert payloads(without) == payloads(said(speech_like(SECONDS, RATE), inband_fec=False))


@pytest.mark.parametrize("packet_ms", [10, 20, 40, 60])
@pytest.mark.parametrize("rate", [RateHz.WIDE, RateHz.REALTIME])
def test_packets_are_as_long_as_the_client_wishes(packet_ms, rate):
    world = World(rate, packet_ms=packet_ms)
    samples = speech_like(2.0, rate)
    world.voice.say(samples.tobytes(), "item")
    world.voice.mark("end")
    world.run(3.0)
    ticks = [parse_duration_ticks(payload) for payload in payloads(world)]
    assert set(ticks[:-1]) == {packet_ms * 48}
    assert sum(ticks) == 2 * 48_000
    assert [sequence for _, sequence, *_ in world.sent] == list(range(len(ticks)))
    stamps = [timestamp for _, _, timestamp, *_ in world.sent]
    assert stamps == [sum(ticks[:number]) for number in range(len(ticks))]
    decoder = OpusDecoder(rate)
    heard = np.frombuffer(b"".join(decoder.decode(payload) for payload in payloads(world)), np.int16)
    assert similarity(heard, samples) > 0.9
    assert world.told == [("playing", "item"), ("mark", "end"), ("silent",)]
    assert world.voice.played_ms("item") == 2_000


def test_frames_of_an_agents_opus_are_joined_too():
    world = World(RateHz.OPUS, packet_ms=60)
    encoder, samples = OpusEncoder(48_000), speech_like(1.0, 48_000)
    for at in range(0, 48_000, 960):
        world.voice.say(encoder.encode(samples[at : at + 960].tobytes()), "item")
    world.run(2.0)
    assert sum(parse_duration_ticks(payload) for payload in payloads(world)) == 48_000
    assert len(world.sent) <= 20


@pytest.mark.parametrize("packet_ms", [10, 60])
def test_barge_in_catches_what_waits_for_its_packet_to_be_full(packet_ms):
    world = World(packet_ms=packet_ms)
    world.voice.say(speech_like(2.0, RATE).tobytes(), "item")
    world.voice.mark("end")
    world.run(0.5)
    cleared = world.voice.clear()
    sent = len(world.sent)
    out_ms = sum(parse_duration_ticks(payload) for payload in payloads(world)) // 48
    assert (cleared.tag, cleared.marks) == ("item", ("end",))
    assert cleared.played_ms == out_ms
    assert world.voice.queued_ms == 0
    world.run(1.0)
    assert len(world.sent) == sent


def test_wishes_may_change_in_a_call():
    world = World(dtx=True)
    world.voice.say(np.zeros(RATE * 4, np.int16).tobytes())
    world.run(2.0)
    few = len(world.sent)
    world.wishes = OpusWishes()
    world.run(3.0)
    assert few < 30
    assert len(world.sent) - few > 95


def test_frames_that_do_not_fit_together_stay_apart():
    low, high = OpusEncoder(8_000, bitrate=8_000), OpusEncoder(48_000, bitrate=64_000)
    frames = [low.encode(bytes(320)), low.encode(bytes(320)), high.encode(bytes(1_920))]
    assert [count for count, _ in join(frames)] == [2, 1]
    assert join([b"", b"\xff"]) == [(1, b""), (1, b"\xff")]
    assert sum(parse_duration_ticks(packet) for _, packet in join(frames)) == 3 * 960
