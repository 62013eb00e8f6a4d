"""Pipecat's `/api/offer` over real HTTP: a gateway, and the owner behind it as a real transceiver."""

from pathlib import Path

import httpx
import pytest

from tests.support.fake_transceiver import FakeTransceiver
from tests.support.gateway_world import KEY, fleet
from tests.support.offers import CHROMIUM, VIDEO_SECTION, without
from tests.support.transceiver_process import HOST
from tests.support.whip_world import OTHER_KEY, Publisher, bearer, code_of, publisher
from voicefleet_contract.topology import Member
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets

# As the transport makes it: audio, camera, screen, and the chat.
OFFER = CHROMIUM.replace("BUNDLE 0 1", "BUNDLE 0 v s 1").replace(
    "m=application", VIDEO_SECTION + VIDEO_SECTION.replace("a=mid:v", "a=mid:s") + "m=application"
)
CANDIDATE = {"candidate": "candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host", "sdp_mid": "0", "sdp_mline_index": 0}


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    (directory / "api-keys" / "other").write_text(OTHER_KEY)
    return directory


async def post(p: Publisher, key: str = KEY, **fields) -> httpx.Response:
    body = {"sdp": OFFER, "type": "offer", "pc_id": None, "restart_pc": False} | fields
    return await p.f.http.post("/api/offer", json=body, headers=bearer(key))


async def patch(p: Publisher, body: object, key: str = KEY) -> httpx.Response:
    return await p.f.http.patch("/api/offer", json=body, headers=bearer(key))


async def test_a_first_offer_is_a_call_and_its_id_is_the_pc_id(secrets_dir):
    async with publisher(secrets_dir) as p:
        response = await post(p)
        assert response.status_code == 200, response.text
        answer = response.json()
        (call_id,) = p.owner.process.calls
        assert (answer["type"], answer["pc_id"]) == ("answer", call_id)
        kinds = [section.split(" ")[:2] for section in answer["sdp"].split("\r\nm=")[1:]]
        assert kinds == [["audio", "3478"], ["video", "3478"], ["video", "3478"], ["application", "3478"]]
        assert answer["sdp"].count("a=inactive\r\n") == 2
        assert p.owner.process.calls[call_id].config.chat == "rtvi"


@pytest.mark.parametrize("name", ["request_data", "requestData"])
async def test_the_session_may_come_with_the_request(secrets_dir, name):
    async with publisher(secrets_dir) as p:
        await post(p, **{name: {"session": {"instructions": "be brief"}, "other": [1]}})
        (call,) = p.owner.process.calls.values()
        assert call.config.session == {"instructions": "be brief"}


async def test_a_later_offer_is_of_the_same_call(secrets_dir):
    async with publisher(secrets_dir) as p:
        first = (await post(p)).json()
        second = await post(p, pc_id=first["pc_id"])
        assert second.status_code == 200
        assert second.json()["pc_id"] == first["pc_id"]
        assert p.calls() == 1
        other_certificate = OFFER.replace("AB:AB", "AC:AB")
        refused = await post(p, pc_id=first["pc_id"], sdp=other_certificate)
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "a=fingerprint")
        assert p.calls() == 1


async def test_another_peer_connection_goes_on_with_the_same_call_and_its_agent(secrets_dir):
    async with publisher(secrets_dir) as p:
        first = (await post(p)).json()
        call = p.owner.process.calls[first["pc_id"]]
        session, backend = call.session, call._backend
        second = await post(p, pc_id=first["pc_id"], restart_pc=True, sdp=OFFER.replace("AB:AB", "AC:AB"))
        assert (second.status_code, second.json()["pc_id"]) == (200, first["pc_id"])
        assert second.json()["sdp"] != first["sdp"]
        assert p.owner.process.calls == {first["pc_id"]: call}
        assert call._backend is backend
        assert session.end_reason == "replaced"
        assert call.session is p.owner.process.core.calls.sessions[first["pc_id"]] is not session
        bad = await post(p, pc_id=first["pc_id"], restart_pc=True, sdp=without("a=fingerprint", OFFER))
        assert (bad.status_code, bad.json()["error"]["param"]) == (422, "a=fingerprint")
        assert call.session.end_reason is None
        await p.f.http.post(f"/v1/realtime/calls/{first['pc_id']}/hangup", headers=bearer())
        again = await post(p, pc_id=first["pc_id"], restart_pc=True)  # of one that is over: a call of its own
        assert again.json()["pc_id"] != first["pc_id"]
        assert p.calls() == 1


async def test_a_storm_of_peer_connections_is_held_back(secrets_dir):
    async with publisher(secrets_dir) as p:
        pc_id = (await post(p)).json()["pc_id"]
        answers = [await post(p, pc_id=pc_id, restart_pc=True) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
        assert list(p.owner.process.calls) == [pc_id]


async def test_a_restart_whose_owner_is_away_is_a_call_elsewhere(secrets_dir):
    async with publisher(secrets_dir) as p, FakeTransceiver(1, secrets_dir) as other:
        pc_id = (await post(p)).json()["pc_id"]
        p.f.publish(Member(name="agents-5-2", slot=5, generation=2, address=HOST, port=1, weight=0), other.member())
        assert (await post(p, pc_id=pc_id)).status_code == 503
        moved = await post(p, pc_id=pc_id, restart_pc=True)
        assert moved.status_code == 200
        assert other.sessions == {moved.json()["pc_id"]}


@pytest.mark.parametrize("pc_id", ["", "SmallWebRTCConnection#0-abc", "call_garbage", "call_" + "A" * 32])
async def test_a_pc_id_of_nobody_makes_a_call_as_pipecats_own_server_has_it(secrets_dir, pc_id):
    async with publisher(secrets_dir) as p:
        response = await post(p, pc_id=pc_id)
        assert response.status_code == 200
        assert list(p.owner.process.calls) == [response.json()["pc_id"]]


async def test_another_tenants_pc_id_opens_nothing(secrets_dir):
    async with publisher(secrets_dir) as p:
        first = (await post(p)).json()["pc_id"]
        version = p.owner.process.calls[first].session.description.version
        session = p.owner.process.calls[first].session
        for restart in (False, True):
            assert (await post(p, OTHER_KEY, pc_id=first, restart_pc=restart)).json()["pc_id"] != first
        assert p.owner.process.calls[first].session is session
        assert p.owner.process.calls[first].session.description.version == version
        refused = await patch(p, {"pc_id": first, "candidates": []}, OTHER_KEY)
        assert (refused.status_code, code_of(refused)) == (404, "call_id_not_found")


async def test_candidates_are_taken_for_a_call_that_is_there(secrets_dir):
    async with publisher(secrets_dir) as p:
        pc_id = (await post(p)).json()["pc_id"]
        last = CANDIDATE | {"candidate": ""}  # Firefox: there are no more
        taken = await patch(p, {"pc_id": pc_id, "candidates": [CANDIDATE, last]})
        assert (taken.status_code, taken.json()) == (200, {"status": "success"})
        await p.f.http.post(f"/v1/realtime/calls/{pc_id}/hangup", headers=bearer())
        assert (await patch(p, {"pc_id": pc_id, "candidates": [CANDIDATE]})).status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"candidates": []}, "pc_id"),
        ({"pc_id": 7, "candidates": []}, "pc_id"),
        ({"pc_id": "call_x"}, "candidates"),
        ({"pc_id": "call_x", "candidates": {}}, "candidates"),
        ({"pc_id": "call_x", "candidates": [7]}, "candidates"),
        ({"pc_id": "call_x", "candidates": [{}]}, "candidates"),
        ({"pc_id": "call_x", "candidates": [{"candidate": "x"}]}, "candidates"),
        ({"pc_id": "call_x", "candidates": [CANDIDATE] * 300}, None),
    ],
)
async def test_candidates_that_are_none_are_refused(secrets_dir, body, param):
    async with publisher(secrets_dir) as p:
        refused = await patch(p, body)
        assert refused.status_code == (400 if param else 413)
        assert refused.json()["error"]["param"] == (param or "body")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"type": "answer"}, 400, "sdp"),
        ({"sdp": None}, 400, "sdp"),
        ({"sdp": "garbage"}, 400, "sdp"),
        ({"sdp": "v=0\r\n" + "a" * 70_000}, 413, "sdp"),
        ({"sdp": "v=0\r\n" + "a" * 300_000}, 413, "body"),
        ({"pc_id": 7}, 400, "pc_id"),
        ({"request_data": {"session": 7}}, 400, "request_data.session"),
        ({"request_data": {"session": {"type": "transcription"}}}, 400, "request_data.session.type"),
        ({"sdp": without("a=fingerprint", OFFER)}, 422, "a=fingerprint"),
    ],
)
async def test_an_offer_that_is_none_is_refused_by_its_field(secrets_dir, fields, status, param):
    async with publisher(secrets_dir) as p:
        refused = await post(p, **fields)
        assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)
        assert p.calls() == 0


async def test_garbage_and_strangers_are_refused(secrets_dir):
    async with publisher(secrets_dir) as p:
        json_type = {"Content-Type": "application/json"}
        for body in (b"", b"{", b"[]", b"\xff"):
            response = await p.f.http.post("/api/offer", content=body, headers=bearer() | json_type)
            assert response.status_code == 400
        assert (await post(p, "sk-wrong-0123456789")).status_code == 401
        assert (await p.f.http.options("/api/offer")).status_code == 204


async def test_an_owner_of_the_version_before_cannot_take_a_later_offer_and_says_so(secrets_dir):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as old:
        f.publish(old.member())
        body = {"sdp": OFFER, "type": "offer"}
        pc_id = (await f.http.post("/api/offer", json=body, headers=bearer())).json()["pc_id"]
        refused = await f.http.post("/api/offer", json=body | {"pc_id": pc_id}, headers=bearer())
        assert (refused.status_code, code_of(refused)) == (501, "not_supported_by_owner")
