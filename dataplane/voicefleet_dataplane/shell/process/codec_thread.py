"""One thread that works on the samples of all calls of the process, off the packet loop: one codes and decodes, another hears.

Work is handed over in batches: everything that one turn of the loop caused goes in one queue entry, and its results come
back in one call. So the price of crossing threads (tens of microseconds) does not grow with the number of calls. libopus
runs without the GIL: the loop goes on meanwhile.

Owns: the thread, order, and that work which raises harms nothing but itself. Does not own: what the work is (media/voice.py).
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

log = logging.getLogger("voicefleet.transceiver")

_Job = tuple[Callable[[Any], bytes], Any, Callable[[Any, bytes], None]]
_Done = tuple[Callable[[Any, bytes], None], Any, bytes]


class CodecThread:
    """Starts with the first work; `close` ends it."""

    def __init__(self, name: str = "codec") -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._batch: list[_Job] = []
        self._queue: SimpleQueue[list[_Job] | None] = SimpleQueue()
        self.jobs = 0

    def submit(self, work: Callable[[Any], bytes], on: Any, done: Callable[[Any, bytes], None]) -> None:
        """Call ``done(on, work(on))``: the work in the thread, the rest on the loop."""
        if not self._batch:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._loop.call_soon(self._hand_over)
        self._batch.append((work, on, done))

    def close(self) -> None:
        """End the thread; what it has not done is forgotten."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        self.jobs += len(batch)
        self._queue.put(batch)

    def _run(self) -> None:
        assert self._loop is not None
        while True:
            batch = self._queue.get()
            if batch is None:
                return
            results: list[_Done] = []
            for work, on, done in batch:
                try:
                    results.append((done, on, work(on)))
                except Exception as error:
                    log.error("codec work failed", exc_info=error)
                    results.append((done, on, b""))
            try:
                self._loop.call_soon_threadsafe(_deliver, results)
            except RuntimeError:  # the loop is closed: the process ends
                return


def _deliver(results: list[_Done]) -> None:
    for done, on, result in results:
        try:
            done(on, result)
        except Exception as error:
            log.error("a voice failed", exc_info=error)
