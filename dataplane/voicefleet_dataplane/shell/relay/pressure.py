"""How near a relay process is to what it can do, and garbage collection that no packet waits for.

**Pressure.** ``busy`` is the share of one core that the process used since the last look: packets wait longer from
about 0.7 on and are lost at 1. ``queue_drops`` is what the kernel threw away because nobody read in time: anything
but zero means that it was too much, if only for a moment. Both are for alerts.

**Garbage.** A full collection looks at every object of every flow: 1.2 s at a million flows, all packets waiting.
Flows make no cycles and need none. So the collector runs only here, over what is new since the last look, and what
survived is frozen: never looked at again. Cycles of the control plane that were in use at that moment would so be
kept for ever; while the table is small everything is looked at now and then.

Owns: these two. Does not own: when to look (shell/relay/process.py), the metrics (shell/relay/metrics.py).
"""

import gc
import socket
import struct
import time

_SO_MEMINFO = 55
_MEMINFO_DROPS = 8  # the ninth of nine 32-bit numbers
_FEW_FLOWS = 10_000  # about 12 ms for all of them
_EVERYTHING_EVERY_S = 60.0


class Pressure:
    """Looked at a few times a second by `look`. From the first look on automatic collection is off."""

    def __init__(self, sockets: dict[str, socket.socket]) -> None:
        self.busy = 0.0
        self._sockets = sockets
        self._at, self._cpu = time.monotonic(), time.process_time()
        self._everything_at = self._at + _EVERYTHING_EVERY_S

    def look(self, flows: int) -> None:
        """Note how busy we were, and collect what is new."""
        now, cpu = time.monotonic(), time.process_time()
        if now > self._at:
            self.busy = (cpu - self._cpu) / (now - self._at)
        self._at, self._cpu = now, cpu
        gc.disable()
        if now >= self._everything_at and flows <= _FEW_FLOWS:
            self._everything_at = now + _EVERYTHING_EVERY_S
            gc.unfreeze()
        gc.collect()
        gc.freeze()

    def stop(self) -> None:
        """Leave the collector as it was found: several relays may live in one process, in tests."""
        gc.enable()
        gc.unfreeze()

    @property
    def queue_drops(self) -> dict[str, int]:
        """Datagrams that each socket's receive queue had no room for."""
        return {name: queue_drops(one) for name, one in self._sockets.items()}


def queue_drops(one: socket.socket) -> int:
    """Return the kernel's count for one socket; SO_MEMINFO is as old as Linux 4.12."""
    if one.fileno() < 0:
        return 0
    return int(struct.unpack("=9I", one.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[_MEMINFO_DROPS])
