"""The least that can stand between a client and a transceiver: SPP on and off, one owner, no checks of anything.

For tests of the transceiver's inner side with clients on real sockets; the relay itself has tests of its own.
"""

import asyncio
import socket

from tests.support.transceiver_process import HOST
from voicefleet_contract.addresses import Address
from voicefleet_contract.spp import HEADER_BYTES, decode_spp, encode_spp


class DumbRelay:
    """A public and an inner socket on loopback."""

    def __init__(self) -> None:
        self._public, self._inner = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self._public, self._inner):
            sock.bind((HOST, 0))
            sock.setblocking(False)
        self.public = Address(*self._public.getsockname())
        self.inner = Address(*self._inner.getsockname())
        self.owner: Address | None = None
        self.packets_in = self.packets_out = 0

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        loop.add_reader(self._public, self._from_client)
        loop.add_reader(self._inner, self._from_owner)
        return self

    async def __aexit__(self, *exc):
        loop = asyncio.get_running_loop()
        for sock in (self._public, self._inner):
            loop.remove_reader(sock)
            sock.close()

    def _from_client(self) -> None:
        datagram, source = self._public.recvfrom(2048)
        self.packets_in += 1
        assert self.owner is not None
        self._inner.sendto(encode_spp(Address(*source), self.inner) + datagram, self.owner)

    def _from_owner(self) -> None:
        datagram, _ = self._inner.recvfrom(2048)
        client, relay = decode_spp(datagram)
        assert relay == self.inner
        self.packets_out += 1
        self._public.sendto(datagram[HEADER_BYTES:], client)
