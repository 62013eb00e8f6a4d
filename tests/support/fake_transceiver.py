"""A transceiver's control API with scripted answers: what the gateway sees of a member, over real mutual TLS."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from aiohttp import web

from voicefleet_contract import names
from voicefleet_contract.call_id import CallId, encode_call_id
from voicefleet_contract.http_api import CreateSession, Refusal, SessionCreated
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.topology import Member
from voicefleet_dataplane.media.events import EventHub
from voicefleet_dataplane.shell.transceiver.events_socket import serve_watcher

ANSWER = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
Behaviour = Callable[["FakeTransceiver", CreateSession], Awaitable[web.Response]]


async def accept(fake: "FakeTransceiver", body: CreateSession) -> web.Response:
    """Make a session, or give the one that this request made before."""
    call_id = fake.by_request.get(body.request_id)
    if call_id is None:
        nonce = 1000 * fake.slot + len(fake.by_request)
        call_id = encode_call_id(CallId(fake.cluster, fake.slot, fake.generation, nonce), fake.keys)
        fake.by_request[body.request_id] = call_id
        fake.sessions.add(call_id)
        fake.tenants[call_id] = body.tenant
        fake.hubs[call_id] = EventHub(lambda event: fake.heard.append(event) or fake.changed.set())
    created = SessionCreated(call_id=call_id, answer=ANSWER, slot=fake.slot, generation=fake.generation)
    return web.Response(status=201, text=created.model_dump_json(), content_type="application/json")


async def take_its_share(fake: "FakeTransceiver", body: CreateSession) -> web.Response:
    """Say how many sessions there are, and refuse at the bound, as a transceiver does."""
    if body.below is not None and len(fake.sessions) >= body.below and body.request_id not in fake.by_request:
        return await refuse(503, "busy", sessions=len(fake.sessions), retry_after_s=1)(fake, body)
    response = await accept(fake, body)
    created = SessionCreated.model_validate_json(response.text or "")
    said = created.model_copy(update={"sessions": len(fake.sessions)})
    return web.Response(status=201, text=said.model_dump_json(), content_type="application/json")


def refuse(status: int, reason: str, message: str = "no", **fields) -> Behaviour:
    """Refuse each offer."""

    async def behaviour(fake: "FakeTransceiver", body: CreateSession) -> web.Response:
        refusal = Refusal(reason=reason, message=message, **fields)
        return web.Response(status=status, text=refusal.model_dump_json(), content_type="application/json")

    return behaviour


async def create_but_stay_silent_once(fake: "FakeTransceiver", body: CreateSession) -> web.Response:
    """Make the session, and let the gateway wait until it gives up; answer the repeated request."""
    response = await accept(fake, body)
    if fake.offers == 1:
        await asyncio.sleep(30)
    return response


class FakeTransceiver:
    """One slot. ``behaviour`` decides about offers; ``sessions`` are those not yet hung up."""

    def __init__(
        self, slot: int, secrets_dir: Path, behaviour: Behaviour = accept, *, role: str = "transceiver"
    ) -> None:
        self.slot, self.generation, self.cluster, self.behaviour = slot, 1, 7, behaviour
        self.keys = KeyRing.parse((secrets_dir / "call-keys" / names.KEYS_FILE).read_text())
        self.by_request: dict[str, str] = {}
        self.sessions: set[str] = set()
        self.tenants: dict[str, str] = {}
        self.hubs: dict[str, EventHub] = {}  # real ones, behind the real control API's sockets
        self.heard: list[str] = []  # what sidebands said
        self.changed = asyncio.Event()
        self.offers = 0
        self.bodies: list[CreateSession] = []
        self.hung_up = asyncio.Event()
        tls = secrets_dir / role
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls / names.TLS_CA_FILE))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(tls / names.TLS_CERT_FILE, tls / names.TLS_KEY_FILE)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/sessions", self._create)
        app.router.add_delete("/v1/sessions/{call_id}", self._delete)
        app.router.add_get("/v1/sessions/{call_id}/events", self._events)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc) -> None:
        await self._runner.cleanup()

    def member(self, **fields) -> Member:
        known = {"name": f"agents-{self.slot}-1", "address": "127.0.0.1", "port": self.port}
        return Member(slot=self.slot, generation=self.generation, **(known | fields))

    async def _create(self, request: web.Request) -> web.Response:
        self.offers += 1
        body = CreateSession.model_validate(json.loads(await request.text()))
        self.bodies.append(body)
        return await self.behaviour(self, body)

    async def _delete(self, request: web.Request) -> web.Response:
        call_id = request.match_info["call_id"]
        if call_id not in self.sessions or request.query.get("tenant") not in {None, self.tenants[call_id]}:
            return _unknown()
        self.sessions.discard(call_id)
        self.hung_up.set()
        return web.json_response({})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        call_id = request.match_info["call_id"]
        if call_id not in self.hubs or request.query.get("tenant") not in {None, self.tenants[call_id]}:
            return _unknown()
        return await serve_watcher(request, self.hubs[call_id]) or web.Response(status=429)

    async def until(self, condition: Callable[[], object], within_s: float = 20.0) -> None:
        """Wait for something that a sideband says."""
        async with asyncio.timeout(within_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def _unknown() -> web.Response:
    refusal = Refusal(reason="unknown_call", message="no such call")
    return web.Response(status=404, text=refusal.model_dump_json(), content_type="application/json")
