"""The sideband through a real gateway and the real control API's sockets: a server watches a call and speaks in it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType

from tests.support.fake_transceiver import FakeTransceiver
from tests.support.gateway_world import CALLS, KEY, OFFER, SDP, Fleet, fleet
from voicefleet_contract.http_api import MAX_EVENT_BYTES, MAX_WATCHERS
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.media.events import EventHub
from voicefleet_dataplane.shell.process import event_sockets
from voicefleet_dataplane.shell.process.event_sockets import Close

OTHER = "sk-other-0123456789abcdef"


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    (directory / "api-keys" / "other").write_text(OTHER)
    return directory


class Watched:
    """A fleet with one call of the tenant `dev`."""

    def __init__(self, f: Fleet, owner: FakeTransceiver, http: aiohttp.ClientSession, call_id: str) -> None:
        self.f, self.owner, self.http, self.call_id = f, owner, http, call_id

    @property
    def hub(self) -> EventHub:
        return self.owner.hubs[self.call_id]

    def url(self, call_id: str | None) -> str:
        query = "" if call_id is None else f"?call_id={call_id}"
        return f"https://127.0.0.1:{self.f.gateway.public_port}/v1/realtime{query}"

    async def attach(self, **options) -> aiohttp.ClientWebSocketResponse:
        call_id, key = options.pop("call_id", self.call_id), options.pop("key", KEY)
        return await self.http.ws_connect(
            self.url(call_id), ssl=False, headers={"Authorization": f"Bearer {key}"}, max_msg_size=0, **options
        )

    async def refused(self, **options) -> tuple[int, str]:
        """Status and code of a handshake that fails; its body is what an HTTP client sees."""
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await self.attach(**options)
        return caught.value.status, caught.value.headers.get("Content-Type", "")


@contextlib.asynccontextmanager
async def watched(secrets_dir: Path, **settings) -> AsyncIterator[Watched]:
    async with (
        fleet(secrets_dir, **settings) as f,
        FakeTransceiver(1, secrets_dir) as owner,
        aiohttp.ClientSession() as http,
    ):
        f.publish(owner.member())
        response = await f.http.post(CALLS, content=OFFER, headers=SDP | {"Authorization": f"Bearer {KEY}"})
        yield Watched(f, owner, http, response.headers["Location"].rsplit("/", 1)[1])


async def ending(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, list[str]]:
    """Read to the end: the close code and what was said."""
    async with asyncio.timeout(20):
        said = [message.data async for message in socket]
    return socket.close_code, said


async def test_a_server_sees_the_calls_events_and_speaks_in_it(secrets_dir):
    async with watched(secrets_dir) as w:
        socket = await w.attach()
        w.hub.tell('{"type":"session.created"}')
        assert await socket.receive_json() == {"type": "session.created"}
        await socket.send_str('{"type":"response.create"}')
        await w.owner.until(lambda: w.owner.heard)
        assert w.owner.heard == ['{"type":"response.create"}']
        assert "voicefleet_gateway_sidebands 1.0" in (await w.f.inner.get("/metrics")).text
        w.hub.close()
        assert await ending(socket) == (Close.CALL_ENDED, [])
        await w.refused(call_id="call_x")
        counted = (await w.f.inner.get("/metrics")).text
        for how in ("call_ended", "call_id_not_found"):
            assert f'voicefleet_gateway_sidebands_ended_total{{how="{how}"}} 1.0' in counted


async def test_what_was_told_before_the_end_of_the_call_is_heard(secrets_dir):
    async with watched(secrets_dir) as w:
        socket = await w.attach()
        for number in range(300):
            w.hub.tell(str(number))
        w.hub.close()
        assert await ending(socket) == (Close.CALL_ENDED, [str(number) for number in range(300)])


async def test_who_leaves_is_watched_for_no_longer(secrets_dir):
    async with watched(secrets_dir) as w:
        socket = await w.attach()
        await socket.close()
        async with asyncio.timeout(20):
            while w.hub._watchers:
                await asyncio.sleep(0.01)
        assert (await w.f.inner.get("/metrics")).text.count("voicefleet_gateway_sidebands 0.0") == 1


async def test_a_sideband_needs_a_standard_key(secrets_dir):
    async with watched(secrets_dir) as w:
        made = await w.f.http.post("/v1/realtime/client_secrets", headers={"Authorization": f"Bearer {KEY}"})
        assert (await w.refused(key=made.json()["value"]))[0] == 403
        assert (await w.refused(key="sk-wrong-0123456789"))[0] == 401


async def test_an_unknown_call_and_another_tenants_call_are_the_same(secrets_dir):
    async with watched(secrets_dir) as w:
        for call_id, key in ((w.call_id, OTHER), ("call_x", KEY), (w.call_id[:-1] + "-", KEY)):
            assert (await w.refused(call_id=call_id, key=key))[0] == 404
            upgrade = {
                "Authorization": f"Bearer {key}",
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
            response = await w.f.http.get(f"/v1/realtime?call_id={call_id}", headers=upgrade)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "call_id_not_found")
        assert not w.hub._watchers
        await w.attach()  # its own tenant may


async def test_another_tenants_call_cannot_be_hung_up(secrets_dir):
    async with watched(secrets_dir) as w:
        for key, status in ((OTHER, 404), (KEY, 200)):
            path = f"{CALLS}/{w.call_id}/hangup"
            assert (await w.f.http.post(path, headers={"Authorization": f"Bearer {key}"})).status_code == status


async def test_a_request_that_is_no_handshake_is_told_so(secrets_dir):
    async with watched(secrets_dir) as w:
        bearer = {"Authorization": f"Bearer {KEY}"}
        for path, status, code in (
            ("/v1/realtime", 400, "missing_call_id"),
            (f"/v1/realtime?call_id={w.call_id}", 426, "upgrade_required"),
        ):
            response = await w.f.http.get(path, headers=bearer)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_an_owner_that_is_not_reached_is_503(secrets_dir):
    async with watched(secrets_dir) as w:
        await w.owner.__aexit__()
        assert (await w.refused())[0] == 503


async def test_an_owner_that_goes_ends_the_sideband_with_1011(secrets_dir):
    async with watched(secrets_dir) as w:
        socket = await w.attach()
        await w.owner.__aexit__()
        assert (await ending(socket))[0] == Close.OWNER_LOST


async def test_nine_watchers_are_one_too_many(secrets_dir):
    async with watched(secrets_dir) as w:
        sockets = [await w.attach() for _ in range(MAX_WATCHERS)]
        assert (await w.refused())[0] == 429
        w.hub.tell("hello")
        assert {await socket.receive_str() for socket in sockets} == {"hello"}
        await sockets[0].close()
        async with asyncio.timeout(20):
            while len(w.hub._watchers) == MAX_WATCHERS:
                await asyncio.sleep(0.01)
        await w.attach()


async def test_sidebands_of_a_key_are_bounded(secrets_dir):
    async with watched(secrets_dir, max_sidebands_per_key=2, max_sidebands=3) as w:
        sockets = [await w.attach() for _ in range(2)]
        assert (await w.refused())[0] == 429
        assert not any(socket.closed for socket in sockets)


async def test_a_gateway_that_leaves_ends_its_sidebands_and_keeps_nobody_waiting(secrets_dir):
    async with watched(secrets_dir) as w:
        socket = await w.attach()
        reading = asyncio.create_task(ending(socket))
        async with asyncio.timeout(10):
            await w.f.gateway.stop(grace_s=0)
        assert (await reading)[0] == Close.LEAVING
        assert not w.hub._watchers


async def test_a_flood_waits_its_turn_and_others_are_heard(secrets_dir):
    async with watched(secrets_dir) as w:
        loud, quiet = await w.attach(), await w.attach()
        flood = asyncio.create_task(_flood(loud, 10_000))
        await w.owner.until(lambda: len(w.owner.heard) >= 90)
        await quiet.send_str('{"type":"from the quiet one"}')
        await w.owner.until(lambda: '{"type":"from the quiet one"}' in w.owner.heard)
        assert len(w.owner.heard) < 1_000
        w.hub.tell("hello")
        assert await loud.receive_str() == await quiet.receive_str() == "hello"
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)


async def _flood(socket: aiohttp.ClientWebSocketResponse, count: int) -> None:
    for _ in range(count):
        await socket.send_str('{"type":"flood"}')


async def test_an_event_that_is_too_long_gets_an_error_event_and_one_past_all_bounds_ends_its_sideband(secrets_dir):
    async with watched(secrets_dir) as w:
        socket, other = await w.attach(), await w.attach()
        await socket.send_str("x" * (MAX_EVENT_BYTES + 1))
        assert json.loads(await socket.receive_str())["error"]["code"] == "event_too_large"
        await socket.send_str("x" * (4 * MAX_EVENT_BYTES + 1))
        assert (await ending(socket))[0] in {1009, 1006}  # the rest of it may meet a closed door
        w.hub.tell("hello")
        assert await other.receive_str() == "hello"
        assert w.owner.heard == []


async def test_bytes_are_no_events(secrets_dir):
    async with watched(secrets_dir) as w:
        socket = await w.attach()
        await socket.send_bytes(b"{}")
        assert (await ending(socket))[0] == Close.NOT_TEXT


async def test_who_does_not_read_is_let_go_with_bounded_memory_and_others_notice_nothing(secrets_dir, monkeypatch):
    monkeypatch.setattr(event_sockets, "SEND_WITHIN_S", 0.5)
    async with watched(secrets_dir) as w:
        deaf, good = await w.attach(), await w.attach()
        deaf._conn.transport.pause_reading()
        heard, event = 0, "x" * 100_000
        async with asyncio.timeout(60):
            while len(w.hub._watchers) == 2:
                w.hub.tell(event)
                assert await good.receive_str() == event
                heard += 1
                assert heard < 1_000, "what one does not read is held for ever"
        w.hub.tell("hello")
        assert await good.receive_str() == "hello"
        deaf._conn.transport.resume_reading()
        assert (await ending(deaf))[0] in {Close.NOT_READ, 1006}


async def test_the_subprotocol_that_clients_ask_for_is_agreed_to(secrets_dir):
    async with watched(secrets_dir) as w:
        socket = await w.attach(protocols=("realtime",))
        assert socket.protocol == "realtime"
        await socket.ping()
        w.hub.tell("hello")
        assert (await socket.receive()).type is WSMsgType.TEXT
