"""The session object of the Realtime API, as far as a pipeline has something to set.

What is shown is what holds: audio formats are ours (audio comes over the call's track), the model is the resource's, and
`semantic_vad` becomes the `server_vad` that its eagerness stands for.

Owns: which fields can be set to what. Does not own: what they do.
Invariant: an update takes effect whole or not at all, and a refused one names its field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from voicefleet_dataplane.media.pipeline.turns import Patience

MAX_INSTRUCTIONS = 64 * 1024
MAX_TOOLS = 128
_FORMAT = {"type": "audio/pcm", "rate": 24_000}
_DEFAULT_VOICE = "default"  # the engine's own
_SILENCE_MS = {"low": 1_000, "medium": 600, "auto": 600, "high": 300}  # of semantic_vad's eagerness
_NO_EFFECT = frozenset(  # set by clients as a matter of course; nothing here depends on them
    (
        "client_secret",
        "expires_at",
        "id",
        "include",
        "model",
        "object",
        "parallel_tool_calls",
        "reasoning",
        "tracing",
        "truncation",
        "type",
    )
)


class SessionError(ValueError):
    """An update asks for what cannot be set; `param` is the field."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"session.{param}: {message}")
        self.param = f"session.{param}"


@dataclass(frozen=True, slots=True)
class SessionObject:
    """One call's settings."""

    id: str
    model: str
    transcriber: str
    voice: str
    instructions: str = ""
    modalities: tuple[str, ...] = ("audio",)
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | dict[str, Any] = "auto"
    max_output_tokens: int | str = "inf"
    speed: float = 1.0
    transcribes: bool = True
    detects_turns: bool = True
    patience: Patience = field(default_factory=Patience)
    creates_response: bool = True
    interrupts: bool = True

    def updated(self, change: Mapping[str, Any]) -> "SessionObject":
        """Return the object with a `session.update` applied. Raises SessionError."""
        fields: dict[str, Any] = {}
        for name, value in change.items():
            match name:
                case "audio":
                    fields |= self._audio(_mapping(value, "audio"))
                case "instructions":
                    if not isinstance(value, str) or len(value) > MAX_INSTRUCTIONS:
                        raise SessionError(name, f"text of at most {MAX_INSTRUCTIONS} characters")
                    fields["instructions"] = value
                case "output_modalities":
                    fields["modalities"] = parse_modalities(value)
                case "tools":
                    fields["tools"] = parse_tools(value)
                case "tool_choice":
                    fields["tool_choice"] = parse_tool_choice(value)
                case "max_output_tokens":
                    fields["max_output_tokens"] = parse_max_tokens(value)
                case "prompt":
                    if value is not None:
                        raise SessionError(name, "there are no stored prompts here; use instructions")
                case _ if name not in _NO_EFFECT:
                    raise SessionError(name[:64], "there is no such field")
        return replace(self, **fields)

    def to_json(self) -> dict[str, Any]:
        """Return the object as events show it."""
        detection = {
            "type": "server_vad",
            "threshold": self.patience.threshold,
            "prefix_padding_ms": self.patience.prefix_padding_ms,
            "silence_duration_ms": self.patience.silence_duration_ms,
            "idle_timeout_ms": None,
            "create_response": self.creates_response,
            "interrupt_response": self.interrupts,
        }
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": self.id,
            "model": self.model,
            "output_modalities": list(self.modalities),
            "instructions": self.instructions,
            "tools": list(self.tools),
            "tool_choice": self.tool_choice,
            "max_output_tokens": self.max_output_tokens,
            "tracing": None,
            "prompt": None,
            "truncation": "auto",
            "include": None,
            "audio": {
                "input": {
                    "format": _FORMAT,
                    "transcription": {"model": self.transcriber} if self.transcribes else None,
                    "noise_reduction": None,
                    "turn_detection": detection if self.detects_turns else None,
                },
                "output": {"format": _FORMAT, "voice": self.voice or _DEFAULT_VOICE, "speed": self.speed},
            },
        }

    def output_json(self) -> dict[str, Any]:
        """Return `audio` as a response shows it."""
        return {"output": {"format": _FORMAT, "voice": self.voice or _DEFAULT_VOICE}}

    def _audio(self, audio: Mapping[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        heard = _mapping(audio.get("input", {}), "audio.input")
        if "transcription" in heard:
            fields["transcribes"] = heard["transcription"] is not None
        if "turn_detection" in heard:
            fields |= self._turn_detection(heard["turn_detection"])
        said = _mapping(audio.get("output", {}), "audio.output")
        speed = said.get("speed")
        if speed is not None:
            fields["speed"] = _number(speed, 0.25, 1.5, "audio.output.speed")
        # The voice is the resource's: a client that asks for one of OpenAI's is shown which it gets.
        return fields

    def _turn_detection(self, value: Any) -> dict[str, Any]:
        name = "audio.input.turn_detection"
        if value is None:
            return {"detects_turns": False}
        given = _mapping(value, name)
        kind = given.get("type", "server_vad")
        patience = self.patience if self.detects_turns else Patience()
        if kind == "semantic_vad":
            eagerness = given.get("eagerness") or "auto"
            if not isinstance(eagerness, str) or eagerness not in _SILENCE_MS:
                raise SessionError(f"{name}.eagerness", "low, medium, high or auto")
            patience = replace(patience, silence_duration_ms=_SILENCE_MS[eagerness])
        elif kind != "server_vad":
            raise SessionError(f"{name}.type", "server_vad, semantic_vad, or null in place of the object")
        fields: dict[str, Any] = {"detects_turns": True}
        if given.get("threshold") is not None:
            patience = replace(patience, threshold=_number(given["threshold"], 0.05, 1.0, f"{name}.threshold"))
        for one, least, most in (("prefix_padding_ms", 0, 2_000), ("silence_duration_ms", 100, 10_000)):
            if given.get(one) is not None:
                patience = replace(patience, **{one: int(_number(given[one], least, most, f"{name}.{one}"))})
        for one, ours in (("create_response", "creates_response"), ("interrupt_response", "interrupts")):
            if given.get(one) is not None:
                if not isinstance(given[one], bool):
                    raise SessionError(f"{name}.{one}", "true or false")
                fields[ours] = given[one]
        return fields | {"patience": patience}


def parse_modalities(value: Any) -> tuple[str, ...]:
    """Return what a response consists of. Raises SessionError."""
    if value not in (["audio"], ["text"]):
        raise SessionError("output_modalities", '["audio"], which has a transcript too, or ["text"]')
    return tuple(value)


def parse_tools(value: Any) -> tuple[dict[str, Any], ...]:
    """Return functions that the text handler may call. Raises SessionError."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise SessionError("tools", f"a list of at most {MAX_TOOLS} functions")
    for tool in value:
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("name"), str):
            raise SessionError("tools", "each is an object with type 'function' and a name")
    return tuple(value)


def parse_tool_choice(value: Any) -> str | dict[str, Any]:
    """Return whether functions may or must be called. Raises SessionError."""
    if value is None:
        return "auto"
    if isinstance(value, dict) and value.get("type") == "function" and isinstance(value.get("name"), str):
        return value
    if value not in ("auto", "none", "required"):
        raise SessionError("tool_choice", "auto, none, required, or an object that names a function")
    return str(value)


def parse_max_tokens(value: Any) -> int | str:
    """Return the bound of an answer. Raises SessionError."""
    if value is None or value == "inf":
        return "inf"
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4_096:
        raise SessionError("max_output_tokens", "a number from 1 to 4096, or 'inf'")
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SessionError(name, "an object")
    return value


def _number(value: Any, least: float, most: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise SessionError(name, f"a number from {least:g} to {most:g}")
    return float(value)
