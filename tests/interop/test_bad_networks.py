"""Speech over a bad network, both ways, through a whole transceiver: what arrives is compared with the recording.

To the agent: our jitter buffer, in-band FEC and concealment. To a browser: our playout clock, the FEC that we put in, and Chromium's own
jitter buffer.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from aiohttp import web

from tests.support.agent_doubles import MediaStreamAgent, RealtimeAgent
from tests.support.chromium import at_8_khz, chromium
from tests.support.lossy import BadNetwork
from tests.support.sdk_story import at_24_khz
from tests.support.similar import in_order, similarity, sounding, windows
from tests.support.transceiver_process import HOST, RunningTransceiver, running_transceiver
from tests.support.voice_world import longest_gap_s
from voicefleet_contract.addresses import Address
from voicefleet_contract.topology import Endpoint
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.media.speech import decode_opus, read_wav
from voicefleet_dataplane.shell.client.packet_caller import Caller, make_identity

pytestmark = pytest.mark.interop

JITTER_S = 0.06
LOSSES = [0.0, 0.02, 0.05]


def lost_by_its_count(transceiver: RunningTransceiver) -> int:
    """Packets of clients that the transceiver missed."""
    exposition = transceiver.process.metrics("")[0].decode()
    found = re.search(r'voice_packets_total{pool="default",what="lost"} (\d+)', exposition)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("loss", LOSSES)
async def test_recorded_speech_reaches_the_agent_over_a_bad_network(secrets_dir, loss, speech):
    samples = np.concatenate([read_wav(path) for path in speech[:3]])
    encoder = OpusEncoder(48_000, bitrate=32_000, dtx=False, loss_percent=10)  # a browser's settings
    packets = [encoder.encode(samples[at : at + 960].tobytes()) for at in range(0, len(samples) - 960, 960)]
    async with (
        MediaStreamAgent() as agent,
        running_transceiver(
            secrets_dir, backend="MediaStream", backend_url=agent.url, backend_network="Loopback"
        ) as transceiver,
        BadNetwork(Address(HOST, transceiver.process.port), loss, JITTER_S).running() as network,
    ):
        ingress = [Endpoint(address=network.address.host, port=network.address.port)]
        async with httpx.AsyncClient(transport=transceiver.transport(ingress)) as http:
            caller = Caller(http, make_identity(), packets)
            await caller.run("http://gateway/v1/realtime/calls", {})
        assert caller.result.error == ""
        transceiver.process.hang_up(caller.result.call_id)
        assert lost_by_its_count(transceiver) == pytest.approx(
            network.lost["up"], abs=2
        )  # the last packets have none after them
        heard = np.frombuffer(bytes(agent.pcm), np.int16)
        said = decode_opus(dict(enumerate(packets)))
        found = [similarity(window, heard) for window in windows(said[::6])]
        assert np.median(found) > 0.95, found
        assert min(found) > 0.8, found
        reference = said[::6]
        assert longest_gap_s(heard[: len(reference)], 8_000) < longest_gap_s(reference, 8_000) + 0.1
        assert not (np.abs(heard.astype(int)) >= 32_124).any()  # the loudest of µ-law: nothing clips
        if loss:
            assert network.lost["up"] > len(packets) * loss / 3


@contextlib.asynccontextmanager
async def front_of(transceiver: RunningTransceiver, network: BadNetwork) -> AsyncIterator[str]:
    """What a gateway does for a page of another origin, without a gateway."""
    ingress = [Endpoint(address=network.address.host, port=network.address.port)]

    async def answer(request: web.Request) -> web.Response:
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
        if request.method == "OPTIONS":
            return web.Response(headers=headers)
        created = await transceiver.create(await request.text(), ingress)
        return web.Response(status=201, text=created.answer, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    try:
        yield f"http://{HOST}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("loss", LOSSES)
async def test_an_agents_speech_is_heard_in_a_browser_over_a_bad_network(secrets_dir, loss, speech):
    said = np.concatenate([read_wav(path) for path in speech[:4]])
    async with (
        RealtimeAgent() as agent,
        running_transceiver(
            secrets_dir, backend="OpenAIRealtime", backend_url=agent.url, backend_network="Loopback"
        ) as transceiver,
        BadNetwork(Address(HOST, transceiver.process.port), loss, JITTER_S).running() as network,
        front_of(transceiver, network) as url,
        chromium(speech[4]) as browser,
    ):
        seconds = len(said) / 48_000 + 3
        call = asyncio.create_task(browser.call(url, seconds=seconds))
        await agent.until(lambda: len(agent.pcm) > 24_000)  # the browser speaks, so it listens
        await agent.respond(b"".join(at_24_khz(path) for path in speech[:4]))
        heard = (await call).samples
        low, heard_low = at_8_khz(said), at_8_khz(heard)
        found = in_order(low, heard_low)
        assert np.median(found) > 0.85, found
        assert np.quantile(found, 1 / 3) > 0.7, found  # what the browser made up or stretched is less than a third
        another = np.concatenate([read_wav(path) for path in speech[5:9]])
        assert np.median(in_order(at_8_khz(another), heard_low)) < 0.6  # the measure tells one recording from another
        assert longest_gap_s(sounding(heard), 48_000) < longest_gap_s(sounding(said), 48_000) + 0.2
        assert np.abs(heard.astype(int)).max() < 32_000  # nothing clips
        if loss:
            assert network.lost["down"] > 0
