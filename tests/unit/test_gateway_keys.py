"""Client secrets, ephemeral keys and the two bodies of a call, over a real gateway."""

import json
import random
import time
from pathlib import Path

import httpx
import pytest

from tests.support.fake_transceiver import ANSWER, FakeTransceiver
from tests.support.gateway_world import AUTHORISED, CALLS, KEY, OFFER, SDP, Fleet, fleet
from voicefleet_contract.ephemeral_keys import MAX_KEY_CHARS, EphemeralKey, decode_ephemeral_key, encode_ephemeral_key
from voicefleet_contract.http_api import MAX_SESSION_BYTES
from voicefleet_contract.keys import KeyRing
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets

SECRETS = "/v1/realtime/client_secrets"
BEARER = {"Authorization": f"Bearer {KEY}"}
SESSION = {"type": "realtime", "instructions": "be brief", "audio": {"output": {"voice": "marin"}}}


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    return directory


def ring(secrets_dir: Path) -> KeyRing:
    return KeyRing.parse((secrets_dir / "call-keys" / "keys.json").read_text())


def sealed(secrets_dir: Path, *, tenant: str = "dev", life_s: float = 60.0, **session) -> str:
    key = EphemeralKey(tenant, int(time.time() + life_s), session)
    return encode_ephemeral_key(key, ring(secrets_dir), random.randbytes(16))


def error(response: httpx.Response) -> tuple[int, str, str | None]:
    said = response.json()["error"]
    assert set(said) == {"code", "message", "param", "type"}
    return response.status_code, said["code"], said["param"]


async def make_key(f: Fleet, **body) -> dict:
    response = await f.http.post(SECRETS, json=body, headers=BEARER)
    assert response.status_code == 200, response.text
    return response.json()


async def offer_with(f: Fleet, key: str) -> httpx.Response:
    return await f.http.post(CALLS, content=OFFER, headers=SDP | {"Authorization": f"Bearer {key}"})


def form(sdp: str | bytes = OFFER, session: object = SESSION) -> dict:
    text = session if isinstance(session, str | bytes) else json.dumps(session)
    return {"sdp": (None, sdp, "application/sdp"), "session": (None, text, "application/json")}


async def test_a_key_places_calls_with_the_session_that_it_was_made_for(secrets_dir):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        made = await make_key(f, session=SESSION)
        assert made["value"].startswith("ek_")
        assert made["session"]["object"] == "realtime.session"
        assert made["session"]["id"].startswith("sess_")
        assert SESSION.items() <= made["session"].items()
        for _ in range(2):  # as many as it likes, until it expires
            response = await offer_with(f, made["value"])
            assert (response.status_code, response.text) == (201, ANSWER)
        assert [body.session for body in one.bodies] == [SESSION, SESSION]
        assert {body.tenant for body in one.bodies} == {"dev"}


async def test_a_key_lives_ten_minutes_or_as_long_as_it_was_asked_for(secrets_dir):
    async with fleet(secrets_dir) as f:
        now = time.time()
        assert (await make_key(f))["expires_at"] == pytest.approx(now + 600, abs=30)
        asked = await make_key(f, expires_after={"anchor": "created_at", "seconds": 7200})
        assert asked["expires_at"] == pytest.approx(now + 7200, abs=30)
        assert decode_ephemeral_key(asked["value"], ring(secrets_dir), now).expires_at == asked["expires_at"]
        assert "voicefleet_gateway_ephemeral_keys_total 2.0" in (await f.inner.get("/metrics")).text


async def test_an_empty_body_makes_a_key_too(secrets_dir):
    async with fleet(secrets_dir) as f:
        response = await f.http.post(SECRETS, headers=BEARER)
        assert response.status_code == 200
        assert response.json()["session"]["type"] == "realtime"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"expires_after": {"seconds": 9}}, 400, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, 400, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": "60"}}, 400, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"anchor": "now", "seconds": 60}}, 400, "invalid_value", "expires_after.anchor"),
        ({"sesion": {}}, 400, "invalid_value", "sesion"),
        ({"session": []}, 400, "invalid_value", "session"),
        ({"session": {"type": "transcription"}}, 400, "invalid_session", "session.type"),
        ({"session": {"instructions": "x" * 70_000}}, 400, "invalid_session", "session"),
        ({"session": {"instructions": random.Random(1).randbytes(15_000).hex()}}, 413, "session_too_large", "session"),
        ([], 400, "invalid_json", None),
        ({"session": {"instructions": "x" * 200_000}}, 413, "body_too_large", "body"),
    ],
)  # fmt: skip
async def test_a_bad_request_for_a_key_names_the_field(secrets_dir, body, status, code, param):
    async with fleet(secrets_dir) as f:
        assert error(await f.http.post(SECRETS, json=body, headers=BEARER)) == (status, code, param)


async def test_a_request_for_a_key_that_is_not_json_is_refused(secrets_dir):
    async with fleet(secrets_dir) as f:
        for content, kind, status, code in (
            (b"{", "application/json", 400, "invalid_json"),
            (b"{}", "text/plain", 415, "unsupported_media_type"),
        ):
            response = await f.http.post(SECRETS, content=content, headers=BEARER | {"Content-Type": kind})
            assert error(response)[:2] == (status, code)


async def test_the_largest_key_passes_through_a_header(secrets_dir):
    session = {"type": "realtime", "instructions": random.Random(2).randbytes(10_150).hex()}
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        value = (await make_key(f, session=session))["value"]
        assert MAX_KEY_CHARS * 0.97 < len(value) <= MAX_KEY_CHARS
        assert (await offer_with(f, value)).status_code == 201
        assert one.bodies[0].session == session


async def test_an_ephemeral_key_places_calls_and_opens_nothing_else(secrets_dir):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        bearer = {"Authorization": f"Bearer {sealed(secrets_dir)}"}
        location = (await offer_with(f, sealed(secrets_dir))).headers["Location"]
        for path in (SECRETS, f"{location}/hangup"):
            assert error(await f.http.post(path, headers=bearer))[:2] == (403, "standard_key_required")
        assert len(one.sessions) == 1


async def test_keys_that_are_forged_cut_or_late_open_nothing(secrets_dir, tmp_path):
    write_dev_secrets(tmp_path, KEY)
    good, late = sealed(secrets_dir), sealed(secrets_dir, life_s=-1)
    bad = {
        sealed(tmp_path): "invalid_api_key",  # another fleet's
        good[:-1]: "invalid_api_key",
        good[: len(good) // 2]: "invalid_api_key",
        "ek_": "invalid_api_key",
        "ek_" + "A" * 64: "invalid_api_key",
        late: "ephemeral_key_expired",
    }
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        for key, code in bad.items():
            response = await offer_with(f, key)
            assert error(response)[:2] == (401, code)
            assert response.json()["error"]["type"] == "authentication_error"
        assert (await offer_with(f, good)).status_code == 201
        assert one.offers == 1


async def test_a_tenant_whose_key_was_taken_away_takes_its_ephemeral_keys_with_it(secrets_dir):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        assert error(await offer_with(f, sealed(secrets_dir, tenant="gone")))[:2] == (401, "invalid_api_key")
        assert error(await offer_with(f, sealed(secrets_dir, tenant="anonymous")))[:2] == (401, "invalid_api_key")


async def test_keys_of_one_tenant_share_its_rate(secrets_dir):
    async with fleet(secrets_dir, calls_per_second_per_key=0.5) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        assert (await offer_with(f, sealed(secrets_dir))).status_code == 201
        assert error(await offer_with(f, sealed(secrets_dir)))[:2] == (429, "rate_limit_exceeded")
        assert error(await f.http.post(SECRETS, headers=BEARER))[:2] == (429, "rate_limit_exceeded")


async def test_a_key_sealed_before_a_rotation_still_places_calls(secrets_dir, tmp_path):
    keys = tmp_path / "keys.json"
    old = ring(secrets_dir)
    keys.write_text(old.with_epochs({1: b"x" * 32, 2: random.randbytes(32)}, 2).to_json())
    async with fleet(secrets_dir, call_keys_file=str(keys)) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        assert (await offer_with(f, sealed(secrets_dir))).status_code == 201


async def test_a_server_places_a_call_with_offer_and_session_in_a_form(secrets_dir):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        response = await f.http.post(CALLS, files=form(), headers=BEARER)
        assert (response.status_code, response.text) == (201, ANSWER)
        assert response.headers["Content-Type"] == "application/sdp"
        assert (one.bodies[0].offer, one.bodies[0].session) == (OFFER, SESSION)


@pytest.mark.parametrize(
    ("files", "status", "code", "param"),
    [
        ({"sdp": (None, OFFER)}, 400, "invalid_form", "session"),
        (form() | {"model": (None, "x")}, 400, "invalid_form", "model"),
        (form(sdp=""), 400, "invalid_offer", "sdp"),
        (form(sdp="hello"), 400, "invalid_offer", "sdp"),
        (form(sdp=b"v=0\r\n\xff"), 400, "invalid_offer", "sdp"),
        (form(sdp="v=0\r\n" + "a" * 65_536), 413, "offer_too_large", "sdp"),
        (form(session="{"), 400, "invalid_session", "session"),
        (form(session="[]"), 400, "invalid_session", "session"),
        (form(session=b'{"a":' * 100 + b"1" + b"}" * 100), 400, "invalid_session", "session"),
        (form(session={"type": "other"}), 400, "invalid_session", "session.type"),
        (form(session={"instructions": "x" * MAX_SESSION_BYTES}), 413, "session_too_large", "session"),
        (form(session={"instructions": "x" * 1_000_000}), 413, "form_too_large", "form"),
    ],
)  # fmt: skip
async def test_a_bad_form_names_the_part(secrets_dir, files, status, code, param):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        assert error(await f.http.post(CALLS, files=files, headers=BEARER)) == (status, code, param)
        assert one.offers == 0


async def test_a_form_without_a_boundary_is_refused(secrets_dir):
    async with fleet(secrets_dir) as f:
        headers = AUTHORISED | {"Content-Type": "multipart/form-data"}
        response = await f.http.post(CALLS, content=b"x", headers=headers)
        assert error(response)[:2] == (400, "invalid_form")


async def test_a_session_beside_an_ephemeral_key_is_refused(secrets_dir):
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        bearer = {"Authorization": f"Bearer {sealed(secrets_dir)}"}
        response = await f.http.post(CALLS, files=form(), headers=bearer)
        assert error(response) == (400, "session_in_key", "session")


async def test_every_interface_takes_the_session_that_an_ephemeral_key_brings(secrets_dir):
    bearer = {"Authorization": f"Bearer {sealed(secrets_dir, **SESSION)}"}
    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        whip = await f.http.post("/whip", content=OFFER, headers=SDP | bearer)
        pipecat = await f.http.post("/api/offer", json={"sdp": OFFER, "type": "offer"}, headers=bearer)
        assert (whip.status_code, pipecat.status_code) == (201, 200)
        assert [(body.session, body.tenant) for body in one.bodies] == [(SESSION, "dev")] * 2


async def test_a_page_may_place_calls_and_read_where_they_are(secrets_dir):
    async with fleet(secrets_dir) as f:
        for path in (CALLS, SECRETS):
            allowed = (await f.http.options(path)).headers
            asked = {"authorization", "content-type", "x-openai-agents-sdk"}
            assert asked <= set(allowed["Access-Control-Allow-Headers"].lower().split(", "))
            assert "Location" in allowed["Access-Control-Expose-Headers"].split(", ")
