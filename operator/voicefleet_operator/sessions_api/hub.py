"""One reader of the stream of session events for all watchers of this process.

    stream ──XREAD──▶ hub ──▶ a bounded queue for each watcher ──▶ (filter, write) in its own request

A watcher that is too slow loses its queue and is told to go: it comes back with its last resourceVersion and reads on from
the stream itself. When the registry was lost, every watcher is told that its version expired, and lists again.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterator

from voicefleet_operator.sessions_api.registry import Change, RegistryAwayError, SessionRegistry

log = logging.getLogger("voicefleet.sessions")

_MOST_WAITING = 1_000
_BLOCK_MS = 1_000
_AWAY_S = 1.0


class Watcher:
    """What one watch gets: changes in order, from some version on."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self._woken = asyncio.Event()
        self.too_slow = False
        self.expired = False

    def put(self, change: Change) -> None:
        """Give it a change; too many of them waiting end the watch."""
        if len(self._changes) >= _MOST_WAITING:
            self.too_slow = True
        else:
            self._changes.append(change)
        self._woken.set()

    def expire(self) -> None:
        """Its version is worth nothing any more."""
        self.expired = True
        self._woken.set()

    async def next(self, timeout_s: float) -> Change | None:
        """Return the next change; None after the timeout, or when the watch has ended (`too_slow`, `expired`)."""
        if not self._changes and not self.too_slow and not self.expired:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
        return self._changes.popleft() if self._changes else None


class Hub:
    """Reads the stream while the process lives."""

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._watchers: set[Watcher] = set()
        self._epoch = 0
        self.version = 0  # the newest that every watcher was given
        self.reading = asyncio.Event()  # set once `version` is one of the stream
        self.delivered = 0
        self.away = ""

    def __len__(self) -> int:
        return len(self._watchers)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Join: every change after `version` of this moment arrives."""
        watcher = Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    async def run(self) -> None:
        """Read for ever; a registry that is away is said once."""
        while True:
            try:
                await self._step()
            except RegistryAwayError as error:
                if not self.away:
                    log.warning("%s: watches stay open, and go on or expire when it is back", error)
                self.away = str(error)
                await asyncio.sleep(_AWAY_S)
            else:
                if self.away:
                    log.info("the registry is back")
                self.away = ""

    async def _step(self) -> None:
        epoch = await self._registry.epoch()
        if epoch != self._epoch:
            if self._epoch:
                log.warning("another registry answers: %d watches expire", len(self._watchers))
            for watcher in self._watchers:
                watcher.expire()
            self.version, self._epoch = await self._registry.newest(), epoch
            self.reading.set()
        version, changes = await self._registry.since(self.version, block_ms=_BLOCK_MS)
        for change in changes:
            for watcher in tuple(self._watchers):
                watcher.put(change)
        self.delivered += len(changes)
        self.version = version
