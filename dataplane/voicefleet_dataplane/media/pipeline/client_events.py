"""What a client, or who watches a call, may ask of a conversation: events of the OpenAI Realtime API, taken apart.

Owns: which events there are, and in which words one is refused. Does not own: what they bring about (media/pipeline/conversation.py,
media/pipeline/item_events.py).
Invariant: whatever comes is answered, with events of the API and nothing else; what is refused has changed nothing.
"""

from collections.abc import Mapping
from typing import Any

from voicefleet_dataplane.media.agent import AgentError, parse_json_object
from voicefleet_dataplane.media.pipeline.actions import Actions
from voicefleet_dataplane.media.pipeline.conversation import Conversation
from voicefleet_dataplane.media.pipeline.events import EventError, EventWriter
from voicefleet_dataplane.media.pipeline.items import ItemError
from voicefleet_dataplane.media.pipeline.session import SessionError


class ClientEvents:
    """One call's."""

    def __init__(self, conversation: Conversation, events: EventWriter) -> None:
        self._conversation = conversation
        self._events = events

    def take(self, text: str, now: float) -> Actions:
        """Do what an event asks for, or say why not."""
        try:
            event = parse_json_object(text)
        except AgentError as error:
            return [self._events.error("invalid_json", f"an event is a JSON object: {error}")]
        given = event.get("event_id")
        event_id = given[:256] if isinstance(given, str) else None
        try:
            return self._do(event, now)
        except EventError as error:
            return [self._events.error(error.code, str(error), param=error.param, event_id=event_id)]
        except (SessionError, ItemError) as error:
            return [self._events.error("invalid_value", str(error), param=error.param, event_id=event_id)]

    def _do(self, event: dict[str, Any], now: float) -> Actions:
        conversation = self._conversation
        match event.get("type"):
            case "session.update":
                session = event.get("session")
                if not isinstance(session, Mapping):
                    raise EventError("invalid_value", "session.update needs its object 'session'")
                return conversation.update_session(session)
            case "response.create":
                return conversation.create_response(event.get("response"), now)
            case "response.cancel":
                return conversation.cancel_response(event.get("response_id"))
            case "conversation.item.create":
                return conversation.item_events.create(event.get("item"), event.get("previous_item_id"))
            case "conversation.item.retrieve":
                return conversation.item_events.retrieve(event.get("item_id"))
            case "conversation.item.delete":
                return conversation.item_events.delete(event.get("item_id"))
            case "conversation.item.truncate":
                return conversation.item_events.truncate(event.get("item_id"), event.get("audio_end_ms"))
            case "input_audio_buffer.commit":
                return conversation.commit_audio(now)
            case "input_audio_buffer.clear":
                return conversation.forget_audio()
            case "output_audio_buffer.clear":
                return conversation.stop_speaking()
            case "input_audio_buffer.append":
                raise EventError("unsupported_event", "audio comes over the call's audio track, not in events")
            case str(kind):
                raise EventError("unknown_event", f"there is no client event {kind[:64]!r}", param="type")
            case _:
                raise EventError("missing_type", "an event needs its 'type'")
