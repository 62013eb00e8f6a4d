"""Agents behind a whole transceiver: a stock WebRTC client's audio and events, and recorded speech over a bad network."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.agent_doubles import MediaStreamAgent, OpusAgent, RealtimeAgent
from tests.support.aiortc_client import AiortcClient, use_loopback
from tests.support.lossy import BadNetwork
from tests.support.transceiver_process import HOST, running_transceiver
from tests.support.voice_world import longest_gap_s
from voicefleet_contract.addresses import Address
from voicefleet_contract.topology import Endpoint
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.media.speech import decode_opus, read_wav
from voicefleet_dataplane.shell.caller import Caller, make_identity

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, "sk-test-0123456789abcdef")
    return directory


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


def windows(samples: np.ndarray, rate: int = 8_000) -> list[np.ndarray]:
    """Second by second, where there is speech: a machine that stands still for a moment inserts silence, and moves what follows."""
    parts = [samples[at : at + rate] for at in range(0, len(samples) - rate, rate)]
    return [part for part in parts if np.abs(part.astype(int)).mean() > 200]


def similarity(part: np.ndarray, whole: np.ndarray) -> float:
    """The best normalised correlation of a part with anything as long in the whole."""
    first, second = part.astype(float), whole.astype(float)
    energy = np.sqrt(np.maximum(np.convolve(second**2, np.ones(len(first)), "valid"), 1e6))
    return float((np.correlate(second, first, "valid") / (energy * np.linalg.norm(first))).max())


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
            assert transceiver.process.core.ended["hang_up"] == 1
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


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.05])
async def test_recorded_speech_reaches_the_agent_over_a_bad_network(secrets_dir, loss, speech):
    samples = np.concatenate([read_wav(path) for path in speech[:3]])
    encoder = OpusEncoder(48_000, bitrate=32_000, dtx=False, loss_percent=10)  # a browser's settings
    packets = [encoder.encode(samples[at : at + 960].tobytes()) for at in range(0, len(samples) - 960, 960)]
    async with (
        MediaStreamAgent() as agent,
        running_transceiver(
            secrets_dir, backend="MediaStream", backend_url=agent.url, backend_network="Loopback"
        ) as transceiver,
        BadNetwork(Address(HOST, transceiver.process.port), loss, 0.06).running() as network,
    ):

        async def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/hangup"):
                return httpx.Response(200)
            ingress = [Endpoint(address=network.address.host, port=network.address.port)]
            created = await transceiver.create((await request.aread()).decode(), ingress)
            return httpx.Response(201, text=created.answer, headers={"Location": f"/x/{created.call_id}"})

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            caller = Caller(http, make_identity(), packets)
            await caller.run("http://gateway/v1/realtime/calls", {})
        assert caller.result.error == ""
        transceiver.process.hang_up(caller.result.call_id)
        exposition = transceiver.process.metrics("")[0].decode()
        lost = re.search(r'voice_packets_total{pool="default",what="lost"} (\d+)', exposition)
        assert lost is not None
        assert int(lost[1]) == pytest.approx(network.lost, abs=2)  # the last packets have none after them
        heard = np.frombuffer(bytes(agent.pcm), np.int16)
        said = decode_opus(dict(enumerate(packets)))
        found = [similarity(window, heard) for window in windows(said[::6])]
        assert np.median(found) > 0.95, found
        assert min(found) > 0.8, found
        reference = said[::6]
        assert longest_gap_s(heard[: len(reference)], 8_000) < longest_gap_s(reference, 8_000) + 0.1
        assert not (np.abs(heard.astype(int)) >= 32_124).any()  # the loudest of µ-law: nothing clips
        if loss:
            assert network.lost > len(packets) * loss / 3
