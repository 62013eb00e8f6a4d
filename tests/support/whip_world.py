"""A gateway and a real transceiver behind it, asked as WHIP and WHEP clients ask."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from tests.support.gateway_world import KEY, Fleet, fleet
from tests.support.offers import CHROMIUM
from tests.support.transceiver_process import HOST, RunningTransceiver, running_transceiver
from voicefleet_contract.topology import Member

OTHER_KEY = "sk-other-0123456789abcdef"
SENDONLY = CHROMIUM.split("m=application")[0].replace("a=sendrecv", "a=sendonly").replace("BUNDLE 0 1", "BUNDLE 0")
SENDRECV = SENDONLY.replace("a=sendonly", "a=sendrecv")
RECVONLY = SENDONLY.replace("a=sendonly", "a=recvonly")
CANDIDATE = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\n"


def bearer(key: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def fragment(ufrag: str = "aB3+", candidates: str = CANDIDATE) -> str:
    head = f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:0123456789abcdefghijkl+/\r\n"
    return head + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" + candidates


def code_of(response: httpx.Response) -> str:
    return response.json()["error"]["code"]


class Publisher:
    """A WHIP client, and the transceiver that it ends at."""

    def __init__(self, f: Fleet, owner: RunningTransceiver) -> None:
        self.f, self.owner = f, owner

    async def post(self, sdp: str = SENDONLY, path: str = "/whip", **headers: str) -> httpx.Response:
        known = bearer() | {"Content-Type": "application/sdp"}
        return await self.f.http.post(path, content=sdp, headers=known | headers)

    async def publish(self, sdp: str = SENDONLY, path: str = "/whip") -> httpx.Response:
        response = await self.post(sdp, path)
        assert response.status_code == 201, response.text
        return response

    async def patch(self, url: str, body: str | bytes, if_match: str | None = "*", **headers: str) -> httpx.Response:
        known = bearer() | {"Content-Type": "application/trickle-ice-sdpfrag"}
        if if_match is not None:
            known["If-Match"] = if_match
        return await self.f.http.patch(url, content=body, headers=known | headers)

    def calls(self) -> int:
        return len(self.owner.process.calls)


@contextlib.asynccontextmanager
async def publisher(secrets_dir: Path, **fields) -> AsyncIterator[Publisher]:
    async with fleet(secrets_dir, **fields) as f, running_transceiver(secrets_dir) as owner:
        f.publish(Member(name="agents-5-2", slot=5, generation=2, address=HOST, port=owner.process.port))
        yield Publisher(f, owner)
