"""A pipeline's shell: engine processes that work, hang, crash and are killed, around a real voice."""

import asyncio
import os
import signal

import numpy as np
import pytest

from tests.support.pipeline_calls import ENGINES, FAKES, failed, pipeline, said_and_answered, spoken
from tests.support.text_hooks import HookDouble, serving
from voicefleet_contract.settings import SettingsError, TransceiverSettings
from voicefleet_dataplane.engines.espeak import EspeakNG
from voicefleet_dataplane.engines.hibari_voice import Hibari
from voicefleet_dataplane.engines.silero import Silero
from voicefleet_dataplane.engines.webrtc import WebRTC
from voicefleet_dataplane.media.backend import Ending
from voicefleet_dataplane.shell.pipeline import engine_pool, engine_process
from voicefleet_dataplane.shell.transceiver.backends import Backends

# ---- engines


async def test_speech_goes_through_the_stages_and_comes_back_as_speech():
    async with pipeline() as call:
        await said_and_answered(call)
        words = call.told("conversation.item.input_audio_transcription.completed")[0]["transcript"]
        assert 1_500 <= int(words.removesuffix(" ms")) <= 2_200  # a second, the padding before, the silence after
        said = call.told("response.output_audio_transcript.done")[0]["transcript"]
        assert said == f"You said: {words}."
        assert call.backends.counts() == {"utterances": 1, "sentences": 1, "failed": 0, "refused": 0, "restarts": 0}
        heard = np.abs(call.heard_samples().astype(float)) > 1_000
        assert heard.sum() / 24_000 == pytest.approx(len(said) * 0.01, abs=0.12)


async def test_the_second_turn_knows_the_first():
    async with serving((hook := HookDouble()).http) as url, pipeline(backend_url=url) as call:
        await said_and_answered(call)
        await said_and_answered(call, 2)
        assert [message["role"] for message in hook.asked[1]["messages"]] == ["system", "user", "assistant", "user"]


async def test_a_caller_who_interrupts_is_told_to_the_frame_what_went_out():
    async with serving(HookDouble(lambda _: "word " * 200).http) as url, pipeline(backend_url=url) as call:
        await call.speak(spoken())
        await call.until(lambda: len(call.sent) > 20)
        only_listen = {"type": "server_vad", "create_response": False}
        call.say_event(type="session.update", session={"audio": {"input": {"turn_detection": only_listen}}})
        await call.speak(spoken())
        await call.until(lambda: call.told("conversation.item.truncated"))
        sent = len(call.sent)
        assert call.told("conversation.item.truncated")[0]["audio_end_ms"] == sent * 20
        await asyncio.sleep(0.1)
        assert len(call.sent) == sent


async def test_words_that_cannot_be_had_are_told_and_the_call_goes_on():
    async with pipeline(pipeline_speech_to_text=ENGINES + "FailingWords") as call:
        await call.speak(spoken())
        await call.until(lambda: call.told("error"))
        error = call.told("error")[0]["error"]
        assert error["code"] == "speech_to_text_engine_failed"
        assert "deaf" in error["message"]
        assert call.ended is None


async def test_a_voice_that_fails_fails_the_response():
    async with pipeline(pipeline_text_to_speech=ENGINES + "FailingTone") as call:
        response = await failed(call)
        assert response["status_details"]["error"]["code"] == "text_to_speech_engine_failed"
        assert call.errors() == ["text_to_speech_engine_failed"]


async def test_an_engine_process_that_crashes_fails_its_jobs_and_is_started_again():
    async with pipeline(pipeline_speech_to_text=ENGINES + "CrashingWords") as call:
        await call.speak(spoken())
        await call.until(lambda: call.errors() == ["speech_to_text_engine_failed"])
        pool = call.backends._pipelines.pool
        async with asyncio.timeout(10):
            while not pool._workers[0].is_ready:
                await asyncio.sleep(0.02)
        assert pool.restarts == 1
        await call.speak(spoken())
        await call.until(lambda: len(call.errors()) == 2)


async def test_an_engine_process_that_is_killed_is_started_again_and_the_next_turn_is_answered():
    async with pipeline() as call:
        await said_and_answered(call)
        pool = call.backends._pipelines.pool
        os.kill(pool._workers[0].engine.process.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while not pool.restarts:
                await asyncio.sleep(0.02)
        await said_and_answered(call, 2)
        assert call.errors() == []


async def test_an_engine_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(engine_process, "HANGS_AFTER_S", 0.5)
    async with pipeline(pipeline_speech_to_text=ENGINES + "HangingWords") as call:
        await call.speak(spoken())
        await call.until(call.errors)
        assert call.errors() == ["speech_to_text_engine_failed"]
        assert "said nothing" in call.told("error")[0]["error"]["message"]


async def test_an_engine_that_hangs_runs_into_the_deadline_of_its_stage():
    settings = {"pipeline_speech_to_text": ENGINES + "HangingWords", "pipeline_speech_to_text_timeout_s": 0.3}
    async with pipeline(**settings) as call:
        await call.speak(spoken())
        await call.until(call.errors)
        assert call.errors() == ["speech_to_text_timeout"]


async def test_an_engine_that_cannot_be_made_is_told_to_whoever_waits():
    async with pipeline(pipeline_speech_to_text=ENGINES + "Missing") as call:
        await call.speak(spoken())
        await call.until(call.errors)
        assert "the model is not there" in call.told("error")[0]["error"]["message"]


async def test_a_transceiver_whose_engines_cannot_run_does_not_start_and_says_why():
    backends = Backends(settings_of(pipeline_speech_to_text=ENGINES + "Missing"))
    with pytest.raises(ValueError, match="no engine process can run: FileNotFoundError: the model is not there"):
        await backends.start()
    await backends.close()


async def test_a_transceiver_takes_calls_when_an_engine_process_is_ready():
    backends = Backends(settings_of())
    await backends.start()
    assert backends._pipelines.pool._workers[0].is_ready
    await backends.close()


async def test_more_utterances_than_an_engine_takes_wait_their_turn_and_lose_nothing():
    class Listener:
        def __init__(self) -> None:
            self.words: list[str] = []
            self.failures: list[str] = []
            self.done = asyncio.Event()

        def on_words(self, job, text) -> None:
            self.words.append(text)
            self.done.set()

        def on_job_failed(self, job, code, message) -> None:
            self.failures.append(code)
            self.done.set()

    pool = engine_pool.EnginePool(ENGINES + "SlowWords", ENGINES + "Tone", 1, 2)
    pool.start()
    listener = Listener()
    try:
        jobs = [pool.listen(str(number), listener) for number in range(2 + engine_pool.MAX_WAITING + 3)]
        for job in jobs[:6]:
            pool.feed(job, bytes(32 * 100))
            pool.feed(job, bytes(32 * 100))
        pool.forget(jobs[4])
        for job in jobs[:6]:
            pool.conclude(job)
        async with asyncio.timeout(20):
            while len(listener.words) < 5:
                listener.done.clear()
                await listener.done.wait()
        assert listener.words == ["200 ms"] * 5
        assert set(listener.failures) == {"engine_busy"}  # those that had no room
        assert pool.refused == len(listener.failures) > 0
        for job in jobs[6:]:
            pool.forget(job)
        assert not pool._waiting
        assert not pool._workers[0].jobs
    finally:
        await pool.close()


async def test_a_call_that_ends_takes_its_jobs_away():
    async with pipeline(pipeline_speech_to_text=ENGINES + "SlowWords") as call:
        await call.speak(spoken(1.0, after_s=0))
        await call.until(lambda: call.told("input_audio_buffer.speech_started"))
        pool = call.backends._pipelines.pool
        call.hang_up()
        assert not pool._waiting
        assert not pool._workers[0].jobs


def settings_of(**fields) -> TransceiverSettings:
    return TransceiverSettings.model_validate(
        {"cluster_id": 1, "slot": 1, "generation": 1, "inner_address": "127.0.0.1", "port": 0} | FAKES | fields
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"pipeline_speech_to_text": "Whisper"},
            "no engine 'Whisper' for speech_to_text is installed here; there are: PocketSphinx",
        ),
        ({"pipeline_text_to_speech": "Parrot"}, "there are: EspeakNG, Hibari"),
        ({"pipeline_voice_activity": "Nose"}, "there are: Silero, WebRTC"),
        ({"pipeline_text": "Oracle"}, "there are: Hook, Repeat"),
        ({"pipeline_text": "Hook", "backend_url": "ftp://x/"}, "write ws:// or wss://, or http:// or https://"),
    ],
)
def test_an_engine_that_is_not_there_stops_the_process_naming_those_that_are(fields, said):
    with pytest.raises(ValueError, match=said.replace("(", ".")):
        Backends(settings_of(**fields))


def test_a_hook_needs_its_url():
    environment = {f"VOICEFLEET_{key.upper()}": str(value) for key, value in FAKES.items()}
    environment |= {"VOICEFLEET_CLUSTER_ID": "1", "VOICEFLEET_SLOT": "1", "VOICEFLEET_GENERATION": "1"}
    environment |= {"VOICEFLEET_INNER_ADDRESS": "127.0.0.1", "VOICEFLEET_PORT": "0", "VOICEFLEET_PIPELINE_TEXT": "Hook"}
    with pytest.raises(SettingsError, match="backend_url"):
        TransceiverSettings.from_environment(environment)


async def test_ears_that_fail_end_the_call_with_a_reason():
    async with pipeline(pipeline_voice_activity=ENGINES + "FailingEars") as call:
        await call.speak(spoken())
        await call.until(lambda: call.ended)
        assert call.ended[0] is Ending.BACKEND_FAILED
        assert "these ears are gone" in call.ended[1]
        assert call.errors() == ["backend_failed"]


# ---- engines that come with us


def test_espeak_speaks_at_our_rate_where_its_program_is():
    spoken = b"".join(EspeakNG().speak("How many people live in the city?", "", 1.0))
    assert 1.0 < len(spoken) / 48_000 < 4.0
    assert np.abs(np.frombuffer(spoken, np.int16).astype(int)).max() > 3_000
    with pytest.raises(ValueError, match="espeak-ng: "):
        list(EspeakNG().speak("hello", "qqq", 1.0))


def test_hibari_has_the_voice_of_its_package_and_downloads_no_other():
    voice = Hibari()
    assert len(b"".join(voice.speak("Good morning.", "", 1.0))) > 24_000
    with pytest.raises(ValueError, match="no voice 'emma'"):
        list(voice.speak("Good morning.", "emma", 1.0))


@pytest.mark.parametrize("engine", [Silero, WebRTC])
def test_ears_tell_speech_from_silence(engine):
    pcm = np.frombuffer(b"".join(Hibari().speak("The children are playing in the garden.", "", 1.0)), np.int16)
    speech = np.interp(np.arange(0, len(pcm) - 1, 1.5), np.arange(len(pcm)), pcm).astype("<i2").tobytes()
    ear = engine().open()
    loud = [ear.judge(speech[at : at + 640]) for at in range(0, len(speech) // 640 * 640, 640)]
    quiet = [ear.judge(bytes(640)) for _ in range(100)]
    assert np.mean([one for some in loud for one in some]) > 0.6
    assert max(one for some in quiet[20:] for one in some) < 0.1
    windows = [one for some in (*loud, *quiet) for one in some]
    assert len(windows) * ear.window_ms == pytest.approx(20 * (len(loud) + len(quiet)), abs=ear.window_ms)
