"""Agents behind a whole transceiver: a stock WebRTC client's audio and events."""

import asyncio
import json

import numpy as np
import pytest

from tests.support.agent_doubles import OpusAgent, RealtimeAgent
from tests.support.aiortc_client import AiortcClient, use_loopback
from tests.support.transceiver_process import running_transceiver

pytestmark = pytest.mark.interop


@pytest.fixture(autouse=True)
def _loopback(monkeypatch):
    use_loopback(monkeypatch)


def tone(frequency_hz: float, seconds: float, rate: int = 24_000) -> bytes:
    time = np.arange(int(seconds * rate)) / rate
    return (12_000 * np.sin(2 * np.pi * frequency_hz * time)).astype(np.int16).tobytes()


def frequency_hz(pcm: bytes, rate: int) -> float:
    audio = np.frombuffer(pcm, np.int16)[-rate // 2 :].astype(float)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    return float(np.fft.rfftfreq(len(audio), 1 / rate)[spectrum.argmax()])


async def event_of(client: AiortcClient, kind: str) -> dict:
    async with asyncio.timeout(20):
        while True:
            event = json.loads(await client.messages.get())
            if event["type"] == kind:
                return event


async def test_a_stock_client_talks_with_a_realtime_agent(secrets_dir):
    async with (
        RealtimeAgent() as agent,
        running_transceiver(
            secrets_dir, backend="OpenAIRealtime", backend_url=agent.url, backend_network="Loopback"
        ) as transceiver,
    ):
        client = AiortcClient(440.0)

        async def exchange(offer: str) -> str:
            return (await transceiver.create(offer, session={"instructions": "be brief"})).answer

        await client.connect(exchange)
        try:
            assert (await event_of(client, "session.created"))["session"]["instructions"] == "be brief"
            await agent.until(lambda: len(agent.pcm) > 24_000 * 2 * 1.5)
            assert frequency_hz(bytes(agent.pcm), 24_000) == pytest.approx(440, abs=5)
            await agent.respond(tone(880, 20.0), done=False)
            assert (await event_of(client, "output_audio_buffer.started"))["response_id"] == "resp_1"
            await client.hear(1.5)
            assert client.heard_frequency_hz() == pytest.approx(880, abs=5)
            await agent.speech_started()
            await event_of(client, "output_audio_buffer.cleared")
            truncated = await event_of(client, "conversation.item.truncated")
            assert 0 < truncated["audio_end_ms"] < 20_000
            client.channel.send(json.dumps({"type": "response.create"}))
            await agent.until(lambda: agent.of("response.create"))
            await agent.socket.close()
            await asyncio.wait_for(client.closed.wait(), 20)
            assert transceiver.process.core.calls.tally.ended["hang_up"] == 1
        finally:
            await client.close()


async def test_a_failing_agent_is_told_to_the_client_before_its_call_ends(secrets_dir):
    async def behave(socket, agent):
        await socket.close(code=1011, message=b"model overloaded")

    async with (
        OpusAgent(behave) as agent,
        running_transceiver(
            secrets_dir, backend="OpusStream", backend_url=agent.url, backend_network="Loopback",
            backend_reconnect_s=3.0, backend_connect_timeout_s=3.0,
        ) as transceiver,
    ):  # fmt: skip
        client = AiortcClient()

        async def exchange(offer: str) -> str:
            return (await transceiver.create(offer)).answer

        await client.connect(exchange)
        try:
            error = (await event_of(client, "error"))["error"]
            assert error["code"] == "agent_lost"
            assert "model overloaded" in error["message"]
        finally:
            await client.close()
