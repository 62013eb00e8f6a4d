"""A gateway's listeners under callers without a key: what the attack of 600 half-open connections was, and the next caller."""

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest

from tests.support.fake_transceiver import FakeTransceiver
from tests.support.gateway_world import AUTHORISED, CALLS, KEY, OFFER, fleet
from tests.support.raw_clients import PATIENCE_S, read_answer, read_to_end
from voicefleet_contract.settings import GatewaySettings, SettingsError
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets

LOAD_BALANCER = "127.0.0.1/32"


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    return directory


def abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def connect(stack: contextlib.AsyncExitStack, port: int, source: str = "127.0.0.1"):
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    stack.callback(abort, writer)  # and so held: a writer that nobody holds closes by itself
    return reader, writer


def drops(f, listener: str, reason: str) -> float:
    registry = f.gateway._metrics.registry
    value = registry.get_sample_value("voicefleet_listener_drops_total", {"listener": listener, "reason": reason})
    return value or 0.0


async def test_600_half_open_connections_of_one_address_keep_nobody_else_out(secrets_dir: Path) -> None:
    async with (
        fleet(secrets_dir) as f,
        FakeTransceiver(1, secrets_dir) as one,
        contextlib.AsyncExitStack() as stack,
    ):
        f.publish(one.member())
        flood = [await connect(stack, f.gateway.public_port, "127.0.0.2") for _ in range(600)]
        async with asyncio.timeout(PATIENCE_S):
            while drops(f, "public", "connections_of_address") < 600 - 64:
                await asyncio.sleep(0.02)
        response = await f.offer()
        assert response.status_code == 201
        assert len(flood) == 600


async def test_half_open_tls_and_unfinished_heads_of_callers_end(secrets_dir: Path) -> None:
    async with fleet(secrets_dir, unfinished_timeout_s=0.2) as f, contextlib.AsyncExitStack() as stack:
        halves = [await connect(stack, f.gateway.public_port) for _ in range(20)]
        for reader, _ in halves:
            assert await read_to_end(reader) == b""
        assert drops(f, "public", "handshake") == 20
        assert (await f.http.get("/healthz")).status_code in (200, 503)


@pytest.mark.parametrize("listener", ["public", "inner"])
async def test_a_head_of_a_megabyte_gets_431(secrets_dir: Path, listener: str) -> None:
    async with fleet(secrets_dir, https_dir="") as f, contextlib.AsyncExitStack() as stack:
        port = f.gateway.public_port if listener == "public" else f.gateway.inner_port
        reader, writer = await connect(stack, port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(ConnectionError):
            for index in range(128):
                writer.write(b"X-%d: " % index + b"a" * 8000 + b"\r\n")
                await writer.drain()
        await read_to_end(reader)
        assert drops(f, listener, "head_bytes") == 1


async def test_a_flood_of_the_inner_port_leaves_the_kubelets_probes_through(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f, contextlib.AsyncExitStack() as stack:
        for _ in range(300):
            await connect(stack, f.gateway.inner_port, "127.0.0.2")
        assert (await f.inner.get("/healthz")).status_code == 200
        assert drops(f, "inner", "connections_of_address") == 300 - 64


async def test_callers_with_a_key_hold_no_place(secrets_dir: Path) -> None:
    async with (
        fleet(secrets_dir, https_dir="", max_unproved_connections_per_client=1) as f,
        FakeTransceiver(1, secrets_dir) as one,
        contextlib.AsyncExitStack() as stack,
    ):
        f.publish(one.member())
        for _ in range(5):
            reader, writer = await connect(stack, f.gateway.public_port)
            head = "".join(f"{name}: {value}\r\n" for name, value in AUTHORISED.items())
            writer.write(
                f"POST {CALLS} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(OFFER)}\r\n\r\n{OFFER}".encode()
            )
            assert (await read_answer(reader))[0] == 201


async def test_behind_a_load_balancer_rates_are_of_the_client_that_it_names(secrets_dir: Path) -> None:
    fields = {"https_dir": "", "proxy_protocol_from": LOAD_BALANCER, "calls_per_second_per_client": 0.001}
    async with fleet(secrets_dir, **fields) as f, contextlib.AsyncExitStack() as stack:
        f.publish()
        said = []
        for client in (1, 1, 2):
            reader, writer = await connect(stack, f.gateway.public_port)
            writer.write(b"PROXY TCP4 203.0.113.%d 192.0.2.1 4711 443\r\n" % client)
            writer.write(f"POST {CALLS} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            said.append((await read_answer(reader))[0])
        assert said == [401, 429, 401]


async def test_a_load_balancer_that_names_nobody_is_served_as_itself(secrets_dir: Path) -> None:
    fields = {"https_dir": "", "proxy_protocol_from": LOAD_BALANCER, "max_unproved_connections_per_client": 1}
    async with fleet(secrets_dir, **fields) as f, contextlib.AsyncExitStack() as stack:
        for _ in range(3):  # its own health checks
            reader, writer = await connect(stack, f.gateway.public_port)
            writer.write(b"PROXY UNKNOWN\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await read_answer(reader))[0] in (200, 503)


@pytest.mark.parametrize("name", ["PROXY_PROTOCOL_FROM", "TRUSTED_FORWARDERS"])
def test_a_network_that_is_none_is_told_with_what_to_write(name: str) -> None:
    environment = {f"VOICEFLEET_{name}": "10.0.0.0/33", "VOICEFLEET_CLUSTER_ID": "1"}
    with pytest.raises(SettingsError, match=rf"VOICEFLEET_{name}: .*10\.0\.0\.0/33.*write networks, for example"):
        GatewaySettings.from_environment(environment)


async def test_an_http_client_sees_nothing_of_all_this(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f:
        for _ in range(5):
            assert (await f.http.get("/openapi.json")).status_code == 200
        with pytest.raises(httpx.RequestError):
            await f.http.get(f"http://127.0.0.1:{f.gateway.public_port}/healthz")
