"""SCTP ends over UDP on loopback, without DTLS, that say back each message: ours and aiortc's, each a process of its own.

.venv/bin/python -m bench.sctp_ends ours
"""

import asyncio
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from secrets import token_bytes
from typing import Any

import uvloop
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from voicefleet_dataplane.core.call.sctp.channels import Channels, DataChannel, Outcome, Said

HOST = "127.0.0.1"
PORT = 5000  # SCTP's
STREAM = 1  # a channel that both sides know beforehand
MAX_MESSAGE_BYTES = 262_144
BUFFER_BYTES = 4 << 20  # of a socket: nothing is to be lost on loopback


def udp_socket() -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        one.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    one.bind((HOST, 0))
    return one


def accept() -> socket.socket:
    """Say where we listen, and wait for the client's first packet, which stays to be read."""
    one = udp_socket()
    print(json.dumps({"udp": one.getsockname()[1]}), flush=True)
    one.connect(one.recvfrom(1, socket.MSG_PEEK)[1])
    return one


class OurEnd:
    """Our channels on a connected socket. `turn` waits for a packet or a timer, and does what is due, as a call's data channels do."""

    def __init__(self, sock: socket.socket, on_message: Callable[[DataChannel, str | bytes], None]) -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._on_message = on_message
        self.channels = Channels((PORT, PORT), (MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES), token_bytes, time.monotonic())

    def turn(self) -> None:
        due = self.channels.deadline()
        select.select([self._socket], [], [], 1.0 if due is None else max(0.0, due - time.monotonic()))
        for _ in range(64):
            try:
                packet = self._socket.recv(2_048)
            except BlockingIOError:
                break
            now = time.monotonic()
            meter = self.channels._association._life.meter
            meter._counted, meter._allowed = meter.steps, 1.0  # a call's share of steps is not what is measured
            self.channels.receive(packet, now)
            self.go_on(now)
        now = time.monotonic()
        due = self.channels.deadline()
        if due is not None and due <= now:
            self.channels.advance(now)
        self.go_on(now)

    def go_on(self, now: float | None = None) -> None:
        """Hear what was said, and send what is due."""
        now = time.monotonic() if now is None else now
        while (event := self.channels.next_event()) is not None:
            if isinstance(event, Said):
                self._on_message(event.channel, event.message)
        for packet in self.channels.poll(now):
            self._socket.send(packet)


def serve_ours() -> None:
    def echo(channel: DataChannel, message: str | bytes) -> None:
        outcome = end.channels.send(channel, message, time.monotonic())
        assert outcome is Outcome.QUEUED, outcome

    end = OurEnd(accept(), echo)
    while True:
        end.turn()


class Datagrams:
    """What aiortc's SCTP wants of DTLS: it sends by ``send``."""

    state, _role = "connected", "server"

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send

    def _register_data_receiver(self, receiver: Any) -> None: ...

    def _unregister_data_receiver(self, receiver: Any) -> None: ...

    async def _send_data(self, data: bytes) -> None:
        self._send(data)


async def serve_aiortc(sock: socket.socket) -> None:
    sock.setblocking(False)
    end = RTCSctpTransport(Datagrams(sock.send), PORT)  # type: ignore[arg-type]
    channel = RTCDataChannel(end, RTCDataChannelParameters(label="", negotiated=True, id=STREAM))
    channel.on("message", channel.send)
    loop = asyncio.get_running_loop()
    await end.start(RTCSctpCapabilities(maxMessageSize=MAX_MESSAGE_BYTES), PORT)
    while True:
        await end._handle_data(await loop.sock_recv(sock, 2_048))


def main() -> None:
    if sys.argv[1:] == ["aiortc"]:
        uvloop.run(serve_aiortc(accept()))
    else:
        serve_ours()


if __name__ == "__main__":
    main()
