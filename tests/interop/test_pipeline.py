"""A voice pipeline with its real engines behind a whole fleet, talked to by stock aiortc: words in, words out."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.interop.test_agents_guide import running
from tests.support import clerk_hook
from tests.support.aiortc_client import use_loopback
from tests.support.pipeline_story import the_sdk_talks_with_a_pipeline
from tests.support.spoken import SENTENCES, UNDERSTOOD, ask, assert_answers_are_spoken, say_with_flite, understood
from tests.support.text_hooks import HookDouble, serving
from voicefleet_dataplane.commands.dev import DevFleet
from voicefleet_dataplane.shell.client.talker import Talker

pytestmark = pytest.mark.interop


@pytest.fixture(autouse=True)
def _loopback(monkeypatch):
    use_loopback(monkeypatch)


@pytest.fixture(scope="module")
def parrots() -> Iterator[DevFleet]:
    with DevFleet(transceivers=1, backend={"backend": "Pipeline", "pipeline_text": "Repeat"}) as fleet:
        yield fleet


def talking_to(fleet: DevFleet, http: httpx.AsyncClient) -> Talker:
    return Talker(http, f"{fleet.url}/v1/realtime/calls", {"Authorization": f"Bearer {fleet.api_key}"})


async def test_the_words_of_several_sentences_come_back_as_speech(parrots):
    async with (
        httpx.AsyncClient(verify=False, trust_env=False, timeout=15) as http,
        talking_to(parrots, http) as talker,
    ):
        turns = [await ask(talker, sentence) for sentence in SENTENCES]
        assert [turn.answered for turn in turns] == [f"You said: {turn.heard}." for turn in turns]
        await assert_answers_are_spoken(turns)
        assert talker.told("error") == []


async def test_speech_interrupts_speech(parrots):
    long = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and so on " * 40}]}
    async with (
        httpx.AsyncClient(verify=False, trust_env=False, timeout=15) as http,
        talking_to(parrots, http) as talker,
    ):
        await talker.event("session.created")
        talker.send("conversation.item.create", item=long)
        talker.send("response.create")
        await talker.event("output_audio_buffer.started")
        await talker.say(say_with_flite(SENTENCES[0]))
        truncated = await talker.event("conversation.item.truncated")
        assert 0 < truncated["audio_end_ms"] < 10_000
        await talker.event("output_audio_buffer.cleared")
        done = await talker.event("response.done", 2)
        assert understood(SENTENCES[0], done["response"]["output"][0]["content"][0]["transcript"]) >= UNDERSTOOD


async def test_noise_and_silence_are_no_questions(parrots):
    noise = np.random.default_rng(1).normal(0, 600, 48_000 * 3).astype(np.int16)
    hum = (2_000 * np.sin(np.arange(48_000 * 2) * 2 * np.pi * 50 / 48_000)).astype(np.int16)
    async with (
        httpx.AsyncClient(verify=False, trust_env=False, timeout=15) as http,
        talking_to(parrots, http) as talker,
    ):
        for sound in (noise, hum, np.zeros(48_000 * 2, np.int16)):
            await talker.say(sound)
        await talker.say(say_with_flite(SENTENCES[2]))
        await talker.event("output_audio_buffer.stopped")
        assert len(talker.told("response.created")) == 1


async def test_ten_thousand_events_and_garbage_leave_the_call_and_its_neighbour_alone(parrots):
    async with (
        httpx.AsyncClient(verify=False, trust_env=False, timeout=15) as http,
        talking_to(parrots, http) as flooder,
        talking_to(parrots, http) as neighbour,
    ):
        for number in range(10_000):
            flooder._channel.send("garbage" if number % 2 else '{"type":"session.update","session":{}}')
        await neighbour.say(say_with_flite(SENTENCES[1]))
        await neighbour.event("output_audio_buffer.stopped")
        await flooder.say(say_with_flite(SENTENCES[3]))
        await flooder.event("output_audio_buffer.stopped")
        assert {event["error"]["code"] for event in flooder.told("error")} <= {"invalid_json", "rate_limit_exceeded"}
        assert flooder.told("error")
        assert neighbour.told("error") == []


async def test_a_hook_answers_with_the_history():
    hook = HookDouble(lambda body: f"I heard {sum(one['role'] == 'user' for one in body['messages'])} questions.")
    async with serving(hook.stream) as url:
        backend = {"backend": "Pipeline", "backend_url": url, "pipeline_text": "Hook"}
        with DevFleet(transceivers=1, backend=backend) as fleet:
            async with (
                httpx.AsyncClient(verify=False, trust_env=False, timeout=15) as http,
                talking_to(fleet, http) as talker,
            ):
                for number in (1, 2):
                    await talker.say(say_with_flite(SENTENCES[number]))
                    await talker.event("output_audio_buffer.stopped", number)
            said = [event["transcript"].strip() for event in talker.told("response.output_audio_transcript.done")]
            assert said == ["I heard 1 questions.", "I heard 2 questions."]
            assert understood(SENTENCES[2], hook.asked[1]["messages"][-1]["content"]) >= UNDERSTOOD


def test_voicefleet_ask_says_what_was_heard_and_answered(parrots, tmp_path):
    question = "How many people live in the city?"
    argv = [sys.executable, "-m", "voicefleet_dataplane", "ask", parrots.url, "--key", parrots.api_key]
    options = ["--cacert", str(parrots.ca_file), "--say", question, "--json", "--record", str(tmp_path / "heard.wav")]
    done = subprocess.run([*argv, *options], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, (done.stdout, done.stderr)
    turn = json.loads(done.stdout)
    assert understood(question, turn["heard"]) >= UNDERSTOOD
    assert turn["answered"] == f"You said: {turn['heard']}."
    assert turn["silence_ms"] > 0
    assert (tmp_path / "heard.wav").stat().st_size > 48_000


def test_the_guides_hook_is_asked():
    guide = (Path(__file__).parents[2] / "docs" / "pipeline.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    with running(source) as url:
        backend = {"backend": "Pipeline", "backend_url": url.replace("ws://", "http://") + "v1/chat/completions"}
        with DevFleet(transceivers=1, backend=backend) as fleet:
            argv = [sys.executable, "-m", "voicefleet_dataplane", "ask", fleet.url, "--key", fleet.api_key, "--json"]
            options = ["--cacert", str(fleet.ca_file), "--say", "The children are playing in the garden."]
            done = subprocess.run([*argv, *options], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert json.loads(done.stdout)["answered"] == "You have asked me 1 questions."


async def test_openais_own_client_in_chromium_talks_with_a_pipeline(tmp_path, speech):
    async with serving(clerk_hook.answer) as url:
        with DevFleet(transceivers=1, backend={"backend": "Pipeline", "backend_url": url}) as fleet:
            await the_sdk_talks_with_a_pipeline(fleet.url, fleet.api_key, speech[0], tmp_path)
