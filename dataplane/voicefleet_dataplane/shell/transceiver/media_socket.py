"""The one UDP socket of a transceiver: drained in a loop, written to directly, no asyncio endpoint.

asyncio's datagram endpoint allocates 256 KiB for each read and makes a call back for each packet; here one readiness event
drains up to PACKETS_PER_WAKE packets, then everything that they caused is sent.

Owns: the socket, the core's timer, and sending what the core wants sent. Does not own: what any of it means.
"""

import asyncio
import time

from voicefleet_contract.addresses import from_kernel
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.transceiver.transceiver import Transceiver
from voicefleet_dataplane.shell.process.udp import LARGEST_READ_BYTES, PACKETS_PER_WAKE, Sources, bind_udp


class MediaSocket:
    """Binds at once; reads from `start` on."""

    def __init__(self, core: Transceiver, host: str, port: int) -> None:
        self._socket = bind_udp(host, port)
        self.address = from_kernel(self._socket.getsockname())
        self.packets_out = 0
        self._core, self._calls = core, core.calls
        self._sources = Sources()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._flush_scheduled = False
        self._in_loop = False

    def start(self) -> None:
        """Read from now on."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._drain)
        self._arm()

    def discard(self) -> None:
        """Close a socket that was never started."""
        self._socket.close()

    def close(self) -> None:
        """Send what is left and close."""
        if self._socket.fileno() < 0:
            return
        self._flush()
        self._loop.remove_reader(self._socket.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()

    def wake(self) -> None:
        """Something outside of packet input may have caused packets: send them when this turn of the loop is over."""
        if not self._flush_scheduled and not self._in_loop:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_scheduled_now)

    def _drain(self) -> None:
        core, sources = self._core, self._sources
        receive, read = core.receive, self._socket.recvfrom
        self._in_loop = True
        try:
            for _ in range(PACKETS_PER_WAKE):
                datagram, source = read(LARGEST_READ_BYTES)
                receive(datagram, sources[source], time.monotonic())
        except BlockingIOError:
            pass
        except OSError:
            # An ICMP error of an earlier send: nothing that a reader could mend.
            pass
        finally:
            self._in_loop = False
        self._flush()

    def _flush(self) -> None:
        core = self._core
        send = self._socket.sendto
        for datagram, destination in core.transmit:
            try:
                send(datagram, destination)
            except OSError:  # a full buffer, or no route: as on any network, the packet is lost
                core.drops[DropReason.SEND_FAILED] += 1
            else:
                self.packets_out += 1
        core.transmit.clear()
        self._arm()

    def _flush_scheduled_now(self) -> None:
        self._flush_scheduled = False
        if self._socket.fileno() >= 0:
            self._flush()

    def _arm(self) -> None:
        due = self._calls.deadline()
        if due is None or due >= self._timer_at:
            return  # a timer that is too early arms itself again
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._in_loop = True
        try:
            self._calls.advance(time.monotonic())
        finally:
            self._in_loop = False
        self._flush()
