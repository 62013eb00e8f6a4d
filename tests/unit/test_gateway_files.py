"""What changes under a running gateway: keys in a mounted Secret, places of callers, callers that leave."""

import asyncio
from pathlib import Path

import maxminddb
import pytest

from tests.support.fake_transceiver import FakeTransceiver, accept
from tests.support.gateway_world import CALLS, KEY, OFFER, SDP, fleet
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets

OTHER_KEY = "sk-other-0123456789abcdef"


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    return directory


async def test_keys_that_are_added_and_taken_away_count_without_a_restart(secrets_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "first").write_text(KEY)
    async with fleet(secrets_dir, api_keys_dir=str(tmp_path)) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())

        async def status(key: str) -> int:
            f.gateway._api_keys.check()  # what the watcher does every two seconds
            headers = SDP | {"Authorization": f"Bearer {key}"}
            return (await f.http.post(CALLS, content=OFFER, headers=headers)).status_code

        assert (await status(KEY), await status(OTHER_KEY)) == (201, 401)
        (tmp_path / "second").write_text(OTHER_KEY)
        assert (await status(KEY), await status(OTHER_KEY)) == (201, 201)
        (tmp_path / "first").unlink()
        assert (await status(KEY), await status(OTHER_KEY)) == (401, 201)


async def test_a_key_file_that_turns_bad_leaves_the_good_keys_in_use(secrets_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "first").write_text(KEY)
    async with fleet(secrets_dir, api_keys_dir=str(tmp_path)) as f:
        (tmp_path / "second").write_text("short")
        assert not f.gateway._api_keys.check()
        assert "second" in f.gateway._api_keys.problem
        assert f.gateway._api_keys.value.tenant(f"Bearer {KEY}") == "first"


class _Places:
    def get(self, address: str) -> object:
        return {"192.0.2.7": {"location": {"latitude": 40.7, "longitude": -74.0}}, "192.0.2.8": {}}.get(address)


@pytest.mark.parametrize("caller, relay", [("192.0.2.7", "iad1"), ("192.0.2.8", "fra"), ("192.0.2.9", "fra")])
async def test_the_ingress_is_near_the_callers_address_when_the_database_knows_it(
    secrets_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: str, relay: str
) -> None:
    monkeypatch.setattr(maxminddb, "open_database", lambda _path: _Places())
    options = {"geo_database": str(tmp_path / "city.mmdb"), "trusted_forwarders": "127.0.0.0/8"}
    async with fleet(secrets_dir, **options) as f, FakeTransceiver(1, secrets_dir) as one:
        f.publish(one.member())
        assert (await f.offer(**{"X-Forwarded-For": caller})).status_code == 201
        assert one.bodies[0].relay == relay


async def test_a_caller_that_leaves_before_its_answer_leaves_no_session(secrets_dir: Path) -> None:
    gate, waiting = asyncio.Event(), asyncio.Event()

    async def slow(fake, body):
        waiting.set()
        await gate.wait()
        return await accept(fake, body)

    async with fleet(secrets_dir) as f, FakeTransceiver(1, secrets_dir, slow) as one:
        f.publish(one.member())
        offer = asyncio.create_task(f.offer())
        await waiting.wait()
        offer.cancel()
        await asyncio.gather(offer, return_exceptions=True)
        await f.http.get("/healthz")  # a round trip later the gateway has seen the connection end
        gate.set()
        await asyncio.wait_for(one.hung_up.wait(), 10)
        assert one.sessions == set()
