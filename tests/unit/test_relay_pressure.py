"""How near a relay is to its limit, from what the kernel says; and what the collector is let look at."""

import gc
import socket

import pytest

from tests.support.relay_process import HOST, Owner, Peer, running_relay, until
from voicefleet_dataplane.shell.relay.pressure import Pressure, queue_drops


@pytest.fixture(autouse=True, scope="module")
def collector():
    """Let relays of this module collect; what they unfreeze is frozen again for the tests that follow."""
    yield
    gc.collect()
    gc.freeze()


def bound():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((HOST, 0))
    return one


def test_datagrams_that_found_no_room_are_counted():
    with bound() as full, bound() as sender:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        pressure = Pressure({"public": full})
        assert pressure.queue_drops == {"public": 0}
        for _ in range(100):
            sender.sendto(bytes(1000), full.getsockname())
        assert 0 < queue_drops(full) < 100
        assert pressure.queue_drops == {"public": queue_drops(full)}
    assert pressure.queue_drops == {"public": 0}  # closed: nothing to say, nothing raised


def test_what_was_looked_at_is_not_looked_at_again_and_new_garbage_goes():
    gc.collect()
    pressure = Pressure({})
    try:
        kept = [[number] for number in range(1000)]
        pressure.look(flows=1_000_000)
        assert gc.get_freeze_count() > len(kept)
        assert not gc.isenabled()
        looked_at = len(gc.get_objects())  # frozen ones are not among them
        assert looked_at < len(kept)
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        pressure.look(flows=1_000_000)
        assert gc.collect() == 0
    finally:
        pressure.stop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


async def test_a_relay_says_how_busy_it_is_and_what_its_queues_dropped(tmp_path):
    owner, client = Owner(1), Peer()
    async with running_relay(tmp_path, owner) as relay:
        await until(lambda: not gc.isenabled())
        client.send(owner.check(), relay.public)
        await owner.receive_spp()
        samples = await relay.metrics()
        assert samples["voicefleet_relay_busy_share"] >= 0
        assert {samples[f'voicefleet_relay_queue_drops_total{{socket="{name}"}}'] for name in ("public", "inner")} == {
            0
        }
    assert gc.isenabled()
    owner.socket.close()
    client.socket.close()
