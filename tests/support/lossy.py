"""A bad network on loopback, for kernels without netem: media between clients and a transceiver is lost and delayed, both ways.

STUN and DTLS pass unharmed: a set-up that takes longer proves nothing about audio. As behind a NAT, each address of a client has a
socket of its own towards the transceiver: a browser tries several.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.demux import Kind, classify
from voicefleet_dataplane.wire.stun import is_response


def _open() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made


class BadNetwork:
    """`address` is what the client is told."""

    def __init__(self, server: Address, loss: float, jitter_s: float, seed: int = 5) -> None:
        self.loss, self.jitter_s = loss, jitter_s
        self.lost = {"up": 0, "down": 0}  # packets of media
        self._chance = random.Random(seed)
        self._server = (server.host, server.port)
        self._outside = _open()
        self._legs: dict[tuple[str, int], socket.socket] = {}  # by a client's address
        # Media that clients sent since the first check after `rebind`, before any came back.
        self.unheard = 0
        self.heard = asyncio.Event()
        self.in_conversation = asyncio.Event()  # a second of media has come back
        self._came = 0
        self._was_checked = False
        self.address = Address(*self._outside.getsockname())

    def rebind(self) -> None:
        """Forget all clients, as a NAT does: the next packet of each goes out from another port, and nothing comes back to the old one."""
        before, self._legs = self._legs, {}
        self.unheard, self._was_checked = 0, False
        self.heard.clear()
        for client, leg in before.items():
            asyncio.get_running_loop().remove_reader(leg.fileno())
            self._lead(client)  # before the old one's port is free
            leg.close()

    def _lead(self, client: tuple[str, int]) -> socket.socket:
        leg = self._legs[client] = _open()
        asyncio.get_running_loop().add_reader(leg.fileno(), self._from_server, leg, client)
        return leg

    def _from_clients(self) -> None:
        for datagram, client in _received(self._outside):
            leg = self._legs.get(client) or self._lead(client)
            kind = classify(datagram)
            self._was_checked |= kind is Kind.STUN and not is_response(datagram)
            self.unheard += kind is Kind.RTP and self._was_checked and not self.heard.is_set()
            self._carry("up", datagram, leg, self._server)

    def _from_server(self, leg: socket.socket, client: tuple[str, int]) -> None:
        for datagram, _ in _received(leg):
            if classify(datagram) is Kind.RTP:
                self.heard.set()
                self._came += 1
                if self._came == 50:
                    self.in_conversation.set()
            self._carry("down", datagram, self._outside, client)

    def _carry(self, way: str, datagram: bytes, by: socket.socket, to: tuple[str, int]) -> None:
        delay_s = 0.0
        if classify(datagram) is Kind.RTP:
            if self._chance.random() < self.loss:
                self.lost[way] += 1
                return
            delay_s = self._chance.random() * self.jitter_s
        asyncio.get_running_loop().call_later(delay_s, _send, datagram, by, to)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["BadNetwork"]:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._outside.fileno(), self._from_clients)
        try:
            yield self
        finally:
            for one in (self._outside, *self._legs.values()):
                loop.remove_reader(one.fileno())
                one.close()


def _received(by: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    found: list[tuple[bytes, tuple[str, int]]] = []
    with contextlib.suppress(OSError):
        while True:
            found.append(by.recvfrom(2_048))
    return found


def _send(datagram: bytes, by: socket.socket, to: tuple[str, int]) -> None:
    if by.fileno() >= 0:
        with contextlib.suppress(OSError):
            by.sendto(datagram, to)
