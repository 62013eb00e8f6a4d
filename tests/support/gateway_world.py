"""A gateway over real HTTP with a topology that the test publishes; its transceivers are tests/support/fake_transceiver.py."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from voicefleet_contract.settings import GatewaySettings
from voicefleet_contract.topology import Pool, Relay, Topology, TopologyIndex
from voicefleet_dataplane.shell.gateway.api.fleet import Registry
from voicefleet_dataplane.shell.gateway.process import Gateway

KEY = "sk-test-0123456789abcdef"
OFFER = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
SDP = {"Content-Type": "application/sdp"}
AUTHORISED = SDP | {"Authorization": f"Bearer {KEY}"}
CALLS = "/v1/realtime/calls"


def relay(name: str, region: str, latitude: float, longitude: float, **fields) -> Relay:
    endpoint = {"address": f"203.0.113.{len(name)}", "port": 3478}
    return Relay(
        name=name,
        region=region,
        latitude=latitude,
        longitude=longitude,
        **({"advertise": [endpoint], "inner": [endpoint]} | fields),
    )


RELAYS = (relay("fra", "eu", 50.1, 8.7), relay("iad1", "us", 38.9, -77.5))


class Fleet:
    """A gateway, its topology and a client."""

    def __init__(self, gateway: Gateway, http: httpx.AsyncClient, inner: httpx.AsyncClient) -> None:
        self.gateway, self.http, self.inner = gateway, http, inner
        self.index: TopologyIndex | None = None

    def publish(self, *members, relays: tuple[Relay, ...] = RELAYS, cluster: int = 7) -> None:
        pools = (Pool(name="default", members=members), Pool(name="empty"))
        self.index = TopologyIndex(Topology(cluster=cluster, relays=relays, pools=pools))

    async def offer(self, path: str = CALLS, body: str | bytes = OFFER, **headers: str) -> httpx.Response:
        return await self.http.post(path, content=body, headers=AUTHORISED | headers)


@contextlib.asynccontextmanager
async def fleet(secrets_dir: Path, registry: Registry | None = None, **fields) -> AsyncIterator[Fleet]:
    known = {
        "cluster_id": 7,
        "public_address": "127.0.0.1",
        "public_port": 0,
        "inner_address": "127.0.0.1",
        "inner_port": 0,
        "https_dir": str(secrets_dir / "https"),
        "tls_dir": str(secrets_dir / "gateway"),
        "call_keys_file": str(secrets_dir / "call-keys" / "keys.json"),
        "api_keys_dir": str(secrets_dir / "api-keys"),
        "region": "eu",
        "owner_timeout_s": 20,  # no test waits for it, but the one that says so
        "calls_per_second_per_client": 1000,
        "calls_per_second_per_key": 1000,
    }
    holder: list[Fleet] = []
    gateway = Gateway(GatewaySettings(**(known | fields)), lambda: holder[0].index, registry)
    await gateway.start()
    trust = ssl.create_default_context(cafile=str(secrets_dir / "https" / "ca.crt"))
    async with (
        httpx.AsyncClient(base_url=f"https://127.0.0.1:{gateway.public_port}", verify=trust) as http,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.inner_port}") as inner,
    ):
        holder.append(Fleet(gateway, http, inner))
        try:
            yield holder[0]
        finally:
            await gateway.stop(grace_s=0)
