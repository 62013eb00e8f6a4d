"""What a client may do to the items of its conversation, and what it is told of them.

Owns: the events of items. Does not own: the items (media/pipeline/items.py), when somebody has spoken or was interrupted
(media/pipeline/conversation.py).
"""

from typing import Any

from voicefleet_dataplane.media.pipeline.actions import Actions
from voicefleet_dataplane.media.pipeline.events import EventWriter
from voicefleet_dataplane.media.pipeline.items import Item, ItemError, Items, parse_item


class ItemEvents:
    """One call's."""

    def __init__(self, items: Items, events: EventWriter) -> None:
        self._items = items
        self._events = events

    def create(self, given: Any, after: Any) -> Actions:
        """Put an item into the conversation. Raises ItemError."""
        item = parse_item(given, self._events.new_id("item"))
        return self.added(item, self._items.add(item, after if isinstance(after, str) else None))

    def retrieve(self, item_id: Any) -> Actions:
        """Show an item. Raises ItemError."""
        return [self._events.tell("conversation.item.retrieved", item=self._items.get(item_id).to_json())]

    def delete(self, item_id: Any) -> Actions:
        """Take an item out. Raises ItemError."""
        self._items.delete(item_id)
        return [self._events.tell("conversation.item.deleted", item_id=item_id)]

    def truncate(self, item_id: Any, heard_ms: Any) -> Actions:
        """Remember that no more of an answer was heard. Raises ItemError."""
        item = self._items.get(item_id)
        if item.part != "output_audio":
            raise ItemError("item_id", "only what was spoken can be truncated")
        if isinstance(heard_ms, bool) or not isinstance(heard_ms, int) or heard_ms < 0:
            raise ItemError("audio_end_ms", "a number of milliseconds")
        if heard_ms > item.audio_ms and item.status != "in_progress":
            raise ItemError("audio_end_ms", f"the item has {item.audio_ms} ms of audio")
        return self.cut(item, heard_ms)

    def added(self, item: Item, previous: str | None) -> Actions:
        """An item stands behind another, complete."""
        shown = item.to_json()
        return [
            self._events.tell(f"conversation.item.{what}", previous_item_id=previous, item=shown)
            for what in ("added", "done")
        ]

    def cut(self, item: Item, heard_ms: int) -> Actions:
        """So much of an item was heard."""
        item.cut(heard_ms)
        return [
            self._events.tell("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=heard_ms)
        ]
