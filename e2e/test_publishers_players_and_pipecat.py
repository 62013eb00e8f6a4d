"""Clients that others ship, in a real browser, through gateway, relay and transceiver of the cluster: WHIP, WHEP, Pipecat."""

import asyncio
import json
from urllib.parse import urlsplit

from e2e.fleet import Fleet
from e2e.kube import eventually
from e2e.talk import SPEECH
from tests.support.web_clients import (
    ANOTHER_PEER,
    CONNECT_PIPECAT,
    PLAY,
    PUBLISH,
    player_path,
    restart_ice,
    web_clients,
)
from voicefleet_dataplane.media.speech import read_wav

MICROPHONE = SPEECH / "Front_Center.wav"
# The nodes' addresses are of this machine's own making: Chromium asks for leave to reach them, and there is nobody to give it.
FLAGS = ("--ignore-certificate-errors", "--disable-features=LocalNetworkAccessChecks")


def listed(fleet: Fleet) -> dict[str, str]:
    """The state of each call that kubectl lists."""
    found = json.loads(fleet.kube.run("get", "voicesessions", "-o", "json"))["items"]
    return {one["metadata"]["name"]: one["status"]["state"] for one in found}


async def test_a_publisher_restarts_ice_and_its_player_hears_on(fleet: Fleet) -> None:
    own = read_wav(MICROPHONE)
    async with web_clients(MICROPHONE, FLAGS) as page:
        where = {"gateway": fleet.url, "key": fleet.api_key}
        await page.run(PUBLISH, **where)
        (post,) = await page.requests("POST")
        await page.run(PLAY, path=player_path(post.link or ""), **where)
        await page.hears("player", own)

        calls = [urlsplit(one.location).path.split("/")[-1] for one in await page.requests("POST")]
        await asyncio.to_thread(
            eventually,
            "publisher and player in kubectl's list",
            lambda: all(listed(fleet).get(call) == "connected" for call in calls),
            20.0,
        )
        for pc, client in (("page.pc", "page.whip"), ("page.player", "page.whep")):
            done = await restart_ice(page, pc, client)
            assert done["now"] != done["old"]
            assert (done["after"]["dtls"], done["state"]) == ("connected", "connected")
        await page.hears("player", own)

        await page.run("await page.whip.stop()")
        await asyncio.to_thread(  # its player ends with it
            eventually, "both calls over", lambda: not set(calls) & set(listed(fleet)), 30.0
        )


async def test_pipecats_client_connects_goes_on_with_another_peer_connection_and_is_hung_up(fleet: Fleet) -> None:
    own = read_wav(MICROPHONE)
    async with web_clients(MICROPHONE, FLAGS) as page:
        connected = await page.run(CONNECT_PIPECAT, gateway=fleet.url, key=fleet.api_key)
        assert connected["state"] == "ready"
        await page.hears("bot", own, 0.6)  # the package leaves the browser's noise suppression and gain control on
        await page.run(ANOTHER_PEER)
        assert await page.run("return page.transport.pc_id") == connected["pcId"]
        await page.hears("bot", own, 0.6)
        await asyncio.to_thread(fleet.kube.run, "delete", "voicesession", connected["pcId"], "--timeout=30s")
        await page.run("await page.until(() => page.client.state === 'disconnected', 'the end')")
        assert len([one for one in await page.requests("POST") if one.url.endswith("/api/offer")]) == 2
