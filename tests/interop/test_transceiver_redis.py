"""A transceiver and a real Redis that comes and goes."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as redis

from tests.support.offers import CHROMIUM
from tests.support.transceiver_process import HOST, RunningTransceiver, make_settings, running_transceiver
from voicefleet_contract.registry import Heartbeat, events_key, heartbeat_key, sessions_key
from voicefleet_contract.sessions import SessionRecord
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.shell.process.redis_sink import RedisSink

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, "sk-test-0123456789abcdef")
    (directory / "redis-password").write_text("a password\n")
    return directory


@contextlib.asynccontextmanager
async def running_redis(port: int) -> AsyncIterator[redis.Redis]:
    process = await asyncio.create_subprocess_exec(
        *("redis-server", "--port", str(port), "--bind", HOST, "--save", "", "--requirepass", "a password"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    client = redis.Redis(host=HOST, port=port, password="a password")
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    await client.ping()
                    break
                except redis.ConnectionError:
                    await asyncio.sleep(0.02)
        yield client
    finally:
        await client.aclose()
        process.kill()
        await process.wait()


async def wait_for(client: redis.Redis, key: str) -> bytes:
    async with asyncio.timeout(10):
        while True:
            if (value := await client.get(key)) is not None:
                return value
            await asyncio.sleep(0.02)


async def wait_for_session(client: redis.Redis, call_id: str) -> bytes:
    async with asyncio.timeout(10):
        while True:
            if (value := await client.hget(sessions_key(7, 5, 2), call_id)) is not None:
                return value
            await asyncio.sleep(0.02)


async def test_records_come_go_and_come_back_and_calls_never_notice(secrets_dir, monkeypatch):
    monkeypatch.setattr("voicefleet_dataplane.shell.transceiver.reporter.HEARTBEAT_INTERVAL_S", 0.05)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    fields = {
        "redis_url": f"redis://{HOST}:{port}",
        "redis_password_file": str(secrets_dir / "redis-password"),
        "process_name": "agents-5-2",
    }
    sink = RedisSink(make_settings(secrets_dir, **fields))
    transceiver: RunningTransceiver
    async with running_transceiver(secrets_dir, sink=sink, **fields) as transceiver:
        # Redis is not there yet: the call is taken all the same.
        first = await transceiver.create(CHROMIUM)
        async with running_redis(port) as client:
            heartbeat = Heartbeat.model_validate_json(await wait_for(client, heartbeat_key(7, 5, 2)))
            assert (heartbeat.slot, heartbeat.state) == (5, "active")
            record = SessionRecord.model_validate_json(await wait_for_session(client, first.call_id))
            assert record.pod == "agents-5-2"
        second = await transceiver.create(CHROMIUM)
        assert (await transceiver.hang_up(first.call_id)).status_code == 200
        async with running_redis(port) as client:
            await wait_for_session(client, second.call_id)
            assert await client.hget(sessions_key(7, 5, 2), first.call_id) is None
            await transceiver.process.stop()
            assert await client.keys("*") == [events_key(7).encode()]
    await sink.close()
