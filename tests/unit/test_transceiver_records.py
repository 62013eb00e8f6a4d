"""What a transceiver tells the registry, in simulated time."""

import asyncio
import json

import pytest

from tests.support.transceiver import RELAY, TOPOLOGY, World
from tests.support.transceiver_process import HOST
from voicefleet_contract.addresses import Address
from voicefleet_contract.registry import FIRST_MEDIA_S, SESSION_TTL_S
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.shell.transceiver.reporter import Reporter
from voicefleet_dataplane.shell.transceiver.session_records import SessionTeller

SETTINGS = TransceiverSettings(
    cluster_id=7, slot=5, generation=2, inner_address=HOST, port=1, process_name="agents-5-2", pool="agents"
)


class Sink:
    def __init__(self):
        self.fails = False
        self.writes = []
        self.commands = []
        self.wrote = asyncio.Event()

    async def write(self, records, forgotten):
        self.wrote.set()
        if self.fails:
            raise ConnectionError("away")
        self.writes.append((records, forgotten))

    async def execute(self, commands):
        self.commands += commands
        return []


def make_reporter(world, sink=None):
    return Reporter(SETTINGS, world.core, lambda: TOPOLOGY, sink or Sink())


def due(reporter, now):
    records, telling = reporter.due(now, now + 1_000_000.0)
    return {record.key: json.loads(record.value) for record in records}, telling


def told(telling):
    """call id → record of what a telling writes."""
    found = {}
    for command in telling.state:
        if command[0] == "HSET":
            found |= {call_id: json.loads(text) for call_id, text in zip(command[2::2], command[3::2], strict=True)}
    return found


def events(telling):
    return [(command[7], json.loads(command[9])["call_id"]) for command in telling.events]


def test_a_heartbeat_is_due_each_time_and_tells_the_load_and_where_its_sessions_are():
    world = World()
    world.connected()
    reporter = make_reporter(world)
    for now in (world.now, world.now + 2):
        heartbeat = due(reporter, now)[0]["vf1:{7:5}:hb:2"]
        assert (heartbeat["sessions"], heartbeat["capacity"], heartbeat["state"]) == (1, 10, "active")
        assert heartbeat["counts"]["state"] == {"connected": 1}
        assert heartbeat["counts"]["relay"] == {"fra-1": 1}


def test_a_heartbeat_counts_calls_whose_media_came_up_and_those_whose_did_not_in_time():
    world = World()
    world.connected()
    silent = [world.call(), world.call(), world.call()]
    reporter = make_reporter(world)

    def counted(later: float) -> tuple[int, int]:
        heartbeat = due(reporter, world.now + later)[0]["vf1:{7:5}:hb:2"]
        return heartbeat["media_up"], heartbeat["media_failed"]

    assert counted(FIRST_MEDIA_S - 1) == (1, 0)
    assert counted(FIRST_MEDIA_S + 1) == (1, 3)
    world.core.calls.hang_up(silent[0].session.agreed.call_id)  # its caller thought better of it
    assert counted(FIRST_MEDIA_S + 1) == (1, 2)
    silent[1].session.end(EndReason.SETUP_TIMEOUT)
    assert counted(FIRST_MEDIA_S + 1) == (1, 2)


def test_a_session_is_told_when_its_state_changes_and_before_it_would_be_forgotten():
    world = World()
    caller = world.call()
    call_id = caller.session.agreed.call_id
    reporter = make_reporter(world)
    first = due(reporter, 100.0)[1]
    assert told(first)[call_id]["state"] == "new"
    assert events(first) == [("ADDED", call_id)]
    assert told(due(reporter, 102.0)[1]) == {}
    caller.check()
    world.settle()
    second = due(reporter, 104.0)[1]
    assert told(second)[call_id]["state"] == "connected"
    assert events(second) == [("MODIFIED", call_id)]
    assert ("SREM", "vf1:{7:5}:ix:2:state:new", call_id) in second.state
    assert ("SADD", "vf1:{7:5}:ix:2:state:connected", call_id) in second.state
    assert told(due(reporter, 106.0)[1]) == {}
    refreshed = due(reporter, 104.0 + SESSION_TTL_S / 2)[1]
    assert call_id in told(refreshed)
    assert refreshed.events == []  # a new RTT is no event


def test_every_telling_keeps_what_stands_alive():
    world = World()
    world.connected()
    reporter = make_reporter(world)
    due(reporter, 100.0)
    state = due(reporter, 102.0)[1].state
    assert ("EXPIRE", "vf1:{7:5}:calls:2", SESSION_TTL_S) in state
    assert ("EXPIRE", "vf1:{7:5}:ix:2:state:connected", SESSION_TTL_S) in state
    assert ("ZADD", "vf1:{7}:slots", 1_000_102.0, "5:2") in state


def test_a_record_shows_the_clients_network_and_the_relay_but_no_address():
    world = World()
    caller = world.connected()
    record = told(due(make_reporter(world), world.now)[1])[caller.session.agreed.call_id]
    assert record["client_network"] == "198.51.100.0/24"
    assert record["relay"] == "fra-1"
    assert caller.address.host not in json.dumps(record)
    assert RELAY.host not in json.dumps(record)


def test_a_session_that_is_over_is_taken_away_once():
    world = World()
    caller = world.connected()
    call_id = caller.session.agreed.call_id
    reporter = make_reporter(world)
    due(reporter, 100.0)
    world.core.calls.hang_up(call_id)
    over = due(reporter, 102.0)[1]
    assert ("HDEL", "vf1:{7:5}:calls:2", call_id) in over.state
    assert events(over) == [("DELETED", call_id)]
    assert due(reporter, 104.0)[1].events == []


def test_after_a_failed_write_everything_is_told_as_new_and_what_ended_meanwhile_is_taken_away():
    world = World()
    clients = (Address("198.51.100.1", 40_000), Address("198.51.100.1", 40_001))
    stays, ends = (world.call(client).session.agreed.call_id for client in clients)
    teller = SessionTeller(SETTINGS, world.core, lambda: TOPOLOGY)
    teller.due(100.0, 100.0)
    teller.note_failed()
    world.core.calls.hang_up(ends)
    again = teller.due(102.0, 102.0)
    assert set(told(again)) == {stays}
    assert events(again) == [("ADDED", stays), ("DELETED", ends)]
    assert teller.due(104.0, 104.0).events == []


def test_who_finds_that_the_registry_forgot_it_tells_everything_again():
    world = World()
    call_id = world.connected().session.agreed.call_id
    teller = SessionTeller(SETTINGS, world.core, lambda: TOPOLOGY)
    first = teller.due(100.0, 100.0)
    teller.note_answers(first, [1 if command[0] == "ZADD" else 0 for command in first.state])  # new: no surprise
    second = teller.due(102.0, 102.0)
    assert second.events == []
    teller.note_answers(second, [1 if command[0] == "ZADD" else 0 for command in second.state])
    assert events(teller.due(104.0, 104.0)) == [("ADDED", call_id)]


def test_who_leaves_takes_its_sessions_along():
    world = World()
    call_id = world.connected().session.agreed.call_id
    teller = SessionTeller(SETTINGS, world.core, lambda: TOPOLOGY)
    teller.due(100.0, 100.0)
    left = teller.leave()
    assert ("DEL", "vf1:{7:5}:calls:2") in left.state
    assert ("ZREM", "vf1:{7}:slots", "5:2") in left.state
    assert events(left) == [("DELETED", call_id)]


def test_the_acknowledgement_is_written_at_once_when_the_topology_or_a_key_changes():
    world = World()
    reporter = make_reporter(world)
    key = "vf1:7:ack:agents-5-2"
    assert due(reporter, 100.0)[0][key]["topology_revision"] == 3
    assert key not in due(reporter, 102.0)[0]
    world.core.calls.hint_keys = type(world.core.calls.hint_keys)({1: b"h" * 32, 2: b"i" * 32}, 1)
    assert due(reporter, 104.0)[0][key]["key_epochs"] == [1, 2]


async def test_a_registry_that_was_away_is_told_everything_when_it_is_back(monkeypatch, caplog):
    monkeypatch.setattr("voicefleet_dataplane.shell.transceiver.reporter.HEARTBEAT_INTERVAL_S", 0.0)
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
        while not sink.commands:
            await sink.wrote.wait()
            sink.wrote.clear()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hashes = [command for command in sink.commands if command[0] == "HSET"]
    assert caller.session.agreed.call_id in hashes[0]
    assert sum("the registry is away" in message for message in caplog.messages) == 1
