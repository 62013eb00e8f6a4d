"""A real browser calls a fleet on loopback: it hears its own recording, and its statistics agree."""

import json
from pathlib import Path

import pytest

from tests.support.chromium import BrowserCall, chromium, contains
from voicefleet_dataplane.media.speech import read_wav

pytestmark = pytest.mark.interop

CALLS = "/v1/realtime/calls"
SELF_SIGNED = ["--ignore-certificate-errors"]  # the fleet's CA is made for this run; Chromium has no flag to add one


async def call(fleet, microphone: Path, *, key: str, seconds: float = 6.0) -> BrowserCall:
    async with chromium(microphone, SELF_SIGNED) as browser:
        return await browser.call(fleet.url + CALLS, key, seconds)


async def test_a_browser_hears_its_own_recording(fleet, speech):
    microphone, stranger = speech[0], speech[-1]
    heard = await call(fleet, microphone, key=fleet.api_key)

    assert heard.status == 201, heard.error
    assert "connected" in heard.states
    assert heard.stream_count == 1  # the SDKs play event.streams[0]
    own, other = (contains(read_wav(wav), heard.samples) for wav in (microphone, stranger))
    assert own >= 0.7, (own, other)
    assert other < 0.5, (own, other)

    assert heard.messages == [json.dumps({"type": "hello from a browser"}, separators=(",", ":"))]
    inbound, outbound = heard.stats("inbound-rtp"), heard.stats("outbound-rtp")
    assert outbound["packetsSent"] > 200
    assert inbound["packetsReceived"] > 0.95 * outbound["packetsSent"] - 10
    assert inbound["packetsLost"] == 0
    assert heard.stats("candidate-pair")["currentRoundTripTime"] < 1
    assert heard.stats("remote-inbound-rtp")["roundTripTime"] < 1  # our receiver reports reach the browser
    assert heard.stats("transport")["dtlsState"] == "connected"
    assert heard.hang_up_status == 200


async def test_a_browser_can_read_why_its_call_was_refused(fleet, speech):
    refused = await call(fleet, speech[0], key="sk-wrong-0123456789", seconds=0)
    assert refused.status == 401
    assert json.loads(refused.error)["error"]["code"] == "invalid_api_key"
