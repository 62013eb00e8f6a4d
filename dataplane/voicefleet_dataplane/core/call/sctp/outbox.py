"""Chunks on their way into packets: what is not data, and packets that stand alone."""

from collections import deque
from typing import Any

from voicefleet_dataplane.core.call.dtls import DTLS_MTU_BYTES
from voicefleet_dataplane.core.call.sctp.chunks import DATA_HEADER_BYTES, HEADER_BYTES, build_packet

# A DTLS 1.2 record has a header (13), an explicit nonce (8) and a tag (16). Chunks are padded to four.
PACKET_BYTES = (DTLS_MTU_BYTES - 37) // 4 * 4
PAYLOAD_BYTES = PACKET_BYTES - HEADER_BYTES - DATA_HEADER_BYTES
_MAX_CONTROL = 64  # a peer that asks more often than we get to send is not answered


class Outbox:
    """`peers_tag` goes on every packet that is not sent alone."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self._ports = ports
        self.peers_tag = 0
        self.control: deque[bytes] = deque()
        self.packets: list[bytes] = []

    def put(self, chunk: bytes) -> None:
        """Queue a chunk before all data."""
        if len(chunk) <= PACKET_BYTES - HEADER_BYTES and len(self.control) < _MAX_CONTROL:
            self.control.append(chunk)

    def send_alone(self, chunk: bytes, tag: int) -> None:
        """Queue a packet with one chunk."""
        if len(self.packets) < _MAX_CONTROL:
            self.packets.append(build_packet(self._ports, tag, [chunk]))

    def fill(self, chunks: list[bytes]) -> int:
        """Move control chunks into a packet's; gives the room that is left."""
        room = PACKET_BYTES - HEADER_BYTES
        while self.control and len(self.control[0]) <= room:
            chunks.append(self.control.popleft())
            room -= len(chunks[-1])
        return room

    def close(self, chunks: list[bytes]) -> None:
        """Make a packet of these."""
        self.packets.append(build_packet(self._ports, self.peers_tag, chunks))

    def take(self) -> list[bytes]:
        """Return the packets; taking forgets them."""
        packets, self.packets = self.packets, []
        return packets

    def export(self) -> dict[str, Any]:
        """Return its state."""
        return {"peers_tag": self.peers_tag, "control": list(self.control), "packets": list(self.packets)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from an export."""
        self.peers_tag = state["peers_tag"]
        self.control = deque(state["control"])
        self.packets = list(state["packets"])
