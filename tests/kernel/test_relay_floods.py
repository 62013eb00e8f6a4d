"""Ten calls in progress, ten times their packets in garbage and in forged checks: what the calls lose, what anybody gets."""

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

from tests.support.relay_process import HOST, Owner, Peer, RunningRelay
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES

CALLS, PACKET_S, SECONDS, TIMES = 10, 0.02, 3.0, 10
PACKETS = int(SECONDS / PACKET_S)
OWNER = Owner(1)
OWNER.socket.close()
FLOOD = [
    *[os.urandom(160) for _ in range(64)],
    *[b"\x80\x6f" + os.urandom(160) for _ in range(64)],
    *[OWNER.check(keys=KeyRing({1: bytes([n]) * 32}, signing=1)) for n in range(64)],
    *[OWNER.check(password=str(n)) for n in range(64)],
    *[OWNER.check()[: 20 + n] for n in range(64)],
]


@contextlib.asynccontextmanager
async def relay_of_its_own(directory, owner):
    """The relay as a process, so that the flood and the calls don't take its core's time in this one."""
    relay = RunningRelay(directory, **{name: free_port() for name in ("public_port", "inner_port")})
    relay.write_topology(owner.member())
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("voicefleet")), "relay"),
        env={**os.environ, **relay.settings.to_environment()},
    )
    try:
        yield (HOST, relay.settings.public_port)
    finally:
        process.terminate()
        await process.wait()


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


class Calls:
    """Callers that count what comes back, and the owner that sends it."""

    def __init__(self, owner, public):
        self.owner, self.public = owner, public
        self.callers = [Peer() for _ in range(CALLS)]
        self.heard = [set() for _ in self.callers]
        self.owner_heard = set()
        self.checks_sent = self.checks_heard = 0
        self.started = [asyncio.Event() for _ in self.callers]
        loop = asyncio.get_running_loop()
        loop.add_reader(owner.socket, self.answer)
        for index, caller in enumerate(self.callers):
            loop.add_reader(caller.socket, self.hear, index)

    def close(self):
        loop = asyncio.get_running_loop()
        for peer in (self.owner, *self.callers):
            loop.remove_reader(peer.socket)
            peer.socket.close()

    def answer(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                data, source = self.owner.socket.recvfrom(2048)
                if data[HEADER_BYTES] == 0x80:
                    self.owner_heard.add((data[:HEADER_BYTES], data[HEADER_BYTES + 2 : HEADER_BYTES + 4]))
                else:
                    self.checks_heard += 1
                self.owner.socket.sendto(data, source)

    def hear(self, index):
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self.callers[index].socket.recv(2048)
                if data[0] == 0x80:
                    self.heard[index].add(data[2:4])
                self.started[index].set()

    def check(self, caller):
        caller.send(self.owner.check(), self.public)
        self.checks_sent += 1

    async def bind(self):
        for index, caller in enumerate(self.callers):
            async with asyncio.timeout(20):
                while not self.started[index].is_set():
                    self.check(caller)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.started[index].wait(), 0.2)

    async def talk(self, mallories):
        """Fifty packets a second and call, and TIMES as many of the flood between them."""
        start = asyncio.get_running_loop().time()
        sent = 0
        for number in range(PACKETS):
            for index, caller in enumerate(self.callers):
                caller.send(b"\x80\x6f" + number.to_bytes(2, "big") + bytes(156), self.public)
                for _ in range(TIMES):
                    mallories[sent % len(mallories)].send(FLOOD[sent % len(FLOOD)], self.public)
                    sent += 1
                if number % 50 == index:
                    self.check(caller)
            await asyncio.sleep(max(0.0, start + (number + 1) * PACKET_S - asyncio.get_running_loop().time()))

    async def settle(self):
        """Wait until nothing has come for a moment."""
        before = -1
        while (count := len(self.owner_heard) + sum(map(len, self.heard))) != before:
            before = count
            await asyncio.sleep(0.2)


async def test_calls_in_progress_lose_nothing_worth_naming_and_nobody_gets_an_answer(tmp_path):
    """All from one address, so that the calls' own network is over its limit too: their consent checks pass all the same."""
    owner = Owner(1)
    mallories = [Peer() for _ in range(8)]
    async with relay_of_its_own(tmp_path, owner) as public:
        calls = Calls(owner, public)
        try:
            await calls.bind()
            calls.checks_sent = calls.checks_heard = 0
            await calls.talk(mallories)
            await calls.settle()
        finally:
            calls.close()
    lost = 2 * CALLS * PACKETS - len(calls.owner_heard) - sum(map(len, calls.heard))
    assert lost < 2 * CALLS * PACKETS / 1000
    assert calls.checks_heard >= calls.checks_sent
    assert all(mallory.nothing_waits() for mallory in mallories)  # amplification 0: not one byte
    for mallory in mallories:
        mallory.socket.close()
