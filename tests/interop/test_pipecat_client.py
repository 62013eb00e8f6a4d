"""Pipecat's client and its SmallWebRTC transport, unmodified, in a real browser.

Its media manager is the WavMediaManager of the same package: the other one loads its code from a CDN.
"""

from contextlib import asynccontextmanager

import pytest

from tests.support.chromium import contains
from tests.support.conversing_agent import Call, ConversingAgent, Speak
from tests.support.sdk_story import at_24_khz
from tests.support.web_clients import ANOTHER_PEER, CONNECT_PIPECAT, web_clients
from voicefleet_dataplane.commands.dev import DevFleet
from voicefleet_dataplane.media.speech import read_wav

pytestmark = pytest.mark.interop

SAME, OTHER = 0.6, 0.5  # the package leaves the browser's noise suppression and gain control on
SELF_SIGNED = ["--ignore-certificate-errors"]


@asynccontextmanager
async def pipecat(fleet, microphone):
    async with web_clients(microphone, SELF_SIGNED) as page:
        connected = await page.run(CONNECT_PIPECAT, gateway=fleet.url, key=fleet.api_key)
        assert connected["state"] == "ready"
        yield page, connected


async def seen(page, name: str) -> list:
    return [value for what, value in await page.run("return page.seen") if what == name]


async def test_pipecats_client_connects_talks_renegotiates_and_starts_over(fleet, speech):
    own, other = read_wav(speech[3]), read_wav(speech[-1])
    async with pipecat(fleet, speech[3]) as (page, connected):
        assert connected["ready"]["version"].startswith("2.")
        assert connected["pcId"].startswith("call_")
        heard = await page.hears("bot", own, SAME)  # pings go by meanwhile
        assert contains(other, heard) < OTHER
        assert {one.status for one in await page.requests("PATCH")} == {200}
        # The camera's transceiver is where the client looks for it, and nothing comes or goes.
        counted = "return page.transport.pc.getTransceivers().map(one => [one.mid !== null, one.currentDirection])"
        assert await page.run(counted) == [[True, "sendrecv"], [True, "inactive"]]

        # A later offer of the same peer connection, as after their server's `renegotiate`.
        await page.run(
            """
            const answered = page.requests.length;
            page.transport.handleMessage(JSON.stringify({type: 'signalling', message: {type: 'renegotiate'}}));
            await page.until(() => page.requests.length > answered && page.requests.at(-1).status, 'an answer');
            await page.until(() => page.transport.pc.signalingState === 'stable', 'the answer in place');
            """
        )
        assert await page.run("return page.transport.pc_id") == connected["pcId"]
        await page.hears("bot", own, SAME)

        # What it does when ICE has failed.
        await page.run(ANOTHER_PEER)
        assert await page.run("return page.transport.pc_id") == connected["pcId"]  # the agent goes on
        await page.hears("bot", own, SAME)
        assert [one.status for one in await page.requests("POST")] == [200, 200, 200]
        assert await seen(page, "onError") == []


async def test_what_the_agent_cannot_do_is_an_error_and_a_hang_up_is_the_bot_that_left(fleet, speech):
    async with pipecat(fleet, speech[4]) as (page, connected):
        refused = "return await page.client.sendClientRequest('anything', {}).then(() => 'answered', error => error.data.error)"
        assert "does not take 'client-message'" in await page.run(refused)
        status = await page.run(
            """
            const headers = {Authorization: 'Bearer ' + key};
            const response = await fetch(gateway + '/v1/realtime/calls/' + id + '/hangup', {method: 'POST', headers});
            await page.until(() => page.client.state === 'disconnected', 'the end');
            return response.status;
            """,
            gateway=fleet.url,
            key=fleet.api_key,
            id=connected["pcId"],
        )
        assert status == 200
        assert len(await seen(page, "onBotDisconnected")) == 1
        posts = [one for one in await page.requests("POST") if one.url.endswith("/api/offer")]
        assert len(posts) == 1  # it does not dial again


async def test_a_wrong_key_is_told_at_once(fleet, speech):
    async with web_clients(speech[0], SELF_SIGNED) as page:
        connect = "try {" + CONNECT_PIPECAT + "} catch (error) { return error.message; }"
        said = await page.run(connect, gateway=fleet.url, key="sk-wrong-0123456789")
        assert "401" in said
        assert len(await page.requests("POST")) == 1


async def test_a_conversation_with_an_agent_in_the_words_of_its_callbacks(speech):
    """Who speaks, transcripts, a function call and its result, typed text: RTVI at the client, the Realtime API at the agent."""
    script = [
        Call("look_up", {"what": "the time"}),
        Speak(at_24_khz(speech[5]), "it is five o'clock"),
        Speak(at_24_khz(speech[6]), "you typed something"),
    ]
    async with ConversingAgent(script, "what time is it") as agent:
        backend = {"backend": "OpenAIRealtime", "backend_url": agent.url}
        with DevFleet(transceivers=1, backend=backend) as fleet:
            async with pipecat(fleet, speech[3]) as (page, _):
                until = "await page.until(() => page.seen.filter(([name]) => name === what).length >= count, what);"
                await page.run(until, what="onUserStartedSpeaking", count=1)
                await page.run("page.client.enableMic(false)")  # the user has said enough
                await page.run(until, what="onBotOutput", count=1)
                await page.run(until, what="onBotStoppedSpeaking", count=1)
                await page.run("await page.client.sendText('and in letters?')")
                await page.run(until, what="onBotOutput", count=2)

                assert (await seen(page, "onUserTranscript"))[-1]["text"] == "what time is it"
                assert len(await seen(page, "onUserStoppedSpeaking")) >= 1
                assert len(await seen(page, "onBotStartedSpeaking")) >= 1
                outputs = [output["text"] for output in await seen(page, "onBotOutput")]
                assert outputs == ["it is five o'clock", "you typed something"]
                (call,) = await page.run("return page.functionCalls")
                assert call == {"functionName": "look_up", "arguments": {"what": "the time"}}
                assert [output["output"] for output in agent.outputs] == ['{"found": true}']
                typed = [part for item in agent.items.values() for part in item.get("content", ())]
                assert {"type": "input_text", "text": "and in letters?"} in typed
                assert await seen(page, "onError") == []
