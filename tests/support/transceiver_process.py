"""A transceiver process on loopback, and its control API as a gateway sees it."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx

from voicefleet_contract.http_api import CreateSession, SessionCreated, SessionList, SessionStatus, SlotStatus
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import Endpoint, TopologyIndex
from voicefleet_dataplane.shell.gateway.control_client import _EXTENSIONS, client_context
from voicefleet_dataplane.shell.transceiver.process import TransceiverProcess

HOST = "127.0.0.1"


class RunningTransceiver:
    """The process, and requests to it with a gateway's certificate."""

    def __init__(self, process: TransceiverProcess, http: httpx.AsyncClient) -> None:
        self.process = process
        self.http = http
        self.url = f"https://{HOST}:{process.port}"
        self.topology: TopologyIndex | None = None

    async def request(self, method: str, path: str, **options) -> httpx.Response:
        return await self.http.request(method, self.url + path, extensions=_EXTENSIONS, **options)

    async def offer(self, sdp: str, candidates: list[Endpoint] | None = None, **fields) -> httpx.Response:
        body = CreateSession(
            request_id=fields.pop("request_id", uuid.uuid4().hex),
            offer=sdp,
            candidates=candidates or [Endpoint(address=HOST, port=self.process.port)],
            **fields,
        )
        return await self.request("POST", "/v1/sessions", content=body.model_dump_json())

    async def create(self, sdp: str, candidates: list[Endpoint] | None = None, **fields) -> SessionCreated:
        response = await self.offer(sdp, candidates, **fields)
        assert response.status_code == 201, response.text
        return SessionCreated.model_validate_json(response.content)

    async def answer(self, offer: str) -> str:
        """What a client gets for its offer."""
        return (await self.create(offer)).answer

    def transport(
        self, ingress: list[Endpoint] | None = None, change: Callable[[str], str] = lambda offer: offer
    ) -> httpx.MockTransport:
        """What a gateway does for a `Caller`, without a gateway. ``change``: what becomes of its offer on the way."""

        async def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/hangup"):
                return httpx.Response(200)
            created = await self.create(change((await request.aread()).decode()), ingress)
            return httpx.Response(201, text=created.answer, headers={"Location": f"/x/{created.call_id}"})

        return httpx.MockTransport(handle)

    async def hang_up(self, call_id: str) -> httpx.Response:
        return await self.request("DELETE", f"/v1/sessions/{call_id}")

    async def sessions(self) -> dict[str, SessionStatus]:
        response = await self.request("GET", "/v1/sessions")
        return {one.call_id: one for one in SessionList.model_validate_json(response.content).sessions}

    async def status(self) -> SlotStatus:
        return SlotStatus.model_validate_json((await self.request("GET", "/v1/status")).content)


def make_settings(secrets_dir: Path, **fields) -> TransceiverSettings:
    return TransceiverSettings.model_validate(
        {
            "cluster_id": 7,
            "slot": 5,
            "generation": 2,
            "inner_address": HOST,
            "port": 0,
            "hint_keys_file": str(secrets_dir / "hint-keys" / "keys.json"),
            "call_keys_file": str(secrets_dir / "call-keys" / "keys.json"),
            "tls_dir": str(secrets_dir / "transceiver"),
            "accept_direct": True,
            "topology": str(secrets_dir / "topology.json"),
        }
        | fields
    )


@contextlib.asynccontextmanager
async def running_transceiver(
    secrets_dir: Path, topology: TopologyIndex | None = None, *, role: str = "gateway", sink=None, **fields
) -> AsyncIterator[RunningTransceiver]:
    process = TransceiverProcess(make_settings(secrets_dir, **fields), lambda: topology, sink)
    await process.start()
    try:
        context = client_context(secrets_dir / role)
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=10) as http:
            yield RunningTransceiver(process, http)
    finally:
        await process.stop()
