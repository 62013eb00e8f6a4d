"""A relay of several workers, real processes on loopback: one port, separate flows, a death that costs the others nothing."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.relay_process import CLUSTER, HOST, Owner, Peer, RunningRelay, until
from voicefleet_contract.registry import Acknowledgement
from voicefleet_contract.settings import RelaySettings, SettingsError
from voicefleet_dataplane.shell.process.udp import bind_shared, bind_udp
from voicefleet_dataplane.shell.relay.workers import RelayWorkers, common, worker_settings

RTP = b"\x80\x6f" + bytes(160)
CLIENTS = 12


class Fleet:
    def __init__(self, directory):
        self.owner = Owner(1)
        self.files = RunningRelay(directory, workers=2)
        self.files.write_topology(self.owner.member())
        self.relay = RelayWorkers(self.files.settings)
        self.clients = [Peer() for _ in range(CLIENTS)]

    async def get(self, path):
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.get(f"http://{HOST}:{self.relay.inner.port}{path}")

    async def ready(self):
        async with asyncio.timeout(30):
            while (await self.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)

    async def bind(self, client):
        """Check until the owner answers; gives the worker's inner address."""
        for _ in range(100):
            client.send(self.owner.check(), self.relay.public)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    while True:
                        address, inner, _ = await self.owner.receive_spp()
                        if address == client.address:
                            return inner
        raise AssertionError("no worker forwarded the check")

    async def passes(self, client, inner):
        client.send(RTP, self.relay.public)
        while (heard := await self.owner.receive_spp())[2] != RTP:
            pass
        assert heard == (client.address, inner, RTP)
        self.owner.send_spp(RTP, client.address, inner)
        assert await client.receive() == (RTP, self.relay.public)

    def close(self):
        for peer in (self.owner, *self.clients):
            peer.socket.close()


@contextlib.asynccontextmanager
async def running(directory):
    fleet = Fleet(directory)
    await fleet.relay.start(patience_s=0)
    try:
        await fleet.ready()
        yield fleet
    finally:
        await fleet.relay.stop()
        fleet.close()


async def test_clients_are_spread_and_a_worker_that_dies_costs_the_others_nothing(tmp_path):
    async with running(tmp_path) as fleet:
        inners = {client: await fleet.bind(client) for client in fleet.clients}
        ports = {inner.port for inner in inners.values()}
        assert ports == {fleet.relay.inner.port, fleet.relay.inner.port + 1}  # 12 clients in one worker: one in 2,048
        for client, inner in inners.items():
            await fleet.passes(client, inner)
        text = (await fleet.get("/metrics")).text
        assert 'voicefleet_relay_flows{worker="0"}' in text
        assert 'voicefleet_relay_worker_restarts_total{worker="1"} 0.0' in text
        said = await fleet.relay.acknowledgement()
        assert (said.process, said.key_epochs) == (fleet.files.settings.process_name, (1,))
        assert said.datapath == "Userspace"
        assert said.datapath_reason

        dies, stays = fleet.relay._workers
        died = dies._process.pid
        os.kill(died, signal.SIGKILL)
        await until(lambda: dies.restarts == 1)
        for client, inner in inners.items():
            if inner.port == fleet.relay.inner.port + stays.index:
                await fleet.passes(client, inner)
        for client, inner in inners.items():
            if inner.port == fleet.relay.inner.port + dies.index:
                assert await fleet.bind(client) == inner  # the same worker, by its next check
                await fleet.passes(client, inner)
        assert dies._process.pid != died
        await fleet.ready()
        leaving = asyncio.create_task(fleet.relay.leave())
        await leaving
        assert {worker._process.returncode for worker in fleet.relay._workers} == {0}


async def test_the_command_runs_workers_that_become_ready_and_leave(tmp_path):
    """On the loop that is shipped (uvloop), with settings from the environment."""
    files = RunningRelay(tmp_path, workers=2, public_port=free_port(), inner_port=free_port())
    files.write_topology()
    relay = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("voicefleet")), "relay"),
        env={**os.environ, **files.settings.to_environment()},
    )
    try:
        async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as http:
            answer = "nothing yet"
            while answer != "ready\n":
                assert relay.returncode is None, answer
                with contextlib.suppress(httpx.TransportError):
                    answer = (await http.get(f"http://{HOST}:{files.settings.inner_port}/readyz")).text
                await asyncio.sleep(0.05)
    finally:
        relay.terminate()
        code = await relay.wait()
    assert code == 0


def free_port():
    with bind_udp(HOST, 0) as one:
        return one.getsockname()[1]


async def test_a_second_relay_on_the_port_is_an_error_whatever_kind_it_is(tmp_path):
    made, lock = bind_shared(HOST, 0, 2)
    port = made[0].getsockname()[1]
    for other in (lambda: bind_shared(HOST, port, 2), lambda: bind_udp(HOST, port)):
        with pytest.raises(OSError, match=f"cannot bind UDP {HOST}:{port}"):
            other()
    made[0].close()  # even where the kernel would let it in
    made[1].close()
    with pytest.raises(OSError, match="another relay"):
        bind_shared(HOST, port, 2)
    lock.close()
    with bind_udp(HOST, port), pytest.raises(OSError, match="cannot bind UDP"):
        bind_shared(HOST, port, 2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind((HOST, port))
        with pytest.raises(OSError, match="cannot bind UDP"):
            bind_shared(HOST, port, 2)


async def test_a_port_that_stays_taken_leaves_nothing_open(tmp_path):
    with bind_udp(HOST, 0) as taken:
        files = RunningRelay(tmp_path, workers=2, public_port=taken.getsockname()[1])
        with pytest.raises(OSError, match="cannot bind UDP"):
            await RelayWorkers(files.settings).start(patience_s=0)


def test_what_is_bounded_for_the_relay_is_shared_out():
    settings = RelaySettings(cluster_id=1, inner_address=HOST, workers=3, max_flows=100, process_name="pod")
    one = worker_settings(settings, 2)
    assert (one.workers, one.max_flows, one.process_name) == (1, 34, "pod/2")
    assert one.failed_checks_per_second * 3 == settings.failed_checks_per_second


def test_several_workers_and_the_kernel_path_are_refused_by_name():
    with pytest.raises(SettingsError, match="VOICEFLEET_DATAPATH: .*VOICEFLEET_WORKERS"):
        RelaySettings.from_environment(
            {
                "VOICEFLEET_CLUSTER_ID": str(CLUSTER),
                "VOICEFLEET_INNER_ADDRESS": HOST,
                "VOICEFLEET_WORKERS": "2",
                "VOICEFLEET_DATAPATH": "TC",
            }
        )


def test_only_what_every_worker_has_is_acknowledged():
    one = Acknowledgement(
        process="a", topology_revision=5, ring_epochs={"x": 2, "y": 1}, key_epochs=(1, 2), flows_left=3, at=0
    )
    other = Acknowledgement(process="b", topology_revision=4, ring_epochs={"x": 3}, key_epochs=(2, 3), at=0)
    assert common("pod", [one, other]) == Acknowledgement(
        process="pod", topology_revision=4, ring_epochs={"x": 2}, key_epochs=(2,), at=0
    )
    assert common("pod", [one, one]).flows_left == 6
