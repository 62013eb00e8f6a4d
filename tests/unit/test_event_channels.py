"""The events' channel by any name, and a word to channels that nobody listens to."""

import json

import pytest

from voicefleet_dataplane.media.event_channels import EventChannels
from voicefleet_dataplane.media.events import EventHub


class Channel:
    takes_bytes = 0

    def __init__(self, label: str) -> None:
        self.label, self.sent = label, []

    def send(self, message):
        self.sent.append(message)
        return True

    def errors(self) -> list[str]:
        return [json.loads(one)["error"]["code"] for one in self.sent if one.startswith('{"type": "error"')]


class World:
    def __init__(self, *, backend_takes: bool = False) -> None:
        self.heard: list[str] = []
        self.hub = EventHub(self.heard.append)
        self.channels = EventChannels(self.hub, backend_takes=backend_takes)

    def open(self, label: str) -> Channel:
        channel = Channel(label)
        assert self.channels.open(channel)
        return channel


EVENT = '{"type":"response.create"}'


@pytest.mark.parametrize(
    "label", ["oai-events", "realtime-channel", "response", "", "events", "data", "chat", "x" * 5_000]
)
def test_the_channel_that_a_client_opens_is_its_events_channel(label):
    world = World()
    world.hub.tell("created")
    channel = world.open(label)
    world.hub.tell("later")
    assert channel.sent == ["created", "later"]
    assert world.channels.hear(channel, EVENT)
    assert world.heard == [EVENT]


def test_oai_events_takes_the_place_of_an_adopted_channel_and_misses_nothing():
    world = World()
    world.hub.tell("one")
    other = world.open("telemetry")
    world.hub.tell("two")
    events = world.open("oai-events")
    world.hub.tell("three")
    assert other.sent == ["one", "two"]
    assert events.sent == ["one", "two", "three"]
    assert world.channels.hear(other, EVENT)
    assert (world.heard, other.errors()) == ([], ["unknown_channel"])


def test_who_says_an_event_first_has_the_events_channel():
    world = World()
    telemetry, events = world.open("telemetry"), world.open("realtime-channel")
    world.hub.tell("created")
    assert world.channels.hear(events, EVENT)
    world.hub.tell("later")
    assert world.heard == [EVENT]
    assert events.sent == ["created", "later"]
    assert world.channels.hear(telemetry, EVENT)
    assert (world.heard, telemetry.errors()) == ([EVENT], ["unknown_channel"])


def test_a_channel_whose_messages_nobody_takes_is_told_so_once():
    world = World()
    events, other = world.open("oai-events"), world.open("other")
    for message in ("hello", b"\x00\xff", EVENT, EVENT):
        assert world.channels.hear(other, message)
    assert other.errors() == ["unknown_channel"]
    assert "'other'" in json.loads(other.sent[0])["error"]["message"]
    assert "'oai-events'" in json.loads(other.sent[0])["error"]["message"]
    assert world.channels.hear(events, b"\xff")
    assert (events.errors(), world.heard) == (["unknown_channel"], [])


def test_an_event_in_a_binary_message_is_an_event():
    """Libraries whose `send` takes bytes send them as binary."""
    world = World()
    channel = world.open("oai-events")
    assert world.channels.hear(channel, EVENT.encode())
    assert world.heard == [EVENT]


def test_a_backend_that_takes_channels_keeps_them():
    world = World(backend_takes=True)
    channel, events = Channel("data"), world.open("oai-events")
    assert not world.channels.open(channel)
    assert not world.channels.hear(channel, EVENT)
    assert not world.channels.hear(events, b"\x00")
    assert world.channels.hear(events, EVENT)
    assert world.heard == [EVENT]


def test_what_an_adopted_channel_says_that_is_no_event_is_answered_by_the_backend():
    world = World()
    channel = world.open("response")
    assert world.channels.hear(channel, "hello")
    assert world.heard == ["hello"]
    assert channel.errors() == []
