"""What of the answers is on its way to the client's ear, and what the client was told of it.

Owns: the events of the output audio buffer. Does not own: the voice, what was said, what is remembered of it.
"""

from voicefleet_dataplane.media.pipeline.actions import Actions
from voicefleet_dataplane.media.pipeline.events import EventWriter


class Playback:
    """One call's."""

    def __init__(self, events: EventWriter) -> None:
        self._events = events
        self._sounding: dict[str, str] = {}  # item → response, not heard to the end
        self._playing = ""  # the response that the client was told about

    @property
    def is_pending(self) -> bool:
        """Whether there is anything that was not heard to its end."""
        return bool(self._sounding)

    def add(self, item: str, response: str) -> None:
        """More speech of an item waits to go out."""
        self._sounding[item] = response

    def playing(self, item: str) -> Actions:
        """The first of an item goes out."""
        response = self._sounding.get(item, "")
        if not response or response == self._playing:
            return []
        self._playing = response
        return [self._events.tell("output_audio_buffer.started", response_id=response)]

    def ended(self, response: str) -> Actions:
        """A response was heard to its end."""
        for item in [item for item, of in self._sounding.items() if of == response]:
            del self._sounding[item]
        if response != self._playing:
            return []
        self._playing = ""
        return [self._events.tell("output_audio_buffer.stopped", response_id=response)]

    def stop(self, *, was_speaking: bool) -> tuple[dict[str, str], Actions]:
        """The voice was stopped; gives what had not been heard to its end, by item, and what to tell."""
        sounding, playing = self._sounding, self._playing or next(iter(self._sounding.values()), "")
        self._sounding, self._playing = {}, ""
        if not was_speaking or not playing:
            return sounding, []
        return sounding, [self._events.tell("output_audio_buffer.cleared", response_id=playing)]
