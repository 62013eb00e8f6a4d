"""The Realtime API's session object: what a caller may set of it, and our audio formats in it.

Owns: those two. Does not own: when it is sent (media/openai_realtime.py), its check at the gateway (contract.session_object).
"""

import json
from collections.abc import Mapping
from typing import Any

from voicefleet_dataplane.media.realtime_profiles import Dialect

# Of a session object, whoever brings it: set by the server, or by the resource's URL, and by nobody else. Clients name the model that
# their package has as its default.
_NOT_OURS_TO_SET = frozenset(("id", "object", "expires_at", "client_secret", "model"))


def settable(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return it without what is not the caller's to set."""
    return {key: value for key, value in session.items() if key not in _NOT_OURS_TO_SET}


def with_formats(session: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The transceiver owns the audio: its format is ours, whatever a client asks for."""
    set_to = dict(session)
    if not dialect.nested_audio:
        return set_to | {"input_audio_format": "pcm16", "output_audio_format": "pcm16"}
    audio = dict(find_object(session, "audio"))
    for way in ("input", "output"):
        audio[way] = dict(find_object(audio, way)) | {"format": {"type": "audio/pcm", "rate": int(dialect.rate)}}
    set_to["audio"] = audio
    return set_to


def wrong_format(event: Mapping[str, Any], dialect: Dialect) -> str:
    """What the agent made of our formats, if it is not what we said: samples of another rate are noise."""
    if not dialect.nested_audio:
        return ""
    audio = find_object(find_object(event, "session"), "audio")
    for way in ("input", "output"):
        found = find_object(find_object(audio, way), "format")
        if found and (found.get("type"), found.get("rate", dialect.rate)) != ("audio/pcm", dialect.rate):
            return f"the agent's {way} audio is {json.dumps(found)[:100]}, not audio/pcm at {int(dialect.rate)} Hz"
    return ""


def find_object(value: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Return the object in a field; an empty one if there is none."""
    found = value.get(field)
    return found if isinstance(found, dict) else {}
