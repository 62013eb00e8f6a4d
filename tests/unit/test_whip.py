"""WHIP over real HTTP: a gateway, and the owner behind it as a real transceiver."""

import re
from pathlib import Path

import pytest

from tests.support.fake_transceiver import FakeTransceiver, refuse
from tests.support.gateway_world import KEY, fleet
from tests.support.offers import with_video_first, without
from tests.support.transceiver_process import HOST
from tests.support.whip_world import OTHER_KEY, RECVONLY, SENDONLY, SENDRECV, bearer, code_of, fragment, publisher
from voicefleet_contract.hint import ice_pwd, peek_hint
from voicefleet_contract.http_api import DrainOrder
from voicefleet_contract.topology import Member
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.wire.sdp.fragment import MAX_FRAGMENT_BYTES


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    (directory / "api-keys" / "other").write_text(OTHER_KEY)
    return directory


# ---- POST


async def test_a_publisher_gets_a_recvonly_answer_and_its_session_url(secrets_dir):
    async with publisher(secrets_dir) as p:
        response = await p.publish()
        assert response.headers["Content-Type"] == "application/sdp"
        (call_id,) = p.owner.process.calls
        assert response.headers["Location"] == f"/whip/{call_id}"
        ufrag = re.search(r"a=ice-ufrag:(\S+)", response.text)[1]
        assert response.headers["ETag"] == f'"{ufrag}"'
        assert "a=recvonly" in response.text
        assert "a=ssrc" not in response.text
        assert response.headers["Link"] == f'</whep?call={call_id}>; rel="urn:voicefleet:whep"'


async def test_an_offer_of_both_ways_is_answered_as_the_rfc_says_or_as_the_url_asks(secrets_dir):
    async with publisher(secrets_dir) as p:
        for path, offer, direction in (
            ("/whip", SENDRECV, "recvonly"),
            ("/whip?direction=sendrecv", SENDRECV, "sendrecv"),
            ("/whip?direction=sendrecv", SENDONLY, "recvonly"),
        ):
            assert f"a={direction}\r\n" in (await p.publish(offer, path)).text
        refused = await p.post(SENDRECV, "/whip?direction=up")
        assert (refused.status_code, code_of(refused)) == (400, "unknown_direction")


async def test_rtcp_mux_only_is_answered(secrets_dir):
    async with publisher(secrets_dir) as p:
        offer = SENDONLY.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-mux-only\r\n")
        assert "a=rtcp-mux-only\r\n" in (await p.publish(offer)).text
        assert "a=rtcp-mux-only\r\n" not in (await p.publish()).text


async def test_servers_for_clients_are_links(secrets_dir):
    async with publisher(secrets_dir, ice_servers="stun:stun.example.net, stuns:s.example.net:5349") as p:
        links = (await p.publish()).headers.get_list("Link")
        assert links[:2] == [
            '<stun:stun.example.net>; rel="ice-server"',
            '<stuns:s.example.net:5349>; rel="ice-server"',
        ]


@pytest.mark.parametrize(
    ("sdp", "param"),
    [
        (SENDONLY.replace("a=sendonly", "a=recvonly"), "a=recvonly"),
        (SENDONLY.replace("a=sendonly", "a=inactive"), "a=inactive"),
        (with_video_first(SENDONLY.replace("BUNDLE 0", "BUNDLE 0 1")), "m=video"),
        (without("a=fingerprint", SENDONLY), "a=fingerprint"),
    ],
)
async def test_an_offer_that_could_only_be_taken_in_part_is_refused_whole(secrets_dir, sdp, param):
    async with publisher(secrets_dir) as p:
        refused = await p.post(sdp)
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == param
        assert p.calls() == 0


async def test_wrong_types_garbage_and_strangers_are_refused(secrets_dir):
    async with publisher(secrets_dir) as p:
        wrong = {"Content-Type": "application/json"}
        assert (await p.post("{}", **wrong)).status_code == 415
        assert (await p.post("garbage")).status_code == 400
        assert (await p.post("v=0\r\n" + "a" * 200_000)).status_code == 413
        stranger = await p.post(Authorization="Bearer sk-wrong-0123456789")
        assert (stranger.status_code, stranger.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert p.calls() == 0


async def test_a_fleet_without_room_says_503_and_when_to_come_back(secrets_dir):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir, refuse(503, "full", retry_after_s=7)) as full:
        f.publish(full.member())
        headers = bearer() | {"Content-Type": "application/sdp"}
        refused = await f.http.post("/whip", content=SENDONLY, headers=headers)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "7")


# ---- OPTIONS, GET and what is not there


async def test_options_say_what_may_be_sent_and_need_no_key(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.publish()).headers["Location"]
        endpoint, session = await p.f.http.options("/whip"), await p.f.http.options(location)
        assert (endpoint.status_code, endpoint.headers["Accept-Post"]) == (200, "application/sdp")
        assert session.status_code == 200
        assert session.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
        for response in (endpoint, session):
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert {"POST", "PATCH", "DELETE"} <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
            assert "If-Match" in response.headers["Access-Control-Allow-Headers"]
            assert {"Location", "ETag", "Link"} <= set(response.headers["Access-Control-Expose-Headers"].split(", "))


async def test_endpoint_and_sessions_have_no_representation(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.publish()).headers["Location"]
        for url in ("/whip", location):
            response = await p.f.http.get(url, headers=bearer())
            assert (response.status_code, response.content) == (204, b"")
        assert (await p.f.http.get("/whip/call_garbage", headers=bearer())).status_code == 404
        for method, url in (("PUT", "/whip"), ("DELETE", "/whip"), ("POST", location), ("PUT", location)):
            assert (await p.f.http.request(method, url, headers=bearer())).status_code == 405


# ---- PATCH: trickle


async def test_candidates_get_204_and_no_entity_tag(secrets_dir):
    async with publisher(secrets_dir) as p:
        created = await p.publish()
        tag = created.headers["ETag"]
        for if_match in (tag, f'"another", {tag}', "*", '"*"'):
            response = await p.patch(created.headers["Location"], fragment(), if_match)
            assert (response.status_code, response.content) == (204, b"")
            assert "ETag" not in response.headers


async def test_a_missing_entity_tag_is_428_and_another_one_412(secrets_dir):
    async with publisher(secrets_dir) as p:
        created = await p.publish()
        location, tag = created.headers["Location"], created.headers["ETag"]
        missing = await p.patch(location, fragment(), None)
        assert (missing.status_code, code_of(missing)) == (428, "precondition_required")
        for if_match in ('"xyzzy"', f"W/{tag}", tag.strip('"'), '""', ",,,"):
            assert (await p.patch(location, fragment(), if_match)).status_code == 412, if_match


async def test_what_is_no_fragment_changes_nothing(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.publish()).headers["Location"]
        ufrags = set(p.owner.process.core.calls.ufrags.sessions)
        for body, headers, status in (
            ("garbage", {}, 400),
            (b"\xff\xfe", {}, 400),
            ("", {}, 400),
            (fragment("n3"), {}, 400),
            (b"a" * (MAX_FRAGMENT_BYTES + 1), {}, 413),
            (fragment("n3w1"), {"Content-Type": "application/sdp"}, 415),
            (fragment("n3w1"), {"Authorization": "Bearer sk-wrong-0123456789"}, 401),
        ):
            response = await p.patch(location, body, **headers)
            assert response.status_code == status, response.text
        assert set(p.owner.process.core.calls.ufrags.sessions) == ufrags


# ---- PATCH: restart


async def test_a_restart_gets_credentials_that_lead_to_the_same_owner(secrets_dir):
    async with publisher(secrets_dir) as p:
        created = await p.publish()
        location, tag = created.headers["Location"], created.headers["ETag"]
        response = await p.patch(location, fragment("n3w1"))
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/trickle-ice-sdpfrag"
        ufrag, pwd = (re.search(rf"a=ice-{name}:(\S+)", response.text)[1] for name in ("ufrag", "pwd"))
        assert response.headers["ETag"] == f'"{ufrag}"' != tag
        assert pwd == ice_pwd(ufrag, 1, p.owner.process.core.calls.hint_keys)
        assert (peek_hint(ufrag).slot, peek_hint(ufrag).generation) == (5, 2)
        assert "a=mid:0\r\n" in response.text
        assert "203.0.113.3 3478 typ host" in response.text  # the ingress again
        assert p.calls() == 1

        assert (await p.patch(location, fragment("n3w1"), tag)).status_code == 412  # of the ICE session before
        assert (await p.patch(location, fragment("n3w1"), f'"{ufrag}"')).status_code == 204
        again = await p.patch(
            location, fragment("n3w2"), f'"{ufrag}"'
        )  # other credentials are a restart, RFC 9725 says
        assert again.status_code == 200
        assert again.headers["ETag"] not in (tag, f'"{ufrag}"')


async def test_a_restart_whose_answer_was_lost_gets_it_again(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.publish()).headers["Location"]
        first, second = [await p.patch(location, fragment("n3w1")) for _ in range(2)]
        assert (first.status_code, first.text, first.headers["ETag"]) == (200, second.text, second.headers["ETag"])
        assert (await p.patch(location, fragment("n3w1"), first.headers["ETag"])).status_code == 204  # candidates
        assert p.owner.process.core.calls.tally.ice_restarts == 1


async def test_a_restart_goes_through_the_region_that_the_caller_named(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.publish(path="/whip?region=us")).headers["Location"]
        response = await p.patch(location, fragment("n3w1"))
        assert "203.0.113.4 3478 typ host" in response.text
        (call,) = p.owner.process.calls.values()
        assert (call.session.agreed.region, call.session.agreed.relay) == ("us", "iad1")


async def test_a_storm_of_restarts_is_held_back(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.publish()).headers["Location"]
        answers = [await p.patch(location, fragment(f"n{number:03}")) for number in range(20)]
        assert [answer.status_code for answer in answers[:5]] == [200] * 5
        assert {answer.status_code for answer in answers[5:]} == {429}
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert len(p.owner.process.core.calls.ufrags.sessions) <= 3
        assert p.calls() == 1


async def test_a_draining_owner_restarts_its_calls(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.publish()).headers["Location"]
        p.owner.process.drain(DrainOrder())
        assert (await p.patch(location, fragment("n3w1"))).status_code == 200
        assert (await p.post()).status_code == 503


async def test_an_owner_of_the_version_before_says_that_it_cannot(secrets_dir):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as old:
        f.publish(old.member())
        headers = bearer() | {"Content-Type": "application/sdp"}
        created = await f.http.post("/whip", content=SENDONLY, headers=headers)
        assert created.status_code == 201
        assert "ETag" not in created.headers
        headers = bearer() | {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
        refused = await f.http.patch(created.headers["Location"], content=fragment("n3w1"), headers=headers)
        assert (refused.status_code, code_of(refused)) == (501, "not_supported_by_owner")
        assert (await f.http.delete(created.headers["Location"], headers=bearer())).status_code == 200


# ---- DELETE, and whose a session is


async def test_delete_ends_it_whatever_the_entity_tag_and_once(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.publish()).headers["Location"]
        stale = bearer() | {"If-Match": '"stale"'}
        assert (await p.f.http.delete(location, headers=stale)).status_code == 200
        assert p.calls() == 0
        for response in (
            await p.f.http.delete(location, headers=bearer()),
            await p.patch(location, fragment()),
            await p.patch(location, fragment("n3w1")),
        ):
            assert (response.status_code, code_of(response)) == (404, "call_id_not_found")


async def test_another_tenants_session_is_not_there(secrets_dir):
    async with publisher(secrets_dir) as p:
        location = (await p.publish()).headers["Location"]
        (call_id,) = p.owner.process.calls
        other = bearer(OTHER_KEY)
        for response in (
            await p.f.http.delete(location, headers=other),
            await p.patch(location, fragment(), **other),
            await p.patch(location, fragment("n3w1"), **other),
            await p.f.http.post(f"/v1/realtime/calls/{call_id}/hangup", headers=other),
        ):
            assert (response.status_code, code_of(response)) == (404, "call_id_not_found")
        assert p.calls() == 1
        assert p.owner.process.core.calls.tally.ice_restarts == 0
        assert (await p.f.http.delete(location, headers=bearer())).status_code == 200


async def test_an_owner_that_is_away_is_503(secrets_dir):
    async with publisher(secrets_dir, owner_timeout_s=0.5) as p:
        location = (await p.publish()).headers["Location"]
        p.f.publish(Member(name="agents-5-2", slot=5, generation=2, address=HOST, port=1))
        for response in (
            await p.patch(location, fragment("n3w1")),
            await p.f.http.delete(location, headers=bearer()),
        ):
            assert (response.status_code, code_of(response)) == (503, "owner_not_reached")
            assert "Retry-After" in response.headers


async def test_a_browsers_ephemeral_key_opens_a_session_and_brings_what_whip_cannot_say(secrets_dir):
    async with publisher(secrets_dir) as p:
        session = {"type": "realtime", "instructions": "be brief"}
        made = await p.f.http.post("/v1/realtime/client_secrets", json={"session": session}, headers=bearer())
        key = bearer(made.json()["value"])
        created = await p.post(**key)
        assert created.status_code == 201, created.text
        (call,) = p.owner.process.calls.values()
        assert call.config.session["instructions"] == "be brief"
        location = created.headers["Location"]
        assert (await p.patch(location, fragment("n3w1"), **key)).status_code == 200
        player = re.search(r"<([^>]+)>", created.headers["Link"])[1]
        assert (await p.post(RECVONLY, player, **key)).status_code == 201
        assert (await p.f.http.delete(location, headers=key)).status_code == 200
        assert p.calls() == 0
