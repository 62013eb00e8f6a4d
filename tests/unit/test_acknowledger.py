"""Acknowledgements: told when they change, and before they would be forgotten."""

import asyncio
import contextlib
import json

import pytest

from tests.unit.test_relay import INNER, KEYS, topology
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.registry import ACK_TTL_S, ack_key
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.shell.process import acknowledger as module
from voicefleet_dataplane.shell.process.acknowledger import Acknowledger, acknowledge


class Sink:
    def __init__(self):
        self.records, self.forgotten, self.away = [], [], False
        self.wrote = asyncio.Event()

    async def write(self, records, forgotten):
        self.wrote.set()
        if self.away:
            raise ConnectionError("down")
        self.records += records
        self.forgotten += forgotten


@pytest.fixture
def relay():
    return Relay(INNER, KEYS, max_flows=10, idle_s=30.0)


@pytest.fixture
def acknowledger(relay):
    def content():
        return acknowledge("fra-0", relay.topology).model_copy(update={"key_epochs": relay.keys.epochs})

    return Acknowledger(9, content, Sink())


def test_it_says_which_topology_and_keys_are_in_use(relay, acknowledger):
    relay.set_topology(topology())
    record = acknowledger.due(0.0, 1000.0)
    assert record.key == ack_key(9, "fra-0")
    told = json.loads(record.value)
    assert (told["process"], told["key_epochs"], told["ring_epochs"]) == ("fra-0", [1], {"agents": 0})
    assert (told["at"], record.ttl_s) == (1000.0, ACK_TTL_S)


def test_it_is_written_on_change_and_before_it_is_forgotten(relay, acknowledger):
    assert acknowledger.due(0.0, 0.0) is not None
    assert acknowledger.due(2.0, 2.0) is None
    relay.set_keys(KeyRing({1: b"k" * 32, 2: b"n" * 32}, signing=1))
    assert json.loads(acknowledger.due(4.0, 4.0).value)["key_epochs"] == [1, 2]
    assert acknowledger.due(6.0, 6.0) is None
    assert acknowledger.due(4.0 + ACK_TTL_S / 3, 0.0) is not None


async def test_a_registry_that_is_away_is_told_everything_when_it_is_back(acknowledger, monkeypatch, caplog):
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL_S", 0.001)
    sink = acknowledger._sink
    sink.away = True
    running = asyncio.create_task(acknowledger.run())
    async with asyncio.timeout(10):
        for _ in range(3):
            sink.wrote.clear()
            await sink.wrote.wait()
        sink.away = False
        while not sink.records:
            sink.wrote.clear()
            await sink.wrote.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert sum("registry is away" in message for message in caplog.messages) == 1


async def test_leaving_takes_the_record_away_and_never_fails(acknowledger):
    await acknowledger.leave()
    assert acknowledger._sink.forgotten == [ack_key(9, "fra-0")]
    acknowledger._sink.away = True
    await acknowledger.leave()
