"""The UDP socket of a transceiver and the process around it."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from tests.support.transceiver_process import HOST, make_settings
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.shell.transceiver.media_socket import PACKETS_PER_WAKE, MediaSocket
from voicefleet_dataplane.shell.transceiver.process import run_transceiver


class Core:
    """A core that answers each datagram with itself."""

    def __init__(self):
        self.calls = self  # whose time it is too
        self.transmit = []
        self.drops = dict.fromkeys(DropReason, 0)
        self.due = None
        self.advanced = asyncio.Event()
        self.received = 0

    def receive(self, datagram, source, now):
        self.received += 1
        self.transmit.append((datagram, source))

    def deadline(self):
        return self.due

    def advance(self, now):
        self.due = None
        self.advanced.set()


@pytest.fixture
def client():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.setblocking(False)
        yield sock


async def test_each_datagram_is_read_and_what_it_caused_is_sent(client):
    core = Core()
    media = MediaSocket(core, HOST, 0)
    media.start()
    try:
        count = 3 * PACKETS_PER_WAKE
        loop = asyncio.get_running_loop()
        for index in range(count):
            client.sendto(b"%d" % index, media.address)
        for index in range(count):
            assert await asyncio.wait_for(loop.sock_recv(client, 100), 5) == b"%d" % index
        assert media.packets_out == count
    finally:
        media.close()


async def test_a_packet_that_cannot_be_sent_is_counted_and_the_next_one_goes(client):
    core = Core()
    media = MediaSocket(core, HOST, 0)
    media.start()
    try:
        core.transmit += [(bytes(70_000), client.getsockname()), (b"next", client.getsockname())]
        media.wake()
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 5) == b"next"
        assert core.drops[DropReason.SEND_FAILED] == 1
    finally:
        media.close()


async def test_the_timer_follows_an_earlier_deadline():
    core = Core()
    media = MediaSocket(core, HOST, 0)
    media.start()
    try:
        core.due = float(10**9)
        media.wake()
        await asyncio.sleep(0)
        core.due = 0.0
        media.wake()
        await asyncio.wait_for(core.advanced.wait(), 5)
    finally:
        media.close()


async def test_a_wake_after_the_end_does_nothing():
    media = MediaSocket(Core(), HOST, 0)
    media.start()
    media.wake()
    media.close()
    await asyncio.sleep(0)
    media.close()


async def test_a_cancelled_transceiver_drains_and_frees_its_port(tmp_path: Path):
    write_dev_secrets(tmp_path, "sk-test-0123456789abcdef")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    task = asyncio.create_task(run_transceiver(make_settings(tmp_path, port=port)))
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    task.cancel()
    await asyncio.wait_for(task, 10)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TCP's TIME_WAIT of the probe above
            again.bind((HOST, port))
