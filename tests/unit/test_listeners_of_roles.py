"""Every TCP listener of every process is bounded: a megabyte of headers is refused, and a flood leaves others room."""

import asyncio
import contextlib
import re
import ssl
from pathlib import Path

import pytest

from tests.support.raw_clients import PATIENCE_S, read_answer, read_to_end
from tests.support.relay_process import Owner, running_relay
from tests.support.transceiver_process import running_transceiver
from tests.unit.test_operator_shell import store
from tests.unit.test_relay_workers import running as running_workers
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.shell.gateway.control_client import client_context
from voicefleet_operator.cluster.watching import Watches
from voicefleet_operator.handlers.health import Health
from voicefleet_operator.handlers.metrics import LoopMetrics

ROOT = Path(__file__).parents[2]
ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
FLOOD = 100  # more than one address may have
OF_ONE_ADDRESS = 64


@contextlib.asynccontextmanager
async def relay(directory):
    owner = Owner(1)
    async with running_relay(directory, owner) as one:
        yield one.inner.port, None
    owner.socket.close()


@contextlib.asynccontextmanager
async def relay_of_workers(directory):
    async with running_workers(directory) as fleet:
        yield fleet.relay.inner.port, None


@contextlib.asynccontextmanager
async def transceiver(directory):
    write_dev_secrets(directory, "sk-test-0123456789abcdef")
    async with running_transceiver(directory) as one:
        yield one.process.port, client_context(directory / "gateway")


@contextlib.asynccontextmanager
async def operator(directory):
    metrics = LoopMetrics()
    health = Health(store(), Watches({}, lambda: 0.0), metrics)
    await health.start("127.0.0.1", 0)
    try:
        yield health._runner.addresses[0][1], None
    finally:
        await health.stop()


ROLES = pytest.mark.parametrize("role", [relay, relay_of_workers, transceiver, operator], ids=lambda one: one.__name__)


async def connect(port: int, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1"):
    name = {"server_hostname": "transceiver.voicefleet.internal"} if tls else {}
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=(source, 0), **name)


@ROLES
async def test_a_megabyte_of_headers_is_refused(role, tmp_path):
    async with role(tmp_path) as (port, tls):
        reader, writer = await connect(port, tls)
        writer.write(ASK + b"X: " + b"a" * 7_000 + b"\r\nY: " + b"a" * 7_000 + b"\r\nZ: " + b"a" * 7_000)
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 431 ")
        writer.transport.abort()


@ROLES
async def test_a_flood_of_one_address_leaves_probes_and_scrapes_through(role, tmp_path):
    async with role(tmp_path) as (port, tls):
        flood = [await connect(port, source="127.0.0.2") for _ in range(FLOOD)]
        for reader, _ in flood[OF_ONE_ADDRESS:]:
            assert await read_to_end(reader) == b""
        reader, writer = await connect(port, tls)
        writer.write(ASK + b"\r\n")
        assert (await read_answer(reader))[0] in (200, 404)  # the control API has no /healthz
        for _, one in [*flood, (reader, writer)]:
            one.transport.abort()


def test_no_process_listens_without_bounds():
    """What opens a TCP or Unix listener stands in one package."""
    opens = re.compile(r"\b(TCPSite|SockSite|UnixSite|AppRunner\(|start_server|start_unix_server|create_server)\b")
    for side in ("dataplane", "operator"):
        for path in (ROOT / side).rglob("*.py"):
            if "voicefleet_listener" not in path.parts:
                assert not opens.search(path.read_text()), path
