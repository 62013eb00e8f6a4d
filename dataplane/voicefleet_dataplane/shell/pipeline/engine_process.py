"""One process with engines in it: started, fed with frames over a socket pair, read until it ends, ended when it hangs.

Owns: the process and its socket. Does not own: what the frames mean, when it is started again (shell/pipeline/engine_pool.py).
"""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence

from voicefleet_dataplane.engines.wire import HEADER, MAX_PAYLOAD, Kind

MAX_UNSENT_BYTES = 8 << 20  # it does not keep up
HANGS_AFTER_S = 30.0  # with work and without a word
_END_WITHIN_S = 2.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

FrameTaker = Callable[[Kind, int, bytes], None]  # kind, number of the job, payload


class EngineProcess:
    """May be run again when it has ended."""

    def __init__(self, engines: Sequence[str]) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.heard_at = 0.0  # when it said something, or was given the first of its work
        self.trouble = ""  # why it ended, if that is known
        self._engines = tuple(engines)
        self._writer: asyncio.StreamWriter | None = None

    def send(self, frame: bytes) -> bool:
        """Hand it a frame; False when there is no process, or it does not keep up."""
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return False
        writer.write(frame)
        return True

    async def run(self, take: FrameTaker) -> None:
        """Start it, and read until it ends. Raises OSError or EOFError: it always ends by one."""
        ours, theirs = socket.socketpair()
        with theirs:
            argv = ["-m", "voicefleet_dataplane.engines.worker", str(theirs.fileno()), *self._engines]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | _ONE_THREAD,
            )
        self.process = process
        reader, writer = await asyncio.open_connection(sock=ours)
        self._writer, self.heard_at = writer, time.monotonic()
        try:
            while True:
                length, kind, number = HEADER.unpack(await reader.readexactly(HEADER.size))
                if length > MAX_PAYLOAD:
                    raise OSError(f"a frame of {length} bytes")
                payload = await reader.readexactly(length)
                self.heard_at = time.monotonic()
                take(Kind(kind), number, payload)
        finally:
            self._writer = self.process = None
            writer.close()
            await _end(process)

    def kill_if_it_hangs(self) -> None:
        """C code has no deadline. Asked of a process that has work."""
        if self.process is not None and time.monotonic() - self.heard_at > HANGS_AFTER_S:
            self.trouble = f"it said nothing for {HANGS_AFTER_S:g} s"
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends when its socket closes; what it is computing just now is not waited for long."""
    try:
        async with asyncio.timeout(_END_WITHIN_S):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
