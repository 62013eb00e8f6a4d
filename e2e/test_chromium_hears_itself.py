"""A real browser calls the fleet on the cluster and hears its own recording, by itself and on the gateway's page."""

import asyncio
import json

from e2e.fleet import Fleet
from e2e.kube import eventually
from e2e.talk import SPEECH
from tests.support.chromium import chromium, contains
from tests.support.page import IS_CONNECTED, MARKS, STEPS, picture, press, sign_in, until
from voicefleet_dataplane.media.speech import read_wav

# The nodes' addresses are of this machine's own making: Chromium asks for leave to reach them, and there is nobody to give it.
FLAGS = ("--ignore-certificate-errors", "--disable-features=LocalNetworkAccessChecks")


async def test_chromium_hears_its_own_recording_through_the_fleet(fleet: Fleet) -> None:
    microphone, stranger = SPEECH / "Front_Center.wav", SPEECH / "Side_Right.wav"
    async with chromium(microphone, FLAGS) as browser:
        calling = asyncio.create_task(browser.call(fleet.url + "/v1/realtime/calls", fleet.api_key, 8.0))
        await asyncio.to_thread(eventually, "the call in kubectl's list", lambda: connected(fleet), 20.0)
        heard = await calling
    assert heard.status == 201, heard.error
    assert "connected" in heard.states
    own, other = (contains(read_wav(wav), heard.samples) for wav in (microphone, stranger))
    assert own >= 0.7, (own, other)
    assert other < 0.5, (own, other)
    assert heard.stats("inbound-rtp")["packetsLost"] == 0
    assert heard.hang_up_status == 200


def connected(fleet: Fleet) -> bool:
    found = json.loads(fleet.kube.run("get", "voicesessions", "-o", "json"))["items"]
    return any(session["status"]["state"] == "connected" for session in found)


async def test_a_person_talks_on_the_gateways_page_and_sees_the_fleet(fleet: Fleet) -> None:
    async with chromium(SPEECH / "Front_Center.wav", FLAGS) as page:
        await page.open(f"{fleet.url}/")
        await sign_in(page, fleet.api_key)
        await press(page, "connect")
        await until(page, IS_CONNECTED)
        await until(page, f"({MARKS}).length === {len(STEPS)}")
        print("set-up as the page shows it:", await page.evaluate(MARKS))
        await press(page, "watch-fleet")
        said = "document.getElementById('fleet-problem').textContent"
        expected = f"{len(fleet.transceivers())} transceivers, {len(fleet.relays())} relays"
        await until(page, f"{said}.includes('{expected}') && !{said}.startsWith('0 calls')")
        await picture(page, "cluster")
        await press(page, "hang-up")
