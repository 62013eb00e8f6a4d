"""Which of a client's data channels is its events' channel.

`oai-events` is, when there is one. Public clients have other names for it (`realtime-channel`, `response`, none at all): the first
channel that nobody else takes is adopted at once, since it may be waiting for `session.created`, and the one that says an
event first is the right one. What an adopted channel was told is told again to the right one.

Owns: that choice, and the word to a channel whose messages nobody takes. Does not own: what is told (media/client_events.py).
"""

from voicefleet_contract.http_api import MAX_EVENT_BYTES
from voicefleet_contract.outside import JsonError, parse_json
from voicefleet_dataplane.media.backend import Channel, Message
from voicefleet_dataplane.media.event_errors import build_error
from voicefleet_dataplane.media.events import EventHub

EVENTS_LABEL = "oai-events"
_LABEL_CHARS = 64


class EventChannels:
    """One peer connection's. ``backend_takes``: its backend does something with channels of other names itself."""

    def __init__(self, hub: EventHub, *, backend_takes: bool) -> None:
        self._hub = hub
        self._backend_takes = backend_takes
        self._events: Channel | None = None
        self._is_sure = False
        self._told: set[int] = set()  # channels that know that nobody listens

    def open(self, channel: Channel) -> bool:
        """The client opened one; False if it is the backend's."""
        if channel.label == EVENTS_LABEL:
            self._adopt(channel, is_sure=True)
        elif self._backend_takes:
            return False
        elif self._events is None:
            self._adopt(channel, is_sure=False)
        return True

    def hear(self, channel: Channel, message: Message) -> bool:
        """The client said something in one; False if it is for the backend."""
        text = message if isinstance(message, str) else _text_of(message)
        if channel is self._events and (isinstance(message, str) or (text is not None and not self._backend_takes)):
            if not self._is_sure and _is_event(text):
                self._is_sure = True
                self._hub.trust_channel()
            self._hub.hear(text or "")
        elif self._backend_takes:
            return False
        elif not self._is_sure and channel is not self._events and _is_event(text):
            self._adopt(channel, is_sure=True)
            self._hub.hear(text or "")
        else:
            self._refuse(channel)
        return True

    def _adopt(self, channel: Channel, *, is_sure: bool) -> None:
        self._events, self._is_sure = channel, is_sure
        self._hub.open_channel(channel, is_sure=is_sure)

    def _refuse(self, channel: Channel) -> None:
        if id(channel) in self._told:
            return
        self._told.add(id(channel))
        events = self._events.label[:_LABEL_CHARS] if self._events is not None else EVENTS_LABEL
        message = (
            f"nobody takes this message of the channel {channel.label[:_LABEL_CHARS]!r}: "
            f"events are JSON text in the channel {events!r}"
        )
        channel.send(build_error("unknown_channel", message))


def _text_of(message: bytes) -> str | None:
    try:
        return message.decode()
    except UnicodeDecodeError:
        return None


def _is_event(text: str | None) -> bool:
    if text is None or len(text) > MAX_EVENT_BYTES:
        return False
    try:
        value = parse_json(text, MAX_EVENT_BYTES)
    except JsonError:
        return False
    return isinstance(value, dict) and isinstance(value.get("type"), str)
