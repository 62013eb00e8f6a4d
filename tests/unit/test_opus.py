"""The codec, and the one byte that says how long a packet lasts."""

import random

import pytest

from tests.support.voice_world import similarity, speech_like
from voicefleet_dataplane.media.opus import OpusDecoder, OpusEncoder, OpusError, version
from voicefleet_dataplane.wire.opus import parse_duration_ticks


def test_the_library_is_a_recent_one():
    assert version().startswith("libopus 1.")


@pytest.mark.parametrize("rate", [8_000, 12_000, 16_000, 24_000, 48_000])
def test_speech_comes_back_at_every_rate(rate):
    import numpy as np

    samples = speech_like(2.0, rate)
    encoder, decoder = OpusEncoder(rate, dtx=False), OpusDecoder(rate)
    step = rate // 50
    packets = [encoder.encode(samples[at : at + step].tobytes()) for at in range(0, len(samples), step)]
    heard = np.frombuffer(b"".join(map(decoder.decode, packets)), np.int16)
    assert len(heard) == len(samples)
    assert similarity(samples, heard) > 0.93
    assert sum(map(len, packets)) * 8 / 2.0 < 36_000


def test_a_frame_has_one_length():
    with pytest.raises(OpusError, match="640 bytes, or half of them, not 600"):
        OpusEncoder(16_000).encode(bytes(600))


def test_a_rate_that_opus_does_not_know_is_refused():
    with pytest.raises(OpusError):
        OpusEncoder(44_100)
    with pytest.raises(OpusError):
        OpusDecoder(44_100)


def test_any_bytes_give_samples_or_an_error_and_the_next_packet_is_heard():
    chance, decoder = random.Random(2), OpusDecoder(16_000)
    good = OpusEncoder(16_000).encode(speech_like(0.02, 16_000).tobytes())
    for _ in range(2_000):
        rubbish = chance.randbytes(chance.randrange(1, 60))
        try:
            decoder.decode(rubbish)
            decoder.recover(rubbish, 960)
        except OpusError:
            pass
        assert len(decoder.decode(good)) == 640


def test_durations_are_those_of_the_codec():
    for config in range(32):
        for payload in (bytes((config << 3,)), bytes((config << 3 | 1, 0, 0)), bytes((config << 3 | 3, 2, 0, 0))):
            ticks = parse_duration_ticks(payload)
            if ticks is None:
                continue
            try:
                heard = OpusDecoder(48_000).decode(payload + bytes(20) * 0)
            except OpusError:
                continue
            assert len(heard) // 2 == ticks


@pytest.mark.parametrize("payload", [b"", b"\x03", b"\x03\x00", b"\x1b\x3f", b"\xfb\x3f"])
def test_what_cannot_be_a_packet_has_no_duration(payload):
    ticks = parse_duration_ticks(payload)
    assert ticks is None or ticks <= 5_760
