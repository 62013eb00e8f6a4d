"""A call's events over the control API of a real transceiver process."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.offers import CHROMIUM
from tests.support.transceiver_process import running_transceiver
from voicefleet_contract.topology import Member
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.shell.gateway.control_client import ControlClient, client_context
from voicefleet_dataplane.shell.process.event_sockets import Close
from voicefleet_dataplane.shell.transceiver.events_socket import MAX_WAITING, MAX_WAITING_CHARS, SocketWatcher


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, "sk-test-0123456789abcdef")
    return directory


async def test_a_gateway_watches_a_call_of_the_tenant_that_asks(secrets_dir):
    client = ControlClient(client_context(secrets_dir / "gateway"), 20.0)
    async with running_transceiver(secrets_dir) as transceiver:
        member = Member(slot=5, generation=2, name="t", address="127.0.0.1", port=transceiver.process.port)
        call_id = (await transceiver.create(CHROMIUM, tenant="acme")).call_id
        for wrong_id, tenant in ((call_id, "other"), (call_id, ""), ("call_x", "acme")):
            async with client.watch(member, wrong_id, tenant) as refused:
                assert refused == 404
            assert await client.hang_up(member, wrong_id, tenant) is False
        async with client.watch(member, call_id, "acme") as socket:
            assert not isinstance(socket, int)
            call = transceiver.process.calls[call_id]
            call.send_event('{"type":"hello"}')
            assert await socket.receive_json() == {"type": "hello"}
            await socket.send_str(json.dumps({"type": "to the echo"}))  # an Echo says what it hears
            assert await socket.receive_json() == {"type": "to the echo"}
            assert await client.hang_up(member, call_id, "acme")
            async with asyncio.timeout(20):
                async for _ in socket:
                    pass
            assert socket.close_code == Close.CALL_ENDED
    await client.close()


@pytest.mark.parametrize("role", ["relay", "operator"])
async def test_only_gateways_watch(secrets_dir, role):
    async with running_transceiver(secrets_dir) as transceiver:
        member = Member(slot=5, generation=2, name="t", address="127.0.0.1", port=transceiver.process.port)
        call_id = (await transceiver.create(CHROMIUM, tenant="acme")).call_id
        client = ControlClient(client_context(secrets_dir / role), 20.0)
        async with client.watch(member, call_id, "acme") as refused:
            assert refused == 403
        await client.close()


@pytest.mark.parametrize(("event", "most"), [("x", MAX_WAITING), ("x" * (MAX_WAITING_CHARS // 4), 4)])
async def test_what_waits_for_a_watcher_is_bounded_and_then_it_is_let_go(event, most):
    watcher = SocketWatcher()
    taken = [watcher.on_event(event) for _ in range(most + 1)]
    assert taken == [True] * most + [False]
    watcher.on_closed()
    for _ in range(most):
        assert await watcher.next() == event
    assert await watcher.next() is None
    assert watcher.ending == (Close.NOT_READ, "events were not read")


async def test_one_event_may_be_as_long_as_it_likes():
    watcher = SocketWatcher()
    assert watcher.on_event("x" * (2 * MAX_WAITING_CHARS))
    assert not watcher.on_event("x")
