"""A Pipecat client's chat, and the room behind it, which remember."""

import json

from voicefleet_dataplane.media.backend import Digit
from voicefleet_dataplane.media.rtvi import Rtvi


class Chat:
    """Channel and Room of one Rtvi."""

    label = "chat"

    def __init__(self) -> None:
        self.told: list[dict] = []
        self.heard: list[dict] = []
        self.pressed: list[str] = []
        self.left = 0
        self.rtvi = Rtvi(self, self, lambda: "2026-11-26T05:00:00.000+00:00")

    def send(self, message) -> bool:
        self.told.append(json.loads(message))
        return True

    def hear(self, event: str) -> None:
        self.heard.append(json.loads(event))

    def press(self, digit: Digit) -> None:
        self.pressed.append(digit.digit)

    def leave(self) -> None:
        self.left += 1

    def say(self, kind: str, data=None, number: str = "n1") -> None:
        self.rtvi.on_message(json.dumps({"label": "rtvi-ai", "type": kind, "data": data, "id": number}))

    def event(self, kind: str, **fields) -> list[tuple[str, dict]]:
        self.told.clear()
        assert self.rtvi.on_event(json.dumps({"type": kind} | fields))
        assert all(message["label"] == "rtvi-ai" and message["id"] for message in self.told)
        return [(message["type"], message["data"]) for message in self.told]
