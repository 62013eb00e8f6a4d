"""An event that is longer than its client takes goes without its large content, and says so.

What is left is an event of the same type with the same names: texts first (a transcript, a tool's output), then whole parts, then
all but its type and its id. `voicefleet.shortened` names what is empty, `voicefleet.bytes` how long the event was; a sideband
gets it whole.

Owns: what is left out. Does not own: how long an event may be (the client's offer says it).
"""

import json
from collections.abc import Iterator
from typing import Any

from voicefleet_contract.outside import JsonError, parse_json

_SHORT_CHARS = 128  # names, ids and states stay
_NAMED = 16  # of what was left out
_ROOM_BYTES = 1_200  # for saying so
_KEPT_FIELDS = 32
_MAX_BYTES = 8 << 20


def shorten(event: str, most_bytes: int) -> str | None:
    """Return an event of at most ``most_bytes``; None if it is no JSON object, or nothing of it fits."""
    try:
        value = parse_json(event, _MAX_BYTES)
    except JsonError:
        return None
    if not isinstance(value, dict):
        return None
    size = _size(value)
    for attempt in (_without_texts, _without_parts, _without_everything):
        shorter, named = attempt(value, size - most_bytes + _ROOM_BYTES)
        shorter = shorter | {"voicefleet": {"shortened": [name[:48] for name in named[:_NAMED]], "bytes": size}}
        if _size(shorter) <= most_bytes:
            return _dump(shorter)
    return None


def _without_texts(value: dict[str, Any], too_many: int) -> tuple[dict[str, Any], list[str]]:
    """Empty the longest texts until enough is gone."""
    texts = sorted(_texts(value, ""), key=lambda found: len(found[2]), reverse=True)
    named = []
    for holder, key, text, path in ((holder, key, text, path) for holder, key, text, path in texts):
        if too_many <= 0:
            break
        holder[key] = ""
        too_many -= _size(text) - 2
        named.append(path)
    return value, named


def _texts(value: Any, path: str) -> Iterator[tuple[Any, Any, str, str]]:
    """(What holds it, under which key, the text, where) of each long text. As deep as parse_json lets it be."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        where = f"{path}.{key}" if path else str(key)
        if isinstance(inner, str):
            if len(inner) > _SHORT_CHARS:
                yield value, key, inner, where
        elif isinstance(inner, dict | list):
            yield from _texts(inner, where)


def _without_parts(value: dict[str, Any], _: int) -> tuple[dict[str, Any], list[str]]:
    """Keep of each object its own short fields."""
    named = [key for key, inner in value.items() if isinstance(inner, dict | list)]
    return {key: _short(inner) for key, inner in list(value.items())[:_KEPT_FIELDS]}, named


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {key: inner for key, inner in value.items() if not isinstance(inner, dict | list) and _is_short(inner)}
        return dict(list(plain.items())[:_KEPT_FIELDS])
    return [] if isinstance(value, list) else value if _is_short(value) else ""


def _is_short(value: Any) -> bool:
    return not isinstance(value, str) or len(value) <= _SHORT_CHARS


def _without_everything(value: dict[str, Any], _: int) -> tuple[dict[str, Any], list[str]]:
    kept: dict[str, Any] = {key: value[key] for key in ("type", "event_id") if key in value and _is_short(value[key])}
    return kept, [key for key in value if key not in kept]


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _size(value: Any) -> int:
    return len(_dump(value).encode())
