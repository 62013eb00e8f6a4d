"""A Realtime API server that holds a conversation: it hears speech begin and end, and answers with what the test wrote down.

Everything but the understanding is as the real server does it: turns by voice activity, items, transcripts, responses with all their events,
function calls, cancelling, truncation, retrieval. Audio comes faster than it can be played.
"""

import asyncio
import base64
import itertools
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.agent_doubles import HOST, RealtimeAgent

RATE = 24_000
FRAME_BYTES = RATE // 50 * 2
_LOUD = 300.0  # mean amplitude of a frame with speech
_BEGINS_FRAMES, _ENDS_FRAMES = 3, 25


@dataclass(frozen=True)
class Speak:
    """An answer: samples at 24 kHz, and their words. One that is not complete goes on until somebody stops it."""

    pcm: bytes
    words: str
    complete: bool = True


@dataclass(frozen=True)
class Call:
    """An answer that asks the client's tool."""

    name: str
    arguments: dict[str, Any]


class ConversingAgent(RealtimeAgent):
    """`script` has the next answers; `heard_as` what each turn of the user is said to have been."""

    def __init__(
        self,
        script: Sequence[Speak | Call] = (),
        heard_as: str = "what the user said",
        port: int = 0,
        host: str = HOST,
    ) -> None:
        super().__init__(port=port, host=host)
        self.script = deque(script)
        self.heard_as = heard_as
        self.turns: list[bytes] = []  # the user's, in samples
        self.items: dict[str, dict[str, Any]] = {}
        self.outputs: list[dict[str, Any]] = []  # of functions
        self._ids = itertools.count(1)
        self._frame = bytearray()
        self._turn: bytearray | None = None
        self._loud = self._quiet = 0
        self._last_item: str | None = None
        self._response: dict[str, Any] | None = None

    def _id(self, kind: str) -> str:
        return f"{kind}_{next(self._ids):04d}"

    # ---- what the client sends

    async def on_event(self, socket: Any, event: dict[str, Any]) -> None:
        match event["type"]:
            case "input_audio_buffer.append":
                audio = base64.b64decode(event["audio"], validate=True)
                self.pcm += audio
                self._frame += audio
                while len(self._frame) >= FRAME_BYTES:
                    frame = bytes(self._frame[:FRAME_BYTES])
                    del self._frame[:FRAME_BYTES]
                    await self._listen(frame)
            case "conversation.item.create":
                item = {"id": self._id("item"), "object": "realtime.item", "status": "completed"} | event["item"]
                if item["type"] == "function_call_output":
                    self.outputs.append(item)
                await self._add(item)
            case "conversation.item.retrieve":
                item = self.items.get(event["item_id"])
                if item is None:
                    await self._refuse(event, "item_not_found")
                else:
                    await self.emit("conversation.item.retrieved", item=item)
            case "conversation.item.truncate":
                item = self.items.get(event["item_id"])
                if item is None or item["role"] != "assistant":
                    await self._refuse(event, "invalid_item")
                    return
                where = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
                item["content"] = [{"type": "output_audio", "transcript": ""}]
                await self.emit("conversation.item.truncated", **where)
            case "response.create":
                await self.answer()
            case "response.cancel":
                if self._response is None:
                    await self._refuse(event, "response_cancel_not_active")
                else:
                    await self._done("cancelled")
            case _:
                await super().on_event(socket, event)

    async def _refuse(self, event: dict[str, Any], code: str) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": code, "param": None}
        await self.emit("error", error=error | {"event_id": event.get("event_id")})

    async def _add(self, item: dict[str, Any]) -> None:
        self.items[item["id"]] = item
        previous, self._last_item = self._last_item, item["id"]
        await self.emit("conversation.item.added", item=item, previous_item_id=previous)
        await self.emit("conversation.item.done", item=item, previous_item_id=previous)

    # ---- turns

    async def _listen(self, frame: bytes) -> None:
        loud = np.abs(np.frombuffer(frame, "<i2").astype(int)).mean() > _LOUD
        self._loud, self._quiet = (self._loud + 1, 0) if loud else (0, self._quiet + 1)
        at_ms = len(self.pcm) // (RATE // 1_000 * 2)
        if self._turn is None:
            if self._loud >= _BEGINS_FRAMES:
                self._turn, self._user_item = bytearray(), self._id("item")
                await self.emit("input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=self._user_item)
                if self._response is not None:
                    await self._done("cancelled")
            return
        self._turn += frame
        if self._quiet >= _ENDS_FRAMES:
            await self._turn_ended(at_ms)

    async def _turn_ended(self, at_ms: int) -> None:
        assert self._turn is not None
        self.turns.append(bytes(self._turn))
        self._turn = None
        item = {
            "id": self._user_item, "object": "realtime.item", "type": "message", "role": "user", "status": "completed",
            "content": [{"type": "input_audio", "transcript": None}],
        }  # fmt: skip
        await self.emit("input_audio_buffer.speech_stopped", audio_end_ms=at_ms, item_id=item["id"])
        await self.emit("input_audio_buffer.committed", item_id=item["id"], previous_item_id=self._last_item)
        await self._add(item)
        where = {"item_id": item["id"], "content_index": 0}
        await self.emit("conversation.item.input_audio_transcription.delta", **where, delta=self.heard_as)
        self.items[item["id"]] = item | {"content": [{"type": "input_audio", "transcript": self.heard_as}]}
        usage = {"type": "duration", "seconds": len(self.turns[-1]) / 2 / RATE}
        await self.emit(
            "conversation.item.input_audio_transcription.completed", **where, transcript=self.heard_as, usage=usage
        )
        await self.answer()

    # ---- answers

    async def answer(self) -> None:
        """The next of the script."""
        what = self.script.popleft()
        self._response = {"id": self._id("resp"), "object": "realtime.response", "status": "in_progress", "output": []}
        await self.emit("response.created", response=self._response)
        if isinstance(what, Call):
            await self._call(what, self._response["id"])
        else:
            await self._speak(what, self._response["id"])

    async def _speak(self, what: Speak, response: str) -> None:
        item = {"id": self._id("item"), "object": "realtime.item", "type": "message", "role": "assistant", "status": "in_progress", "content": []}  # fmt: skip
        where = {"response_id": response, "output_index": 0}
        await self.emit("response.output_item.added", **where, item=item)
        self.items[item["id"]] = item
        previous, self._last_item = self._last_item, item["id"]
        await self.emit("conversation.item.added", item=item, previous_item_id=previous)
        where |= {"item_id": item["id"], "content_index": 0}
        await self.emit("response.content_part.added", **where, part={"type": "audio", "transcript": ""})
        words = what.words.split(" ")
        for index, start in enumerate(range(0, len(what.pcm), RATE)):  # half a second each
            if self._response is None or self._response["id"] != response:
                return
            if index < len(words):
                delta = words[index] if index == 0 else " " + words[index]
                await self.emit("response.output_audio_transcript.delta", **where, delta=delta)
            audio = base64.b64encode(what.pcm[start : start + RATE]).decode()
            await self.emit("response.output_audio.delta", **where, delta=audio)
            await asyncio.sleep(0)
        if not what.complete:
            return
        await self.emit("response.output_audio.done", **where)
        await self.emit("response.output_audio_transcript.done", **where, transcript=what.words)
        part = {"type": "audio", "transcript": what.words}
        await self.emit("response.content_part.done", **where, part=part)
        done = item | {"status": "completed", "content": [{"type": "output_audio", "transcript": what.words}]}
        self.items[item["id"]] = done
        await self.emit("conversation.item.done", item=done, previous_item_id=previous)
        await self.emit("response.output_item.done", response_id=response, output_index=0, item=done)
        await self._done("completed", done)

    async def _call(self, what: Call, response: str) -> None:
        item = {
            "id": self._id("item"), "object": "realtime.item", "type": "function_call", "status": "in_progress",
            "name": what.name, "call_id": self._id("call"), "arguments": "",
        }  # fmt: skip
        text = json.dumps(what.arguments)
        where = {"response_id": response, "output_index": 0}
        await self.emit("response.output_item.added", **where, item=item)
        named = where | {"item_id": item["id"], "call_id": item["call_id"]}
        await self.emit("response.function_call_arguments.delta", **named, delta=text)
        await self.emit("response.function_call_arguments.done", **named, arguments=text)
        done = item | {"status": "completed", "arguments": text}
        await self._add(done)
        await self.emit("response.output_item.done", **where, item=done)
        await self._done("completed", done)

    async def _done(self, status: str, *output: dict[str, Any]) -> None:
        response, self._response = self._response, None
        if response is not None:
            usage = {"total_tokens": 2, "input_tokens": 1, "output_tokens": 1}
            await self.emit("response.done", response=response | {"status": status, "output": output, "usage": usage})
