"""What a response is asked for, and what the text handler is asked for it.

Owns: `response.create`'s fields, the body of a Chat Completions request. Does not own: its messages (items.py), its answer
(chat.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from voicefleet_dataplane.media.pipeline.items import ItemError
from voicefleet_dataplane.media.pipeline.session import (
    MAX_INSTRUCTIONS,
    SessionObject,
    parse_max_tokens,
    parse_modalities,
    parse_tool_choice,
    parse_tools,
)

_MAX_METADATA = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """The session as it is for one response."""

    session: SessionObject
    metadata: dict[str, str] | None = None


def parse_wanted(given: Mapping[str, Any], session: SessionObject) -> Wanted:
    """Return what `response.create` asks for. Raises ItemError, SessionError."""
    metadata = None
    for name, value in given.items():
        if value is None:
            continue
        match name:
            case "instructions":
                if not isinstance(value, str) or len(value) > MAX_INSTRUCTIONS:
                    raise ItemError("response.instructions", f"text of at most {MAX_INSTRUCTIONS} characters")
                session = replace(session, instructions=value)
            case "output_modalities":
                session = replace(session, modalities=parse_modalities(value))
            case "tools":
                session = replace(session, tools=parse_tools(value))
            case "tool_choice":
                session = replace(session, tool_choice=parse_tool_choice(value))
            case "max_output_tokens":
                session = replace(session, max_output_tokens=parse_max_tokens(value))
            case "conversation" if value != "auto":
                raise ItemError("response.conversation", "a pipeline has one conversation: auto")
            case "input" | "prompt":
                raise ItemError(f"response.{name}", "a pipeline answers its conversation: create items in it")
            case "metadata":
                metadata = _metadata(value)
    return Wanted(session, metadata)


def build_request(session: SessionObject, messages: list[dict[str, Any]], model: str, call_id: str) -> dict[str, Any]:
    """Return the body that the text handler gets."""
    request: dict[str, Any] = {"model": model or "default", "stream": True, "user": call_id, "messages": messages}
    if session.tools:
        request["tools"] = [
            {"type": "function", "function": {key: tool[key] for key in _OF_A_TOOL if key in tool}}
            for tool in session.tools
        ]
        choice = session.tool_choice
        if isinstance(choice, dict):
            choice = {"type": "function", "function": {"name": choice["name"]}}
        request["tool_choice"] = choice
    if session.max_output_tokens != "inf":
        request["max_tokens"] = session.max_output_tokens
    return request


_OF_A_TOOL = ("name", "description", "parameters")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > _MAX_METADATA or not all(isinstance(v, str) for v in value.values()):
        raise ItemError("response.metadata", f"an object of at most {_MAX_METADATA} texts")
    return value
