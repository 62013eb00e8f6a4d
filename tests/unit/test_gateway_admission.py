"""Who may ask the gateway, what it refuses, and what it says of itself: over real HTTP and real mutual TLS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fake_transceiver import (
    FakeTransceiver,
    accept,
    refuse,
)
from tests.support.gateway_world import AUTHORISED, CALLS, KEY, OFFER, SDP, fleet, relay
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    return directory


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer sk-wrong-0123456789abc"}, {"Authorization": "Basic Zm9v"}]
)
async def test_no_call_without_a_key(secrets_dir: Path, headers: dict) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        for path in (CALLS, f"{CALLS}/call_x/hangup"):
            response = await f.http.post(path, content=OFFER, headers=SDP | headers)
            assert response.status_code == 401
            assert response.json()["error"]["type"] == "authentication_error"
        assert one.offers == 0


async def test_anonymous_calls_are_possible_when_the_setting_says_so(secrets_dir: Path) -> None:
    async with fleet(secrets_dir, allow_anonymous_calls=True) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        assert (await f.http.post(CALLS, content=OFFER, headers=SDP)).status_code == 201
        wrong = SDP | {"Authorization": "Bearer sk-wrong-0123456789abc"}
        assert (await f.http.post(CALLS, content=OFFER, headers=wrong)).status_code == 401


@pytest.mark.parametrize(
    "body, headers, status, code",
    [
        (OFFER, {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
        ("", {}, 400, "invalid_offer"),
        ("hello", {}, 400, "invalid_offer"),
        (b"v=0\r\n\xff\xfe", {}, 400, "invalid_offer"),
        ("v=0\r\n" + "a" * 64 * 1024, {}, 413, "offer_too_large"),
        ("v=0\r\n" + "a" * 1024 * 1024, {}, 413, "offer_too_large"),
    ],
)
async def test_a_bad_body_is_refused_with_an_error_body(secrets_dir: Path, body, headers, status, code) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        response = await f.offer(body=body, **headers)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert set(response.json()["error"]) == {"code", "message", "param", "type"}
        assert one.offers == 0


async def test_a_body_without_a_length_is_limited_too(secrets_dir: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"v=0\r\n"
        for _ in range(100):
            yield b"a" * 1024

    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        response = await f.http.post(CALLS, content=endless(), headers=AUTHORISED)
        assert response.status_code == 413


@pytest.mark.parametrize(
    "method, path, status",
    [("GET", CALLS, 405), ("PUT", CALLS, 405), ("POST", "/v2/calls", 404), ("GET", "/nothing", 404)],
)
async def test_wrong_paths_and_methods_get_an_error_body(
    secrets_dir: Path, method: str, path: str, status: int
) -> None:
    async with fleet(secrets_dir) as f:
        response = await f.http.request(method, path, headers=AUTHORISED)
        assert response.status_code == status
        assert "message" in response.json()["error"]


@pytest.mark.parametrize("query, code", [("region=mars", "unknown_region"), ("pool=nope", "unknown_pool")])
async def test_an_unknown_region_or_pool_is_the_callers_mistake(secrets_dir: Path, query: str, code: str) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        response = await f.offer(f"{CALLS}?{query}")
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)
        assert response.json()["error"]["param"] == query.split("=", maxsplit=1)[0]


async def test_too_many_calls_of_one_client_get_429_with_retry_after(secrets_dir: Path) -> None:
    async with fleet(secrets_dir, calls_per_second_per_client=0.5) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        assert (await f.offer()).status_code == 201
        response = await f.offer()
        assert (response.status_code, response.json()["error"]["type"]) == (429, "rate_limit_error")
        assert int(response.headers["Retry-After"]) >= 1


async def test_too_many_calls_of_one_key_get_429(secrets_dir: Path) -> None:
    async with fleet(secrets_dir, calls_per_second_per_key=0.5) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        assert [(await f.offer()).status_code for _ in range(2)] == [201, 429]


async def test_too_many_requests_at_once_get_429(secrets_dir: Path) -> None:
    gate, waiting = asyncio.Event(), asyncio.Event()

    async def slow(fake, body):
        waiting.set()
        await gate.wait()
        return await refuse(503, "full")(fake, body)

    async with (
        fleet(secrets_dir, max_concurrent_requests_per_client=1) as f,
        FakeTransceiver(1, secrets_dir, slow) as one,
    ):
        f.publish(one.member())
        first = asyncio.create_task(f.offer())
        await waiting.wait()
        assert (await f.offer()).status_code == 429
        gate.set()
        assert (await first).status_code == 503
        assert (await f.offer()).status_code == 503  # the place was given back


async def test_browsers_may_ask_from_any_page(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        preflight = await f.http.options(
            CALLS,
            headers={
                "Origin": "https://example.org",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-openai-agents-sdk",
            },
        )
        assert preflight.status_code == 204
        allowed = preflight.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"authorization", "content-type", "x-openai-agents-sdk"} <= set(allowed)
        response = await f.offer(Origin="https://example.org")
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Location" in response.headers["Access-Control-Expose-Headers"]
        refused = await f.http.post(CALLS, content=OFFER, headers=SDP)
        assert refused.headers["Access-Control-Allow-Origin"] == "*"  # or the page could not read the error


async def test_readiness_says_what_is_wrong_inside_and_only_whether_outside(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:

        async def state() -> tuple[int, str]:
            outside, inside = await f.http.get("/readyz"), await f.inner.get("/readyz")
            assert outside.status_code == inside.status_code
            assert outside.text == ("ready\n" if outside.is_success else "not ready\n")
            return inside.status_code, inside.text

        assert await state() == (503, "no topology: nothing was read yet\n")
        f.publish(one.member(state="draining"), relays=())
        assert await state() == (503, "no ready relay: 0 in the topology\nno active member in pool 'default'\n")
        f.publish(one.member())
        assert await state() == (200, "ready\n")
        assert (await f.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "publish, code",
    [
        (lambda _f, _m: None, "no_topology"),
        (lambda f, m: f.publish(m, relays=()), "no_ready_relay"),
        (lambda f, m: f.publish(m, relays=(relay("fra", "eu", 0, 0, state="draining"),)), "no_ready_relay"),
        (lambda f, m: f.publish(m.model_copy(update={"state": "draining"})), "no_active_member"),
    ],
)
async def test_a_call_that_cannot_be_placed_is_503_and_says_why(secrets_dir: Path, publish, code: str) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        publish(f, one.member())
        response = await f.offer()
        assert (response.status_code, response.json()["error"]["code"]) == (503, code)
        assert "Retry-After" in response.headers


async def test_metrics_are_on_the_inner_port_only(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        await f.offer()
        assert (await f.http.get("/metrics")).status_code == 404
        metrics = (await f.inner.get("/metrics")).text
        assert 'voicefleet_gateway_calls_total{outcome="created"} 1.0' in metrics
        assert 'voicefleet_gateway_owner_requests_total{outcome="created"} 1.0' in metrics
        assert "voicefleet_gateway_ready 1.0" in metrics


async def test_requests_in_progress_are_answered_when_the_gateway_leaves(secrets_dir: Path) -> None:
    gate, waiting = asyncio.Event(), asyncio.Event()

    async def slow(fake, body):
        waiting.set()
        await gate.wait()
        return await accept(fake, body)

    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir, slow) as one:
        f.publish(one.member())
        offer = asyncio.create_task(f.offer())
        await waiting.wait()
        leaving = asyncio.create_task(f.gateway.stop(grace_s=0.05))
        await asyncio.sleep(0)
        assert f.gateway.problems() == ["leaving"]
        gate.set()
        assert (await offer).status_code == 201
        await leaving


async def test_it_acknowledges_the_ring_and_the_call_keys_that_it_works_with(secrets_dir: Path) -> None:
    async with fleet(secrets_dir, process_name="gateway-x") as f:
        f.publish()
        said = f.gateway.acknowledgement()
        assert (said.process, said.call_key_epochs, said.ring_epochs) == ("gateway-x", (1,), {"default": 0, "empty": 0})
        assert said.call_signing_epoch == 1  # ephemeral keys
