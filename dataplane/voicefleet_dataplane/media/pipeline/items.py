"""The items of a conversation, as the Realtime API shows them, and as a text handler reads them.

What was not heard was not said: an item that was cut off keeps the words that went out before, and the text handler is told
no others.

Owns: their order, their bounds, cutting. Does not own: events, ids.
Invariant: at most MAX_ITEMS of at most MAX_TEXT characters each, MAX_TOTAL together; the oldest go first.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

MAX_ITEMS = 512
MAX_TEXT = 64 * 1024
MAX_TOTAL = 1 << 20
ROOT = "root"  # in place of a previous item: before all others


class ItemError(ValueError):
    """What a client says about an item does not hold; `param` is the field."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(slots=True)
class Item:
    """One item. ``spoken`` is where each sentence of it ends: milliseconds of audio, characters of text."""

    id: str
    kind: str  # message, function_call, function_call_output
    role: str = ""  # of a message
    part: str = ""  # of a message: input_text, input_audio, output_text, output_audio
    text: str = ""  # or transcript, or arguments, or output
    call_id: str = ""
    name: str = ""
    status: str = "completed"
    is_open: bool = False  # nothing of its content is known yet
    spoken: list[tuple[int, int]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the item as events show it."""
        shown: dict[str, Any] = {"id": self.id, "object": "realtime.item", "type": self.kind, "status": self.status}
        match self.kind:
            case "message":
                shown["role"] = self.role
                field_name = "transcript" if self.part.endswith("audio") else "text"
                text = None if self.part == "input_audio" and not self.text else self.text
                shown["content"] = [] if self.is_open else [{"type": self.part, field_name: text}]
            case "function_call":
                shown |= {"call_id": self.call_id, "name": self.name, "arguments": self.text}
            case _:
                shown |= {"call_id": self.call_id, "output": self.text}
        return shown

    @property
    def audio_ms(self) -> int:
        """How much speech was made of it."""
        return self.spoken[-1][0] if self.spoken else 0

    def cut(self, heard_ms: int) -> None:
        """Keep the words that were heard."""
        place = bisect_right(self.spoken, heard_ms, key=lambda one: one[0])
        begin_ms, begin = self.spoken[place - 1] if place else (0, 0)
        kept, spoken = self.text[:begin], self.spoken[:place]
        if place < len(self.spoken):
            end_ms, end = self.spoken[place]
            share = (heard_ms - begin_ms) / max(1, end_ms - begin_ms)
            words = self.text[begin:end].split()
            kept += " ".join(words[: int(len(words) * share)])
            spoken = [*spoken, (heard_ms, len(kept))]
        if len(kept) < len(self.text.rstrip()):
            self.status = "incomplete"
        self.text, self.spoken = kept.rstrip(), spoken


class Items:
    """One conversation's."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def __len__(self) -> int:
        return len(self._items)

    @property
    def last_id(self) -> str | None:
        """The newest."""
        return next(reversed(self._items), None)

    def get(self, item_id: Any) -> Item:
        """Return an item. Raises ItemError."""
        item = self._items.get(item_id) if isinstance(item_id, str) else None
        if item is None:
            raise ItemError("item_id", f"there is no item {str(item_id)[:64]!r}")
        return item

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put an item behind another, or behind all; return which one is before it. Raises ItemError."""
        if item.id in self._items:
            raise ItemError("item.id", f"there is an item {item.id!r} already")
        if after is not None and after != ROOT and after not in self._items:
            raise ItemError("previous_item_id", f"there is no item {after[:64]!r}")
        total = len(item.text) + sum(len(one.text) for one in self._items.values())
        while self._items and (len(self._items) >= MAX_ITEMS or total > MAX_TOTAL):
            total -= len(self._items.pop(next(iter(self._items))).text)
        last = self.last_id
        if after is None or after == last:
            self._items[item.id] = item
            return last
        order = list(self._items.values())
        place = 0 if after == ROOT else next((n + 1 for n, one in enumerate(order) if one.id == after), 0)
        order.insert(place, item)
        self._items = {one.id: one for one in order}
        return order[place - 1].id if place else None

    def delete(self, item_id: Any) -> None:
        """Forget an item. Raises ItemError."""
        del self._items[self.get(item_id).id]

    def messages(self, instructions: str) -> list[dict[str, Any]]:
        """Return the conversation as Chat Completions has it."""
        outputs = {item.call_id: item.text for item in self._items.values() if item.kind == "function_call_output"}
        messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
        calls: list[dict[str, Any]] = []  # of one answer
        for item in (*self._items.values(), None):
            if item is not None and item.kind == "function_call":
                if item.call_id in outputs:  # servers refuse a call without its output
                    function = {"name": item.name, "arguments": item.text}
                    calls.append({"id": item.call_id, "type": "function", "function": function})
                continue
            if calls:  # the outputs follow the calls, whoever spoke in between
                messages.append({"role": "assistant", "content": None, "tool_calls": calls})
                messages += [{"role": "tool", "tool_call_id": c["id"], "content": outputs[c["id"]]} for c in calls]
                calls = []
            if item is not None and item.kind == "message" and item.text:
                messages.append({"role": item.role, "content": item.text})
        return messages


def parse_item(value: Any, new_id: str) -> Item:
    """Return what a client puts into the conversation. Raises ItemError."""
    if not isinstance(value, dict):
        raise ItemError("item", "an object is needed")
    item_id = value.get("id") or new_id
    if not isinstance(item_id, str) or not 0 < len(item_id) <= 64:
        raise ItemError("item.id", "text of at most 64 characters")
    match value.get("type"):
        case "message":
            return _message(value, item_id)
        case "function_call_output":
            output = value.get("output")
            text = output if isinstance(output, str) else ""
            return Item(item_id, "function_call_output", text=_short(text, "item.output"), call_id=_call_id(value))
        case "function_call":
            arguments = value.get("arguments")
            text = _short(arguments if isinstance(arguments, str) else "", "item.arguments")
            name = str(value.get("name") or "")[:256]
            return Item(item_id, "function_call", text=text, call_id=_call_id(value), name=name)
        case _:
            raise ItemError("item.type", "message, function_call or function_call_output")


def _message(value: dict[str, Any], item_id: str) -> Item:
    role, content = value.get("role"), value.get("content")
    if role not in ("user", "assistant", "system"):
        raise ItemError("item.role", "user, assistant or system")
    if not isinstance(content, list) or not content:
        raise ItemError("item.content", "a list with at least one part")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("input_text", "output_text", "text", "output_audio", "input_audio"):
            raise ItemError("item.content", f"a pipeline understands text, not {str(kind)[:32]!r}")
        text = part.get("text") or part.get("transcript")
        if not isinstance(text, str):
            raise ItemError("item.content", "a part without its text")
        texts.append(text)
    part_kind = "output_text" if role == "assistant" else "input_text"
    return Item(item_id, "message", role, part_kind, _short("\n".join(texts), "item.content"))


def _call_id(value: dict[str, Any]) -> str:
    call_id = value.get("call_id")
    if not isinstance(call_id, str) or not 0 < len(call_id) <= 256:
        raise ItemError("item.call_id", "the call_id of the function call is needed")
    return call_id


def _short(text: str, param: str) -> str:
    if len(text) > MAX_TEXT:
        raise ItemError(param, f"at most {MAX_TEXT} characters")
    return text
