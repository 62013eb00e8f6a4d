"""A voice pipeline in the cluster: speech in, words to a hook in a Service, speech out, also to the unmodified OpenAI SDK in Chromium;
and a hook that dies.
"""

import asyncio
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from e2e.fleet import Fleet
from e2e.kube import eventually, ready
from e2e.talk import SPEECH
from e2e.test_agents import offered
from e2e.test_chromium_hears_itself import FLAGS
from tests.support import clerk_hook
from tests.support.pipeline_story import the_sdk_talks_with_a_pipeline
from tests.support.spoken import SENTENCES, ask, assert_answers_are_spoken, say_with_flite
from voicefleet_contract import names
from voicefleet_dataplane.shell.client.talker import Talker

KEY = "sk-hook-0123456789"

BACKEND = {
    "type": "Pipeline",
    "url": "http://hook.voice.svc:8000/v1/chat/completions",
    "network": "Private",
    "secretRef": {"name": "hook", "key": "token"},
    "pipeline": {"text": {"timeout": "5s"}},
}


def manifest() -> str:
    spec = {
        "replicas": 1,
        "ports": {"min": 20_300, "max": 20_319},
        "capacity": {"sessions": 10},
        "backend": BACKEND,
        "drain": {"deadline": "5s", "policy": "HangUp"},
    }
    return json.dumps(
        {
            "apiVersion": "voicefleet.dev/v1alpha1",
            "kind": "Transceiver",
            "metadata": {"name": "clerks"},
            "spec": spec,
        }
    )


def objects(fleet: Fleet) -> list[dict]:
    image = fleet.kube.get("deployment", "voicefleet-gateway")["spec"]["template"]["spec"]["containers"][0]["image"]
    container = {
        "name": "hook",
        "image": image,
        "imagePullPolicy": "Never" if fleet.site.local else "IfNotPresent",
        "command": ["/opt/voicefleet/bin/python", "-c", inspect.getsource(clerk_hook)],
        "env": [{"name": "KEY", "value": KEY}],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
    }
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "stringData": {"token": KEY}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hook"},
            "spec": {"selector": {"app": "hook"}, "ports": [{"port": 8000}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "hook", "labels": {"app": "hook"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        },
    ]


@pytest.fixture(scope="module")
def clerks(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet with a hook and a pool of pipelines that asks it."""
    for one in objects(fleet):
        fleet.kube.apply(json.dumps(one))
    fleet.kube.apply(manifest())
    eventually("the hook is ready", lambda: ready(fleet.kube.get("pod", "hook")), within_s=60)
    eventually("pool clerks is Ready", lambda: fleet.condition("transceiver", "clerks"), within_s=60)
    taken = "unsupported_offer"  # by a member: every gateway knows of it by now, or will in a moment
    eventually("a member of pool clerks takes calls", lambda: offered(fleet, "clerks") == taken, within_s=30)
    yield fleet
    fleet.kube.run("delete", "transceiver", "clerks")
    selector = f"{names.LABEL_POOL}=clerks"
    eventually("the pods of clerks are gone", lambda: not fleet.kube.get("pods", selector=selector), within_s=60)
    for kind in ("pod", "service", "secret"):
        fleet.kube.run("delete", kind, "hook", "--ignore-not-found")


def talking_to(fleet: Fleet, http: httpx.AsyncClient) -> Talker:
    url = f"{fleet.url}/v1/realtime/calls?pool=clerks"
    return Talker(http, url, {"Authorization": f"Bearer {fleet.api_key}"})


async def test_spoken_questions_are_answered_with_speech_by_their_words(clerks: Fleet) -> None:
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=15) as http, talking_to(clerks, http) as talker:
        asked, turns = 0, []
        for sentence in SENTENCES[:3]:
            turn = await ask(talker, sentence)
            questions = len(talker.told("response.created"))
            assert asked < questions
            asked = questions
            assert turn.answered == f"Question number {questions} was: {turn.heard}."  # it knows the history
            turns.append(turn)
        await assert_answers_are_spoken(turns, each=0.5)
        assert talker.told("error") == []


async def test_the_openai_sdk_in_chromium_talks_with_a_pipeline(clerks: Fleet, tmp_path: Path) -> None:
    microphone = SPEECH / "Front_Center.wav"
    await the_sdk_talks_with_a_pipeline(
        clerks.url, clerks.api_key, microphone, tmp_path, query="?pool=clerks", flags=FLAGS, each=0.5
    )


async def test_a_hook_that_dies_is_told_and_the_call_goes_on_when_it_is_back(clerks: Fleet) -> None:
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=15) as http, talking_to(clerks, http) as talker:
        await talker.say(say_with_flite(SENTENCES[2]))
        await talker.event("output_audio_buffer.stopped")
        await asyncio.to_thread(clerks.kube.run, "delete", "pod", "hook", "--force", "--grace-period=0")
        await talker.say(say_with_flite(SENTENCES[0]))
        error = (await talker.event("error"))["error"]
        assert error["code"].startswith("text_handler_"), error
        done = await talker.event("response.done", 2)
        assert done["response"]["status"] == "failed"
        await asyncio.to_thread(clerks.kube.apply, json.dumps(objects(clerks)[2]))
        await asyncio.to_thread(
            eventually, "the hook is back", lambda: ready(clerks.kube.get("pod", "hook")), within_s=60
        )
        async with asyncio.timeout(60):  # its Service learns of it a little later
            while True:
                answers = len(talker.told("response.done"))
                await talker.say(say_with_flite(SENTENCES[2]))
                done = await talker.event("response.done", answers + 1)
                if done["response"]["status"] == "completed":
                    break
        assert not talker.is_closed
