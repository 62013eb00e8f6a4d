"""What a transceiver tells the registry, in simulated time."""

import asyncio
import json

import pytest

from tests.support.transceiver import RELAY, TOPOLOGY, World
from tests.support.transceiver_process import HOST
from voicefleet_contract.registry import SESSION_TTL_S
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_dataplane.shell.transceiver_records import Reporter

SETTINGS = TransceiverSettings(
    cluster_id=7, slot=5, generation=2, inner_address=HOST, port=1, process_name="agents-5-2", pool="agents"
)


class Sink:
    def __init__(self):
        self.fails = False
        self.writes = []
        self.wrote = asyncio.Event()

    async def write(self, records, forgotten):
        self.wrote.set()
        if self.fails:
            raise ConnectionError("away")
        self.writes.append((records, forgotten))


def make_reporter(world, sink=None):
    return Reporter(SETTINGS, world.core, lambda: TOPOLOGY, sink or Sink())


def due(reporter, now):
    records, forgotten = reporter.due(now, now + 1_000_000.0)
    return {record.key: json.loads(record.value) for record in records}, forgotten


def test_a_heartbeat_is_due_each_time_and_tells_the_load():
    world = World()
    world.connected()
    reporter = make_reporter(world)
    for now in (world.now, world.now + 2):
        heartbeat = due(reporter, now)[0]["vf1:7:hb:5:2"]
        assert (heartbeat["sessions"], heartbeat["capacity"], heartbeat["state"]) == (1, 10, "active")


def test_a_call_is_written_when_its_state_changes_and_before_it_would_be_forgotten():
    world = World()
    caller = world.call()
    key = f"vf1:7:call:{caller.session.agreed.call_id}"
    reporter = make_reporter(world)
    assert due(reporter, 100.0)[0][key]["state"] == "new"
    assert key not in due(reporter, 102.0)[0]
    caller.check()
    world.settle()
    assert due(reporter, 104.0)[0][key]["state"] == "connected"
    assert key not in due(reporter, 106.0)[0]
    assert key in due(reporter, 104.0 + SESSION_TTL_S / 2)[0]


def test_a_record_shows_the_clients_network_and_the_relay_but_no_address():
    world = World()
    caller = world.connected()
    records, _ = due(make_reporter(world), world.now)
    record = records[f"vf1:7:call:{caller.session.agreed.call_id}"]
    assert record["client_network"] == "198.51.100.0/24"
    assert record["relay"] == "fra-1"
    assert caller.address.host not in json.dumps(record)
    assert RELAY.host not in json.dumps(record)


def test_a_call_that_is_over_is_taken_away_once():
    world = World()
    caller = world.connected()
    call_id = caller.session.agreed.call_id
    reporter = make_reporter(world)
    due(reporter, 100.0)
    world.core.hang_up(call_id)
    assert due(reporter, 102.0)[1] == [f"vf1:7:call:{call_id}"]
    assert due(reporter, 104.0)[1] == []


def test_the_acknowledgement_is_written_at_once_when_the_topology_or_a_key_changes():
    world = World()
    reporter = make_reporter(world)
    key = "vf1:7:ack:agents-5-2"
    assert due(reporter, 100.0)[0][key]["topology_revision"] == 3
    assert key not in due(reporter, 102.0)[0]
    world.core.hint_keys = type(world.core.hint_keys)({1: b"h" * 32, 2: b"i" * 32}, 1)
    assert due(reporter, 104.0)[0][key]["key_epochs"] == [1, 2]


async def test_a_registry_that_was_away_is_told_everything_when_it_is_back(monkeypatch, caplog):
    monkeypatch.setattr("voicefleet_dataplane.shell.transceiver_records.HEARTBEAT_INTERVAL_S", 0.0)
    world = World()
    caller = world.connected()
    sink = Sink()
    sink.fails = True
    task = asyncio.create_task(make_reporter(world, sink).run())
    for _ in range(3):
        sink.wrote.clear()
        await asyncio.wait_for(sink.wrote.wait(), 5)
    sink.fails = False
    sink.wrote.clear()
    async with asyncio.timeout(5):
        while not sink.writes:
            await sink.wrote.wait()
            sink.wrote.clear()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    keys = [record.key for record in sink.writes[0][0]]
    assert f"vf1:7:call:{caller.session.agreed.call_id}" in keys
    assert sum("the registry is away" in message for message in caplog.messages) == 1
