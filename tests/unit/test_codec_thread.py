"""Work off the loop: order, batches, mistakes; and the clock that everybody speaks by."""

import asyncio
import threading

from voicefleet_dataplane.shell.process.codec_thread import CodecThread
from voicefleet_dataplane.shell.process.playout_clock import PlayoutClock


async def test_work_is_done_elsewhere_and_told_here_in_order():
    codec, told, finished = CodecThread(), [], asyncio.Event()
    where = set()

    def work(number):
        where.add(threading.current_thread())
        return bytes((number,))

    def done(number, result):
        told.append((number, result, threading.current_thread()))
        if number == 99:
            finished.set()

    for number in range(100):
        codec.submit(work, number, done)
        if number % 10 == 9:
            await asyncio.sleep(0)
    await asyncio.wait_for(finished.wait(), 10)
    codec.close()
    assert [(number, result) for number, result, _ in told] == [(n, bytes((n,))) for n in range(100)]
    assert {thread for *_, thread in told} == {threading.current_thread()}
    assert threading.current_thread() not in where
    assert len(where) == 1


async def test_work_that_raises_and_a_listener_that_raises_harm_nobody_else():
    codec, told, finished = CodecThread(), [], asyncio.Event()

    def done(on, result):
        told.append(result)
        if on == "last":
            finished.set()
        raise RuntimeError("a listener's mistake")

    codec.submit(lambda _: 1 / 0, "bad", done)
    codec.submit(lambda _: b"good", "last", done)
    await asyncio.wait_for(finished.wait(), 10)
    codec.close()
    assert told == [b"", b"good"]


async def test_closing_a_codec_that_was_never_used_is_nothing():
    CodecThread().close()


class Ticks:
    def __init__(self, clock, wanted):
        self.clock, self.wanted, self.at = clock, wanted, []
        self.finished = asyncio.Event()

    def tick(self, now):
        self.at.append(now)
        if len(self.at) == self.wanted:
            self.clock.leave(self)
            self.finished.set()


async def test_everybody_is_ticked_and_whoever_left_is_not():
    clock = PlayoutClock()
    voices = [Ticks(clock, 5) for _ in range(7)]
    for voice in voices:
        clock.join(voice)
        await asyncio.sleep(0.003)  # other phases
    for voice in voices:
        await asyncio.wait_for(voice.finished.wait(), 10)
    assert all(len(voice.at) == 5 for voice in voices)
    # No tick comes early by more than a phase; a loaded machine may be late by anything.
    assert all(voice.at[-1] - voice.at[0] >= 0.06 for voice in voices)
    assert not clock._phase_of
    clock.close()


async def test_a_voice_that_raises_is_ticked_no_more_and_the_others_go_on():
    clock = PlayoutClock()

    class Broken:
        ticks = 0

        def tick(self, now):
            self.ticks += 1
            raise RuntimeError

    broken, good = Broken(), Ticks(clock, 3)
    clock.join(broken)
    clock.join(good)
    await asyncio.wait_for(good.finished.wait(), 10)
    assert broken.ticks == 1
    clock.close()


async def test_the_timer_rests_while_nobody_has_joined():
    clock = PlayoutClock()
    voice = Ticks(clock, 1)
    clock.join(voice)
    await asyncio.wait_for(voice.finished.wait(), 10)
    assert clock._timer is None
    clock.join(Ticks(clock, 1))
    assert clock._timer is not None
    clock.close()
