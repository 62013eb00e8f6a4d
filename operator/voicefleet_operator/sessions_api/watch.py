"""A watch, from its parameters to its events. Pure but for the registry and the hub it reads from.

| asked | answered |
|---|---|
| a version that is whole | every change after it |
| a version that is not | one ERROR event, 410 Expired |
| no version, or 0 | ADDED for what is there, then changes |
| sendInitialEvents | ADDED for what is there, a bookmark that says so, then changes |

With a selector a session that begins to match is ADDED, and one that no longer does is DELETED.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from voicefleet_contract.outside import OutsideError, parse_integer
from voicefleet_contract.sessions import EventType, SessionRecord
from voicefleet_operator.sessions_api.hub import Hub
from voicefleet_operator.sessions_api.pages import Place
from voicefleet_operator.sessions_api.registry import Change, SessionRegistry
from voicefleet_operator.sessions_api.selectors import Query
from voicefleet_operator.sessions_api.status import StatusError

BOOKMARK_S = 15.0
_CATCH_UP = 50  # rounds of a thousand changes each, before a watcher is told to list again


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch. ``record`` is None for a bookmark; ``initial_end`` marks the end of the initial events."""

    kind: str
    version: int
    record: SessionRecord | None = None
    initial_end: bool = False


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What a request asked for. ``version`` None: from what is there now."""

    version: int | None
    initial_events: bool
    bookmarks: bool


def parse_watch_options(parameters: Mapping[str, str]) -> WatchOptions:
    """Raises StatusError 400 or 422, naming the parameter."""
    version = parse_version(parameters.get("resourceVersion", ""))
    bookmarks = parameters.get("allowWatchBookmarks") in ("true", "1")
    initial = parameters.get("sendInitialEvents")
    match = parameters.get("resourceVersionMatch", "")
    if initial is None:
        if match:
            raise StatusError(422, "resourceVersionMatch: Forbidden: it is for a watch with sendInitialEvents")
        return WatchOptions(version or None, initial_events=not version, bookmarks=bookmarks)
    if match != "NotOlderThan":
        raise StatusError(422, "resourceVersionMatch: with sendInitialEvents it must be NotOlderThan")
    if initial in ("true", "1"):
        if not bookmarks:
            raise StatusError(422, "allowWatchBookmarks: must be true with sendInitialEvents=true")
        return WatchOptions(None, initial_events=True, bookmarks=True)
    return WatchOptions(version or None, initial_events=False, bookmarks=bookmarks)


def parse_version(text: str) -> int | None:
    """Return a resourceVersion; None for an empty one. Raises StatusError 400."""
    if not text:
        return None
    try:
        return parse_integer(text, (1 << 63) - 1)
    except OutsideError:
        message = f"resourceVersion: Invalid value {text[:40]!r}: it is not one that this server gave"
        raise StatusError(400, message) from None


def seen_through(query: Query, change: Change) -> Event | None:
    """Return a change as a watcher with this query sees it; None when it is none of its business."""
    after = change.kind is not EventType.DELETED and query.matches(change.record)
    earlier = change.before if change.kind is EventType.MODIFIED else change.record
    before = change.kind is not EventType.ADDED and earlier is not None and query.matches(earlier)
    if not (before or after):
        return None
    kind = EventType.MODIFIED if before and after else EventType.ADDED if after else EventType.DELETED
    return Event(kind.value, change.version, change.record)


async def watch(
    registry: SessionRegistry, hub: Hub, query: Query, options: WatchOptions
) -> AsyncIterator[Event | None]:
    """Yield events; None after `BOOKMARK_S` without one. Raises StatusError 410, RegistryAwayError."""
    with hub.watching() as watcher:
        version = options.version
        if version is None:
            version = await registry.newest()
            if options.initial_events:
                async for record in registry.walk(query, Place(), None, version):
                    yield Event(EventType.ADDED.value, version, record)
                if options.bookmarks:
                    yield Event("BOOKMARK", version, initial_end=True)
        elif not await registry.is_whole_since(version):
            raise StatusError(410, f"too old resource version: {version}: list again")
        await hub.reading.wait()
        for _ in range(_CATCH_UP):  # from the stream itself, up to its end: the rest comes through the hub
            reached, changes = await registry.since(version)
            for change in changes:
                if (event := seen_through(query, change)) is not None:
                    yield event
            if reached == version:
                break
            version = reached
        while True:
            arrived = await watcher.next(BOOKMARK_S)
            if arrived is None:
                if watcher.expired:
                    raise StatusError(410, "the registry was lost, and with it what happened meanwhile: list again")
                if watcher.too_slow:
                    return
                if options.bookmarks and not hub.away:
                    yield Event("BOOKMARK", max(version, hub.version))
                else:
                    yield None
                continue
            if arrived.version <= version:
                continue  # the stream gave it already
            version = arrived.version
            if (event := seen_through(query, arrived)) is not None:
                yield event
