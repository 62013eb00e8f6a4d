"""A call's voice: paced, numbered, stopped within a frame; in virtual time with real libopus."""

import numpy as np
import pytest

from tests.support.voice_world import FRAME_S, Speaker, World, longest_gap_s, similarity, speech_like
from voicefleet_dataplane.media.backend import RateHz
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.media.voice import MAX_DECODING
from voicefleet_dataplane.wire.rtp import RtpPacket

PCM_RATES = [RateHz.NARROW, RateHz.WIDE, RateHz.REALTIME, RateHz.FULL]


def pcm(seconds, rate=RateHz.WIDE):
    return speech_like(seconds, rate).tobytes()


# ---- what the agent says


def test_the_first_frame_goes_out_at_once_and_the_others_every_20_ms():
    world = World()
    start = world.time
    world.voice.say(pcm(1.0), "item")
    world.run(2.0)
    assert [round((at - start) / FRAME_S, 6) for at, *_ in world.sent] == list(range(50))
    assert [sequence for _, sequence, *_ in world.sent] == list(range(50))
    assert [timestamp for _, _, timestamp, *_ in world.sent] == [number * 960 for number in range(50)]
    assert world.told == [("playing", "item"), ("silent",)]


def test_the_first_frame_does_not_wait_for_the_phase_that_the_client_set():
    world = World()
    Speaker(world, speech_like(2.0, 48_000))
    world.run(1.0)
    said_at = world.time
    world.voice.say(pcm(0.1))
    assert [at for at, *_ in world.sent] == [said_at]


@pytest.mark.parametrize("rate", PCM_RATES)
def test_what_was_said_is_what_a_client_hears(rate):
    world = World(rate)
    said = speech_like(3.0, rate)
    world.voice.say(said.tobytes())
    world.run(4.0)
    assert similarity(said, world.sent_samples()) > 0.93


def test_time_stamps_go_on_with_the_clock_while_the_agent_is_silent():
    world = World()
    world.voice.say(pcm(0.1))
    world.run(1.0)
    world.voice.say(pcm(0.1))
    world.run(1.0)
    first, second = world.sent[4], world.sent[5]
    assert second[2] == pytest.approx(48_000, abs=960)
    assert second[1] == first[1] + 1
    assert [marker for *_, marker in world.sent].count(True) == 1
    assert second[4]


def test_a_late_tick_is_no_gap():
    world = World()
    world.voice.say(pcm(0.2))
    world.run(0.05)
    world.time += 0.05
    world.run(1.0)
    assert [timestamp for _, _, timestamp, *_ in world.sent] == [number * 960 for number in range(10)]


def test_frames_that_come_late_time_after_time_leave_no_hole_in_a_word():
    world = World()
    said = pcm(1.0)
    for number in range(50):
        late = 0.025 * (number // 10)  # five times, an underrun that does not catch up
        frame = said[number * 640 : (number + 1) * 640]
        world.at(world.time + number * FRAME_S + late, lambda frame=frame: world.voice.say(frame, "item"))
    world.run(2.0)
    assert [timestamp for _, _, timestamp, *_ in world.sent] == [number * 960 for number in range(50)]


def test_an_agent_that_says_silence_costs_few_packets_where_the_client_wants_it_so():
    world = World(dtx=True)
    world.voice.say(bytes(16_000 * 2 * 10))
    world.run(11.0)
    assert len(world.sent) < 100
    assert world.voice.played_ms("") == 10_000


def test_barge_in_stops_within_a_frame_and_says_what_was_really_played():
    world = World()
    world.voice.say(pcm(5.0), "item")
    world.voice.mark("end")
    world.run(0.99)
    sent = len(world.sent)
    cleared = world.voice.clear()
    world.run(3.0)
    assert len(world.sent) == sent == 50
    assert (cleared.tag, cleared.played_ms, cleared.marks) == ("item", 1_000, ("end",))
    assert ("mark", "end") not in world.told


def test_barge_in_catches_the_frame_that_the_codec_has():
    world = World()
    world.codec.held = True
    world.voice.say(pcm(1.0), "item")
    cleared = world.voice.clear()
    world.codec.run()
    assert (cleared.tag, cleared.played_ms) == ("item", 0)
    assert world.sent == []
    assert world.voice.played_ms("item") == 0
    assert world.told == []


def test_after_barge_in_the_next_answer_is_heard():
    world = World()
    world.voice.say(pcm(1.0), "first")
    world.run(0.3)
    world.voice.clear()
    world.voice.say(pcm(0.5), "second")
    world.run(1.0)
    assert world.voice.played_ms("second") == 500
    assert [told for told in world.told if told[0] != "mark"] == [
        ("playing", "first"),
        ("playing", "second"),
        ("silent",),
    ]


def test_barge_in_out_of_a_listener_stops_what_it_was_told_about():
    world = World()

    def on_playing(tag):
        world.told.append(world.voice.clear())

    world.on_playing = on_playing
    world.voice.say(pcm(1.0), "item")
    world.run(1.0)
    assert len(world.sent) == 1
    assert world.told[0].played_ms == 20


def test_an_agent_that_brings_its_frames_one_by_one_is_not_silent_between_them():
    world = World()
    for number in range(20):
        world.at(world.time + number * 0.021, lambda: world.voice.say(pcm(0.02), "item"))
    world.run(1.0)
    assert world.told == [("playing", "item"), ("silent",)]


def test_marks_are_told_in_their_place():
    world = World()
    world.voice.mark("start")
    world.voice.say(pcm(0.1), "a")
    world.voice.mark("middle")
    world.voice.say(pcm(0.1), "b")
    world.voice.mark("end")
    world.run(1.0)
    assert [told for told in world.told if told != ("silent",)] == [
        ("mark", "start"),
        ("playing", "a"),
        ("mark", "middle"),
        ("playing", "b"),
        ("mark", "end"),
    ]


def test_an_agent_that_floods_is_told_to_stop_and_what_was_taken_is_kept():
    world = World()
    second = pcm(1.0)
    took = 0
    while world.voice.say(second):
        took += 1
    assert world.voice.is_full
    assert took * len(second) <= 8 << 20
    world.run(took / 2 + 2)
    assert not world.voice.is_full
    assert world.voice.say(second)


def test_copies_in_the_next_frame_are_sent_when_the_client_reports_loss():
    clean, lossy = World(loss=0.0), World(loss=0.08)
    for world in (clean, lossy):
        world.voice.say(pcm(2.0))
        world.run(3.0)
    sizes = [sum(len(payload) for _, _, _, payload, _ in world.sent) for world in (clean, lossy)]
    assert [payload for *_, payload, _ in clean.sent] != [payload for *_, payload, _ in lossy.sent]
    assert sizes[1] < sizes[0] * 1.5


def test_opus_of_an_agent_goes_out_as_it_is_on_our_clock():
    world = World(RateHz.OPUS)
    encoder = OpusEncoder(48_000)
    samples = speech_like(1.0, 48_000)
    frames = [encoder.encode(samples[at : at + 960].tobytes()) for at in range(0, 48_000, 960)]
    start = world.time
    for frame in frames:
        world.voice.say(frame, "item")
    world.run(0.5)
    assert world.voice.clear().played_ms == pytest.approx(500, abs=20)
    assert [payload for _, _, _, payload, _ in world.sent] == frames[: len(world.sent)]
    assert [round((at - start) / FRAME_S, 6) for at, *_ in world.sent] == list(range(len(world.sent)))
    assert world.codec.waiting == []


def test_a_closed_voice_says_and_hears_nothing():
    world = World()
    world.codec.held = True
    Speaker(world, speech_like(0.2, 48_000))
    world.voice.say(pcm(1.0))
    world.run(0.1)
    world.voice.close()
    world.codec.run()
    assert world.sent == world.heard == world.told == []
    assert not world.voice.say(pcm(1.0))
    assert world._ticks[world.voice] % 2 == 0  # it has left the clock


# ---- what the client says


@pytest.mark.parametrize("rate", PCM_RATES)
@pytest.mark.parametrize("jitter_s", [0.0, 0.06])
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.05])
def test_speech_survives_loss_and_jitter(rate, jitter_s, loss):
    world = World(rate)
    said = speech_like(6.0, 48_000)
    speaker = Speaker(world, said, loss=loss, jitter_s=jitter_s)
    world.run(6.1)
    heard = world.heard_samples()
    reference = said[:: 48_000 // rate]
    assert similarity(reference, heard) > 0.92
    assert len(heard) / rate == pytest.approx(6.0, abs=0.1)
    assert longest_gap_s(heard[: len(reference)], rate) < longest_gap_s(reference, rate) + 0.02
    assert not (np.abs(heard.astype(int)) == 32_767).any()
    assert world.voice.jitter.lost == speaker.lost


def test_without_copies_in_the_packets_loss_is_concealed_not_silent():
    world = World()
    said = speech_like(10.0, 48_000)
    speaker = Speaker(world, said, loss=0.05, fec=False)
    world.run(10.1)
    heard = world.heard_samples()
    assert speaker.lost > 15
    assert similarity(said[::3], heard) > 0.75
    assert longest_gap_s(heard[: len(said) // 3], 16_000) < longest_gap_s(said[::3], 16_000) + 0.03


def test_one_lost_packet_stalls_nothing():
    """The longest pause between what the listener gets is the hole and one wait, and nothing is late after it."""
    world = World()
    said = speech_like(2.0, 48_000)
    speaker = Speaker(World(), said)
    for number, packet in enumerate(speaker.packets):
        if number != 40:
            world.at(world.time + number * FRAME_S, lambda packet=packet: world.voice.receive(packet))
    start = world.time
    world.run(2.0)
    pauses = np.diff([at for at, _ in world.heard])
    assert pauses.max() <= 0.0601
    heard_s = sum(len(one) for _, one in world.heard) / 2 / 16_000
    assert heard_s == pytest.approx(2.0, abs=0.05)
    assert world.heard[-1][0] - start <= 2.0


@pytest.mark.parametrize("drift", [-0.01, 0.01])
def test_a_client_whose_clock_is_wrong_by_a_percent_is_heard_whole(drift):
    world = World()
    said = speech_like(8.0, 48_000)
    Speaker(world, said, drift=drift)
    world.run(8.0 * (1 + abs(drift)))
    heard = world.heard_samples()
    assert similarity(said[::3], heard[: len(said) // 3]) > 0.95
    assert world.voice.jitter.lost == 0


def test_a_client_that_sends_nothing_while_silent_is_heard_in_time():
    world = World()
    said = np.concatenate([speech_like(1.0, 48_000), np.zeros(96_000, np.int16), speech_like(1.0, 48_000, seed=2)])
    Speaker(world, said, dtx=True)
    world.run(4.0)
    heard = world.heard_samples()
    assert len(heard) / 16_000 == pytest.approx(4.0, abs=0.15)
    assert similarity(said[::3], heard) > 0.9


def test_the_listener_gets_whole_frames_whatever_the_client_packs():
    """Packets of 10 ms and of 60 ms."""
    world = World()
    ten_ms = b"\x40" + b"\x0b" * 12  # SILK, wide-band, 10 ms
    sixty_ms = b"\x58" + b"\x0b" * 40
    for number, payload in enumerate([ten_ms] * 5 + [sixty_ms] * 3):
        stamp = number * 480 if number < 5 else 2_400 + (number - 5) * 2_880
        world.voice.receive(RtpPacket(False, 111, number, stamp, 1, payload))
    assert all(len(one) % 640 == 0 and one for _, one in world.heard)
    assert sum(len(one) for _, one in world.heard) == (230 // 20) * 640


def test_a_payload_that_is_no_opus_is_silence():
    world = World()
    world.voice.receive(RtpPacket(False, 111, 0, 0, 1, b"\x48" + bytes(3)))
    world.voice.receive(RtpPacket(False, 111, 1, 960, 1, b"\xff\x3f" + b"\xff" * 200))
    world.voice.receive(RtpPacket(False, 111, 2, 1_920, 1, b"\x48" + bytes(3)))
    assert sum(len(one) for _, one in world.heard) % 640 == 0


def test_an_hour_of_silence_keeps_no_timer_and_no_memory():
    world = World()
    Speaker(world, speech_like(0.5, 48_000))
    world.run(3_600.0)
    assert world.pending == 0
    assert len(world.heard_samples()) / 16_000 < 7
    world.voice.receive(RtpPacket(False, 111, 1_000, 3_600 * 48_000 & 0xFFFFFFFF, 77, b"\x48" + bytes(3)))
    assert world.pending == 1


def test_a_codec_that_is_behind_loses_old_speech_and_not_memory():
    world = World()
    world.codec.held = True
    Speaker(world, speech_like(5.0, 48_000))
    world.run(5.0)
    assert len(world.codec.waiting) == MAX_DECODING
    assert world.voice.overrun > 100
    world.codec.held = False
    world.codec.run()
    assert len(world.heard_samples()) == MAX_DECODING * 320
