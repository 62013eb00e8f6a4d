"""Clients that send nonsense, each in a whole call, all beside one that speaks as it should: that one is heard as if it were alone."""

import asyncio
import base64
import json
from collections import defaultdict

import httpx
import numpy as np
import pytest
from aiohttp import web

from tests.support.agent_doubles import AgentDouble, RealtimeAgent
from tests.support.aiortc_client import AiortcClient, use_loopback
from tests.support.odd_callers import ODD, OddCaller, Script, in_order, with_everything
from tests.support.similar import similarity, windows
from tests.support.transceiver_process import RunningTransceiver, running_transceiver
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.media.dtmf import SHORTEST_PRESS_MS
from voicefleet_dataplane.media.events import MAX_EVENTS_PER_S
from voicefleet_dataplane.media.mulaw import decode_mulaw
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.media.speech import decode_opus, read_wav
from voicefleet_dataplane.wire.opus import FRAME_TICKS, LONGEST_PACKET_TICKS

pytestmark = pytest.mark.interop

SECONDS = 6.0
MOST_KEYS_PER_S = 1_000 // SHORTEST_PRESS_MS


class ManyStreams(AgentDouble):
    """Media Streams of many calls at once, by the call's id."""

    def __init__(self) -> None:
        super().__init__(self.hear)
        self.heard: dict[str, bytearray] = defaultdict(bytearray)
        self.keys: dict[str, list[str]] = defaultdict(list)

    async def hear(self, socket: web.WebSocketResponse, _: AgentDouble) -> None:
        call = ""
        async for message in socket:
            event = json.loads(message.data)
            match event["event"]:
                case "start":
                    call = event["start"]["callSid"]
                case "media":
                    self.heard[call] += decode_mulaw(base64.b64decode(event["media"]["payload"]))
                case "dtmf":
                    self.keys[call].append(event["dtmf"]["digit"])


async def place(transceiver: RunningTransceiver, script: Script, packets: list[bytes]) -> OddCaller:
    """One call, from its offer to its end."""
    async with httpx.AsyncClient(transport=transceiver.transport(change=with_everything)) as http:
        caller = OddCaller(http, script(packets, SECONDS))
        await caller.run("http://gateway/v1/realtime/calls", {})
        return caller


async def test_whole_calls_of_nonsense_leave_the_one_beside_them_alone(secrets_dir, speech):
    samples = np.concatenate([read_wav(path) for path in speech[:4]])[: round(SECONDS * 48_000)]
    encoder = OpusEncoder(48_000, bitrate=32_000, dtx=False)
    packets = [encoder.encode(samples[at : at + 960].tobytes()) for at in range(0, len(samples) - 959, 960)]
    async with (
        ManyStreams() as agent,
        running_transceiver(
            secrets_dir, backend="MediaStream", backend_url=agent.url, backend_network="Loopback"
        ) as transceiver,
    ):
        neighbour, *odd = await asyncio.gather(
            *(place(transceiver, script, packets) for script in (in_order, *ODD.values()))
        )
        assert [one.result.error for one in (neighbour, *odd)] == [""] * (
            1 + len(ODD)
        )  # each lasted as long as it wanted
        said = decode_opus(dict(enumerate(packets)))[::6]
        heard = {
            name: np.frombuffer(bytes(agent.heard[one.result.call_id]), np.int16)
            for name, one in zip(("neighbour", *ODD), (neighbour, *odd), strict=True)
        }
        found = {name: [similarity(window, one) for window in windows(said)] for name, one in heard.items()}
        for name in ("neighbour", "drifting", "keypad_storm"):
            assert min(found[name]) > 0.9, found
        assert min(found["out_of_order"][1:]) > 0.9, found  # the buffer has learned how late packets come
        assert found["comfort_noise"][0] > 0.9, found
        assert 0 < len(agent.keys[odd[list(ODD).index("keypad_storm")].result.call_id]) <= MOST_KEYS_PER_S * SECONDS + 1
        most = SECONDS * 8_000 * LONGEST_PACKET_TICKS // FRAME_TICKS  # garbage may look like packets of 120 ms
        assert all(
            SECONDS * 8_000 / 2 < len(one) <= most for one in heard.values()
        )  # everybody is heard, or their silence
        ended = transceiver.process.core.calls.tally.ended
        assert sum(ended.values()) == ended[EndReason.CLOSED_BY_CLIENT] == 1 + len(ODD)


async def test_ten_thousand_events_reach_an_agent_as_far_as_their_allowance_goes_and_cost_others_nothing(
    secrets_dir, monkeypatch
):
    use_loopback(monkeypatch)
    async with (
        RealtimeAgent() as agent,
        running_transceiver(
            secrets_dir, backend="OpenAIRealtime", backend_url=agent.url, backend_network="Loopback"
        ) as transceiver,
    ):
        flooder, neighbour = AiortcClient(440.0), AiortcClient(880.0)

        try:
            for one in (flooder, neighbour):
                await one.connect(transceiver.answer)
                await asyncio.wait_for(one.opened.wait(), 20)
            for number in range(10_000):
                update = {"type": "session.update", "event_id": f"u{number}", "session": {"instructions": str(number)}}
                flooder.channel.send("garbage" if number % 2 else json.dumps(update))
            neighbour.channel.send(json.dumps({"type": "session.update", "session": {"instructions": "be brief"}}))
            codes: set[str] = set()
            async with asyncio.timeout(30):
                while "rate_limit_exceeded" not in codes or "invalid_json" not in codes:
                    event = json.loads(await flooder.messages.get())
                    if event["type"] == "error":
                        codes.add(event["error"]["code"])
                event = {}
                while event.get("type") != "session.updated" or event["session"].get("instructions") != "be brief":
                    event = json.loads(await neighbour.messages.get())
                    assert event["type"] != "error"
            await agent.until(lambda: len(agent.of("session.update")) > MAX_EVENTS_PER_S // 2)
            assert len(agent.of("session.update")) < 2_500  # of 5,000: a hundred or so in each second that it took
        finally:
            await flooder.close()
            await neighbour.close()


async def test_two_session_updates_at_once_are_both_answered_in_their_order(secrets_dir, monkeypatch):
    use_loopback(monkeypatch)
    async with (
        RealtimeAgent() as agent,
        running_transceiver(
            secrets_dir, backend="OpenAIRealtime", backend_url=agent.url, backend_network="Loopback"
        ) as transceiver,
    ):
        client = AiortcClient()

        try:
            await client.connect(transceiver.answer)
            await asyncio.wait_for(client.opened.wait(), 20)
            for wish in ("be brief", "be kind"):
                client.channel.send(json.dumps({"type": "session.update", "session": {"instructions": wish}}))
            answered: list[str] = []
            async with asyncio.timeout(20):
                while len(answered) < 2:
                    event = json.loads(await client.messages.get())
                    assert event["type"] != "error", event
                    if event["type"] == "session.updated":
                        answered.append(event["session"]["instructions"])
            assert answered == ["be brief", "be kind"]
            assert agent.session["instructions"] == "be kind"
        finally:
            await client.close()
