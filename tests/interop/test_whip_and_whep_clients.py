"""WHIP publishers and WHEP players that were not written here, in a real browser: speech goes in by one and comes out by the other."""

from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from tests.support.chromium import contains
from tests.support.web_clients import PLAY, PUBLISH, player_path, restart_ice, web_clients
from voicefleet_dataplane.media.speech import read_wav

pytestmark = pytest.mark.interop

SELF_SIGNED = ["--ignore-certificate-errors"]


@asynccontextmanager
async def page_of(fleet, microphone):
    async with web_clients(microphone, SELF_SIGNED) as clients:
        yield clients


async def test_what_a_publisher_says_is_heard_by_a_player_and_both_restart_ice_in_mid_word(fleet, speech):
    own, other = read_wav(speech[0]), read_wav(speech[-1])
    async with page_of(fleet, speech[0]) as page:
        where = {"gateway": fleet.url, "key": fleet.api_key}
        await page.run(PUBLISH, **where)
        (post,) = await page.requests("POST")
        assert post.status == 201
        await page.run(PLAY, path=player_path(post.link), **where)
        heard = await page.hears("player", own)
        assert contains(other, heard) < 0.5

        trickled = await page.requests("PATCH")
        assert trickled
        assert {(one.status, one.if_match == post.etag) for one in trickled if "/whip/" in one.url} == {(204, True)}

        for pc, client in (("page.pc", "page.whip"), ("page.player", "page.whep")):
            done = await restart_ice(page, pc, client)
            assert done["now"] != done["old"]
            assert done["after"]["ufrag"] != done["before"]["ufrag"]
            assert (done["after"]["dtls"], done["state"]) == ("connected", "connected")
        restarts = [one for one in await page.requests("PATCH") if one.if_match == "*"]
        assert [one.status for one in restarts[:1] + restarts[-1:]] == [200, 200]
        heard = await page.hears("player", own)

        await page.run("await page.whep.stop(); await page.whip.stop()")
        # It closes its peer connection first: DTLS has said goodbye when DELETE comes, or has not.
        assert {one.status for one in await page.requests("DELETE")} <= {200, 404}
        gone = (
            "return (await fetch(gateway + path, {method: 'DELETE', headers: {Authorization: 'Bearer ' + key}})).status"
        )
        assert await page.run(gone, path=urlsplit(post.location).path, **where) == 404


async def test_a_publisher_and_a_player_learn_at_their_next_check_that_the_call_is_over(fleet, speech):
    """Neither has a data channel that could close, and browsers look at no BYE. Left alone they still hope when `until` has given up."""
    async with page_of(fleet, speech[0]) as page:
        where = {"gateway": fleet.url, "key": fleet.api_key}
        await page.run(PUBLISH, **where)
        (post,) = await page.requests("POST")
        await page.run(PLAY, path=player_path(post.link), **where)
        hung_up = await page.run(
            "return (await fetch(gateway + path, {method: 'POST', headers: {Authorization: 'Bearer ' + key}})).status",
            path=f"/v1/realtime/calls/{urlsplit(post.location).path.split('/')[-1]}/hangup",
            **where,
        )
        assert hung_up == 200
        for pc in ("page.pc", "page.player"):
            await page.run(f"await page.until(() => {pc}.connectionState === 'failed', 'failed')")


async def test_an_old_publisher_and_a_player_that_asks_for_video(fleet, speech):
    """Eyevinn's: the publisher offers sendrecv, and sends ETag where If-Match belongs; the player offers video first."""
    own = read_wav(speech[1])
    async with page_of(fleet, speech[1]) as page:
        where = {"gateway": fleet.url, "key": fleet.api_key}
        await page.run(
            """
            page.whip = new clients.EyevinnWHIPClient({endpoint: gateway + '/whip', opts: {authkey: key, iceServers: []}});
            await page.whip.ingest(await page.microphone());
            await page.connected(page.whip.peer);
            """,
            **where,
        )
        (post,) = await page.requests("POST")
        assert (post.status, await page.run("return page.whip.peer.getTransceivers()[0].currentDirection")) == (
            201,
            "sendonly",
        )
        await page.run(
            """
            const video = document.createElement('video');
            video.muted = true; video.autoplay = true; document.body.append(video);
            const player = page.player = new clients.WebRTCPlayer({video, type: 'whep', iceServers: []});
            const failures = [];
            for (const name of ['initial-connection-failed', 'connect-error', 'peer-connection-failed'])
              player.on(name, () => failures.push(name));
            await player.load(new URL(gateway + path), 'Bearer ' + key);
            await page.until(() => video.srcObject && video.srcObject.getAudioTracks().length, 'a track: ' + failures);
            page.record('player', video.srcObject);
            """,
            path=player_path(post.link.split(", ")[-1]),
            **where,
        )
        await page.hears("player", own)
        await page.run("await page.player.unload(); await page.whip.destroy()")
        deleted = await page.requests("DELETE")
        assert len(deleted) == 2
        assert {one.status for one in deleted} <= {200, 404}
        assert {urlsplit(one.url).path.split("/")[1] for one in deleted} == {"whip", "whep"}


async def test_the_agent_comes_back_in_the_publishers_session_when_the_url_asks_for_it(fleet, speech):
    own = read_wav(speech[2])
    async with page_of(fleet, speech[2]) as page:
        await page.run(
            """
            page.pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
            page.pc.ontrack = event => page.record('agent', event.streams[0]);
            const microphone = await page.microphone();
            page.pc.addTrack(microphone.getTracks()[0], microphone);
            page.whip = new clients.WHIPClient();
            await page.whip.publish(page.pc, gateway + '/whip?direction=sendrecv', key);
            await page.connected(page.pc);
            """,
            gateway=fleet.url,
            key=fleet.api_key,
        )
        await page.hears("agent", own)
        await page.run("await page.whip.stop()")
