"""A bad network on loopback, for kernels without netem: media between one client and a transceiver is lost and delayed.

STUN and DTLS pass unharmed: a set-up that takes longer proves nothing about audio.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.demux import Kind, classify


class _Side:
    """One socket of the two."""

    def __init__(self, bad: "BadNetwork") -> None:
        self.bad = bad
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.other: _Side
        self.peer: tuple[str, int] | None = None

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            while True:
                datagram, source = self.socket.recvfrom(2_048)
                if self.peer is None:
                    self.peer = source
                self.bad.carry(datagram, self.other)


class BadNetwork:
    """`address` is what the client is told."""

    def __init__(self, server: Address, loss: float, jitter_s: float, seed: int = 5) -> None:
        self.loss, self.jitter_s = loss, jitter_s
        self.carried = self.lost = 0
        self._chance = random.Random(seed)
        self._client, self._server = _Side(self), _Side(self)
        self._client.other, self._server.other = self._server, self._client
        self._server.peer = (server.host, server.port)
        self.address = Address(*self._client.socket.getsockname())

    def carry(self, datagram: bytes, to: _Side) -> None:
        delay_s = 0.0
        if classify(datagram) is Kind.RTP:
            if self._chance.random() < self.loss:
                self.lost += 1
                return
            self.carried += 1
            delay_s = self._chance.random() * self.jitter_s
        asyncio.get_running_loop().call_later(delay_s, self._send, datagram, to)

    def _send(self, datagram: bytes, to: _Side) -> None:
        if to.peer is not None and to.socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                to.socket.sendto(datagram, to.peer)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["BadNetwork"]:
        loop = asyncio.get_running_loop()
        sides = (self._client, self._server)
        for side in sides:
            loop.add_reader(side.socket.fileno(), side.read)
        try:
            yield self
        finally:
            for side in sides:
                loop.remove_reader(side.socket.fileno())
                side.socket.close()
