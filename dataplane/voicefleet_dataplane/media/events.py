"""The events of one call: JSON text between the client's data channel, whoever watches the call, and its backend.

::

    client's channel    ─┐                      ┌─▶ client's channel (queued until the client opens it)
    sideband WebSocket  ─┼─▶ Backend.on_event   │
    sideband …          ─┘   Backend … send_event ─▶ each watcher

Owns: who is told, and that a watcher who cannot keep up is let go. Does not own: what waits for the client
(media/client_events.py), which channel is its events' (media/event_channels.py), what an event means (a backend), or sockets.
Invariant: a watcher's trouble never reaches the client or the backend, and what it says too much is its own limit's.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from voicefleet_contract.http_api import MAX_EVENT_BYTES, MAX_WATCHERS
from voicefleet_dataplane.media.backend import Channel
from voicefleet_dataplane.media.client_events import ClientEvents
from voicefleet_dataplane.media.event_errors import build_error

log = logging.getLogger("voicefleet.transceiver")

MAX_EVENTS_PER_S = 200  # of the client, and of each watcher: more is no conversation


class Watcher(Protocol):
    """Somebody beside the client, for instance a sideband WebSocket. Nothing here may block."""

    def on_event(self, event: str) -> bool:
        """Take an event of the backend; False when no more can be taken: then this was the last."""

    def on_closed(self) -> None:
        """The call is over, or the watcher was let go."""


class EventHub:
    """One call's events. ``to_backend`` is told what client and watchers say."""

    def __init__(self, to_backend: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._to_backend = to_backend
        self._clock = clock
        self._second = 0.0
        self._heard: dict[Watcher | None, int] = {}  # in this second; None: the client
        self._client = ClientEvents()
        self._watchers: list[Watcher] = []
        self._closed = False

    # ---- from the client and from watchers

    def open_channel(self, channel: Channel, *, is_sure: bool = True) -> None:
        """The client has this channel for events: send what waits. A second one takes the first one's place."""
        self._client.open(channel, is_sure=is_sure)

    def trust_channel(self) -> None:
        """The channel that was taken for the events' is it."""
        self._client.trust()

    def hear(self, event: str, source: Watcher | None = None) -> None:
        """Client (None) or watcher said something to the backend. Too long and too much is refused here: every backend is spared it."""
        if self._closed:
            return
        now = self._clock()
        if now - self._second >= 1:
            self._second = now
            self._heard.clear()
        heard = self._heard[source] = self._heard.get(source, 0) + 1
        if heard > MAX_EVENTS_PER_S:
            if heard == MAX_EVENTS_PER_S + 1:  # said once a second: an answer for each would be a flood too
                message = f"more than {MAX_EVENTS_PER_S} events in a second: the others are dropped"
                self._answer(source, build_error("rate_limit_exceeded", message))
            return
        if len(event) > MAX_EVENT_BYTES:
            self._answer(source, build_error("event_too_large", f"an event has at most {MAX_EVENT_BYTES} bytes"))
            return
        self._to_backend(event)

    def watch(self, watcher: Watcher) -> bool:
        """Tell a watcher all events from now on; False when the call is over or has enough watchers."""
        if self._closed or len(self._watchers) >= MAX_WATCHERS:
            return False
        self._watchers.append(watcher)
        return True

    @property
    def is_closed(self) -> bool:
        """Whether the call is over."""
        return self._closed

    def unwatch(self, watcher: Watcher) -> None:
        """The watcher left; it is told nothing more."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    # ---- from the backend

    def tell(self, event: str) -> bool:
        """Tell client and watchers; False when the client could not be told, now or later."""
        if self._closed:
            return False
        for watcher in tuple(self._watchers):
            self._tell_or_let_go(watcher, event)
        return self._client.tell(event)

    def flush(self) -> None:
        """The client has taken something: there may be room for what waits."""
        self._client.flush()

    @property
    def counts(self) -> Mapping[str, int]:
        """Events for the client that went without their large content, or were lost."""
        return self._client.counts

    def close_channel(self) -> None:
        """The client's channel is gone, and another may come: what is told meanwhile waits."""
        self._client.close()

    def close(self) -> None:
        """The call is over."""
        self._closed = True
        self._client.close()
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            self._close_watcher(watcher)

    def _answer(self, source: Watcher | None, event: str) -> None:
        if source is None:
            self.tell(event)
        elif source in self._watchers:
            self._tell_or_let_go(source, event)

    def _tell_or_let_go(self, watcher: Watcher, event: str) -> None:
        if not self._tell_watcher(watcher, event):
            self.unwatch(watcher)
            self._close_watcher(watcher)

    def _tell_watcher(self, watcher: Watcher, event: str) -> bool:
        try:
            return watcher.on_event(event)
        except Exception as error:
            log.error("a watcher failed", exc_info=error)
            return False

    def _close_watcher(self, watcher: Watcher) -> None:
        try:
            watcher.on_closed()
        except Exception as error:
            log.error("a watcher failed", exc_info=error)
