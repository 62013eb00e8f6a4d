"""WHEP over real HTTP: players of a call's agent. What they hear is in test_listening."""

import re
from pathlib import Path

import pytest

from tests.support.fake_transceiver import FakeTransceiver
from tests.support.gateway_world import KEY, fleet
from tests.support.offers import with_video_first, without
from tests.support.whip_world import (
    OTHER_KEY,
    RECVONLY,
    SENDONLY,
    SENDRECV,
    bearer,
    code_of,
    fragment,
    publisher,
)
from voicefleet_contract.http_api import DrainOrder
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.media.listening import MAX_LISTENERS


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    (directory / "api-keys" / "other").write_text(OTHER_KEY)
    return directory


async def a_player_url(p) -> str:
    """Publish, and return where the agent is heard: what WHIP's answer links to."""
    link = (await p.publish()).headers["Link"]
    return re.search(r"<([^>]+)>", link)[1]


async def test_a_player_gets_a_sendonly_answer_from_the_calls_owner_and_its_session_url(secrets_dir):
    async with publisher(secrets_dir) as p:
        response = await p.post(RECVONLY, await a_player_url(p))
        assert response.status_code == 201, response.text
        call_id, player_id = p.owner.process.calls
        assert response.headers["Location"] == f"/whep/{player_id}"
        ufrag = re.search(r"a=ice-ufrag:(\S+)", response.text)[1]
        assert response.headers["ETag"] == f'"{ufrag}"'
        assert "a=sendonly\r\n" in response.text
        assert "a=msid:voicefleet agent\r\n" in response.text
        assert (await p.f.http.delete(f"/whip/{call_id}", headers=bearer())).status_code == 200
        assert p.calls() == 0  # a player ends with what it plays


async def test_any_call_can_be_heard_whatever_it_was_placed_through(secrets_dir):
    async with publisher(secrets_dir) as p:
        call = await p.post(SENDRECV, "/v1/realtime/calls")
        assert (await p.post(RECVONLY, "/whep?call=" + call.headers["Location"].split("/")[-1])).status_code == 201


async def test_a_player_that_offers_video_hears_all_the_same(secrets_dir):
    async with publisher(secrets_dir) as p:
        offer = with_video_first(RECVONLY.replace("BUNDLE 0", "BUNDLE 0 1")).replace("BUNDLE v 0 1", "BUNDLE 0 v")
        response = await p.post(offer, await a_player_url(p))
        assert response.status_code == 201
        assert "m=video 0 " in response.text


@pytest.mark.parametrize(
    ("sdp", "status", "param"),
    [
        (SENDONLY, 422, "a=sendonly"),
        (SENDONLY.replace("a=sendonly", "a=inactive"), 422, "a=inactive"),
        (without("a=rtpmap:111", RECVONLY), 422, "a=rtpmap"),
        ("garbage", 400, "offer"),
    ],
)
async def test_an_offer_that_cannot_hear_is_refused(secrets_dir, sdp, status, param):
    async with publisher(secrets_dir) as p:
        refused = await p.post(sdp, await a_player_url(p))
        assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)
        assert p.calls() == 1


async def test_a_call_that_is_not_named_not_there_or_anothers_is_said(secrets_dir):
    async with publisher(secrets_dir) as p:
        url = await a_player_url(p)
        unnamed = await p.post(RECVONLY, "/whep")
        assert (unnamed.status_code, unnamed.json()["error"]["param"]) == (400, "call")
        player = await p.post(RECVONLY, url)
        second_hand = "/whep?call=" + player.headers["Location"].split("/")[-1]
        (call_id, _) = p.owner.process.calls
        for response in (
            await p.post(RECVONLY, "/whep?call=call_garbage"),
            await p.post(RECVONLY, url[:-1] + ("A" if url[-1] != "A" else "B")),
            await p.post(RECVONLY, url, **bearer(OTHER_KEY)),
            await p.post(RECVONLY, second_hand),  # a player has no agent
        ):
            assert (response.status_code, code_of(response)) == (404, "call_id_not_found")
        await p.f.http.delete(f"/whip/{call_id}", headers=bearer())
        assert (await p.post(RECVONLY, url)).status_code == 404


async def test_listeners_are_bounded(secrets_dir):
    async with publisher(secrets_dir) as p:
        url = await a_player_url(p)
        answers = [await p.post(RECVONLY, url) for _ in range(MAX_LISTENERS + 1)]
        assert {answer.status_code for answer in answers[:-1]} == {201}
        assert answers[-1].status_code == 503
        assert int(answers[-1].headers["Retry-After"]) >= 1


async def test_a_draining_owner_lets_its_calls_be_heard(secrets_dir):
    async with publisher(secrets_dir) as p:
        url = await a_player_url(p)
        p.owner.process.drain(DrainOrder())
        assert (await p.post(RECVONLY, url)).status_code == 201
        assert (await p.post()).status_code == 503


async def test_session_urls_are_those_of_whip(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.post(RECVONLY, await a_player_url(p))).headers["Location"]
        assert (await p.patch(location, fragment(), None)).status_code == 428
        assert (await p.patch(location, fragment())).status_code == 204
        assert (await p.patch(location, fragment("n3w1"))).status_code == 200
        assert (await p.f.http.delete(location, headers=bearer())).status_code == 200
        assert p.calls() == 1  # the publisher talks on


async def test_players_find_out_that_it_is_whep(secrets_dir):
    async with publisher(secrets_dir) as p:
        head, options = await p.f.http.head("/whep"), await p.f.http.options("/whep")
        assert (head.status_code, head.headers["Content-Type"]) == (200, "application/sdp")
        assert (options.status_code, options.headers["Accept-Post"]) == (200, "application/sdp")


async def test_an_owner_of_the_version_before_makes_no_call_of_it(secrets_dir):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as old:
        f.publish(old.member())
        headers = bearer() | {"Content-Type": "application/sdp"}
        created = await f.http.post("/whip", content=SENDONLY, headers=headers)
        call_id = created.headers["Location"].split("/")[-1]
        refused = await f.http.post(f"/whep?call={call_id}", content=RECVONLY, headers=headers)
        assert (refused.status_code, code_of(refused)) == (501, "not_supported_by_owner")
        assert len(old.sessions) == 1
