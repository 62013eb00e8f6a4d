"""The gateway over real HTTP and real mutual TLS, with transceivers whose answers are scripted."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.fake_transceiver import (
    ANSWER,
    FakeTransceiver,
    accept,
    create_but_stay_silent_once,
    refuse,
    take_its_share,
)
from tests.support.gateway_world import AUTHORISED, CALLS, KEY, OFFER, RELAYS, fleet
from voicefleet_contract.call_id import CallId, encode_call_id
from voicefleet_contract.http_api import CreateSession
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.ring import load_bound
from voicefleet_dataplane.commands.dev_secrets import InnerAuthority, write_dev_secrets


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    return directory


async def test_an_offer_gets_201_the_answer_and_a_relative_location(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        response = await f.offer()
        assert response.status_code == 201
        assert response.headers["Content-Type"] == "application/sdp"
        assert response.text == ANSWER
        (call_id,) = one.sessions
        assert response.headers["Location"] == f"{CALLS}/{call_id}"


async def test_the_owner_gets_the_offer_and_the_ingress_nearest_to_the_gateways_region(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        await f.offer()
        (body,) = one.bodies
        assert body.offer == OFFER
        assert (body.region, body.relay) == ("eu", "fra")
        assert body.candidates == RELAYS[0].advertise


async def test_a_callers_trace_goes_on_to_the_owner(secrets_dir: Path) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        await f.offer(traceparent=traceparent)
        await f.offer(traceparent="nonsense")
        assert [body.traceparent for body in one.bodies] == [traceparent, ""]


@pytest.mark.parametrize("path, headers", [(f"{CALLS}?region=us", {}), (CALLS, {"X-Voicefleet-Region": "us"})])
async def test_a_caller_may_name_its_region(secrets_dir: Path, path: str, headers: dict) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        await f.offer(path, **headers)
        assert one.bodies[0].relay == "iad1"


async def test_calls_spread_over_the_members(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one, FakeTransceiver(2, secrets_dir) as two:
        f.publish(one.member(), two.member())
        for _ in range(40):
            assert (await f.offer()).status_code == 201
        assert one.offers + two.offers == 40
        assert min(one.offers, two.offers) >= 4  # a fair coin falls short of it once in 10⁷ runs; the ring is near fair


@pytest.mark.parametrize("reason", ["full", "draining", "starting"])
async def test_a_member_that_refuses_is_passed_over(secrets_dir: Path, reason: str) -> None:
    async with (
        fleet(secrets_dir) as f,
        FakeTransceiver(1, secrets_dir, refuse(503, reason)) as one,
        FakeTransceiver(2, secrets_dir) as two,
    ):
        f.publish(one.member(), two.member())
        for _ in range(10):
            assert (await f.offer()).status_code == 201
        assert len(two.sessions) == 10


async def test_a_request_that_fails_members_is_not_taken_to_all_of_them(secrets_dir: Path) -> None:
    async def fail(fake: FakeTransceiver, body: CreateSession) -> web.Response:
        return web.Response(status=500)

    async with contextlib.AsyncExitStack() as stack:
        f = await stack.enter_async_context(fleet(secrets_dir))
        members = [await stack.enter_async_context(FakeTransceiver(slot, secrets_dir, fail)) for slot in range(1, 6)]
        f.publish(*(one.member() for one in members))
        assert (await f.offer()).status_code == 503
        assert sum(one.offers for one in members) == 2


async def test_no_member_takes_more_than_its_bounded_share(secrets_dir: Path) -> None:
    async with (
        fleet(secrets_dir) as f,
        FakeTransceiver(1, secrets_dir, take_its_share) as one,
        FakeTransceiver(2, secrets_dir, take_its_share) as two,
    ):
        f.publish(one.member(weight=50), two.member(weight=200))
        for placed in range(1, 61):
            assert (await f.offer()).status_code == 201
            assert len(one.sessions) + len(two.sessions) == placed
            assert len(one.sessions) <= load_bound(50, placed, 250) + 1
            assert len(two.sessions) <= load_bound(200, placed, 250) + 1
        said = (await f.inner.get("/metrics")).text
        assert 'voicefleet_gateway_pool_imbalance{pool="default"} 1.' in said


async def test_when_every_member_is_merely_busy_the_emptiest_takes_the_call(secrets_dir: Path) -> None:
    async def busy(fake: FakeTransceiver, body: CreateSession) -> web.Response:
        if fake.offers == 1:
            return await refuse(503, "busy", sessions=10 * fake.slot)(fake, body)
        assert body.below is None
        return await accept(fake, body)

    async with (
        fleet(secrets_dir) as f,
        FakeTransceiver(1, secrets_dir, busy) as one,
        FakeTransceiver(2, secrets_dir, busy) as two,
    ):
        f.publish(one.member(), two.member())
        assert (await f.offer()).status_code == 201
        assert len(one.sessions) == 1
        assert (one.offers, two.offers) == (2, 1)


async def test_members_of_the_version_before_get_no_bound(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one, FakeTransceiver(2, secrets_dir) as two:
        f.publish(one.member(), two.member())
        for _ in range(10):
            assert (await f.offer()).status_code == 201
        assert {body.below for body in (*one.bodies, *two.bodies)} == {None}


async def test_a_member_that_is_not_there_is_passed_over(secrets_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with fleet(secrets_dir) as f, FakeTransceiver(2, secrets_dir) as two:
        f.publish(two.member(), two.member().model_copy(update={"slot": 1, "port": port}))
        for _ in range(10):
            assert (await f.offer()).status_code == 201


async def test_a_member_that_answers_too_late_is_passed_over_and_keeps_no_orphan(secrets_dir: Path) -> None:
    async with (
        fleet(secrets_dir, owner_timeout_s=0.3) as f,
        FakeTransceiver(1, secrets_dir, create_but_stay_silent_once) as one,
    ):
        f.publish(one.member())
        response = await f.offer()
        assert response.status_code == 503
        assert "no_answer" in response.json()["error"]["message"]
        await asyncio.wait_for(one.hung_up.wait(), 10)
        assert one.sessions == set()
        assert len({body.request_id for body in one.bodies}) == 1  # the repetition is the same request


async def test_when_every_member_refuses_the_caller_is_told_when_to_come_back(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir, refuse(503, "full", retry_after_s=7)) as one:
        f.publish(one.member())
        response = await f.offer()
        assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
        assert response.json()["error"]["code"] == "no_capacity"
        assert response.json()["error"]["type"] == "server_error"


async def test_an_offer_that_is_at_fault_is_not_tried_elsewhere(secrets_dir: Path) -> None:
    behaviour = refuse(422, "offer", "the offer has no audio", param="m=audio")
    async with (
        fleet(secrets_dir) as f,
        FakeTransceiver(1, secrets_dir, behaviour) as one,
        FakeTransceiver(2, secrets_dir, behaviour) as two,
    ):
        f.publish(one.member(), two.member())
        response = await f.offer()
        assert response.status_code == 422
        assert response.json() == {
            "error": {
                "code": "unsupported_offer",
                "message": "the offer has no audio",
                "param": "m=audio",
                "type": "invalid_request_error",
            }
        }
        assert one.offers + two.offers == 1


async def test_somebody_else_at_a_members_address_is_not_believed(secrets_dir: Path, tmp_path: Path) -> None:
    InnerAuthority("somebody else").issue(tmp_path / "transceiver", "transceiver.voicefleet.internal")
    (tmp_path / "call-keys").symlink_to(secrets_dir / "call-keys")
    async with fleet(secrets_dir) as f, FakeTransceiver(1, tmp_path) as stranger:
        f.publish(stranger.member())
        assert (await f.offer()).status_code == 503
        assert stranger.offers == 0


async def test_another_role_at_a_members_address_is_not_believed(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir, role="relay") as relay_process:
        f.publish(relay_process.member())
        assert (await f.offer()).status_code == 503
        assert relay_process.offers == 0


async def test_a_hang_up_reaches_the_owner_that_the_call_id_names(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one, FakeTransceiver(2, secrets_dir) as two:
        f.publish(one.member(), two.member())
        location = (await f.offer()).headers["Location"]
        assert (await f.http.post(f"{location}/hangup", headers=AUTHORISED)).status_code == 200
        assert one.sessions | two.sessions == set()
        again = await f.http.post(f"{location}/hangup", headers=AUTHORISED)
        assert (again.status_code, again.json()["error"]["code"]) == (404, "call_id_not_found")


async def test_a_call_of_a_draining_member_can_be_hung_up(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        location = (await f.offer()).headers["Location"]
        f.publish(one.member(state="draining"))
        assert (await f.http.post(f"{location}/hangup", headers=AUTHORISED)).status_code == 200


def _call_id(secrets_dir: Path, **fields: int) -> str:
    keys = KeyRing.parse((secrets_dir / "call-keys" / "keys.json").read_text())
    return encode_call_id(CallId(**({"cluster": 7, "slot": 1, "generation": 1, "nonce": 1} | fields)), keys)


@pytest.mark.parametrize("fields", [{"cluster": 8}, {"slot": 9}, {"generation": 2}, {"nonce": 5}])
async def test_a_hang_up_for_a_call_that_is_not_there_is_404(secrets_dir: Path, fields: dict) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        response = await f.http.post(f"{CALLS}/{_call_id(secrets_dir, **fields)}/hangup", headers=AUTHORISED)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "call_id_not_found")


async def test_a_forged_call_id_reaches_no_transceiver(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        call_id = (await f.offer()).headers["Location"].rsplit("/", 1)[1]
        forged = call_id[:-1] + ("A" if call_id[-1] != "A" else "B")
        response = await f.http.post(f"{CALLS}/{forged}/hangup", headers=AUTHORISED)
        assert response.status_code == 404
        assert one.sessions == {call_id}
