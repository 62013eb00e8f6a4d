"""The events of a call: client, watchers, backend."""

import json

import pytest

from voicefleet_contract.http_api import MAX_EVENT_BYTES, MAX_WATCHERS
from voicefleet_dataplane.media.client_events import MAX_WAITING, MAX_WAITING_BYTES
from voicefleet_dataplane.media.events import MAX_EVENTS_PER_S, EventHub


class Channel:
    label = "oai-events"

    def __init__(self, takes_bytes=0):
        self.sent, self.takes_bytes = [], takes_bytes

    def send(self, message):
        if self.takes_bytes and len(message) > self.takes_bytes:
            return False
        self.sent.append(message)
        return True


class Watcher:
    def __init__(self, room=1_000):
        self.room, self.told, self.closed = room, [], 0

    def on_event(self, event):
        self.told.append(event)
        return len(self.told) < self.room

    def on_closed(self):
        self.closed += 1


@pytest.fixture
def heard():
    return []


@pytest.fixture
def hub(heard):
    return EventHub(heard.append)


def test_events_wait_in_order_until_the_client_opens_its_channel(hub):
    assert hub.tell("one")
    assert hub.tell("two")
    channel = Channel()
    hub.open_channel(channel)
    hub.tell("three")
    assert channel.sent == ["one", "two", "three"]


def test_what_waits_is_bounded_in_number_and_bytes(hub, heard):
    assert all(hub.tell("x") for _ in range(MAX_WAITING))
    assert not hub.tell("x")
    other = EventHub(heard.append)
    big = "x" * (MAX_WAITING_BYTES // 4)
    assert [other.tell(big) for _ in range(5)] == [True, True, True, True, False]


def test_client_and_watchers_hear_the_same_and_may_speak(hub, heard):
    channel, one, two = Channel(), Watcher(), Watcher()
    hub.open_channel(channel)
    assert hub.watch(one)
    assert hub.watch(two)
    hub.tell("hello")
    hub.unwatch(two)
    hub.tell("again")
    hub.hear("from whoever")
    assert channel.sent == one.told == ["hello", "again"]
    assert (two.told, two.closed) == (["hello"], 0)
    assert heard == ["from whoever"]


def test_a_watcher_that_cannot_keep_up_is_let_go_and_nobody_else_notices(hub):
    channel, slow, quick = Channel(), Watcher(room=2), Watcher()
    hub.open_channel(channel)
    hub.watch(slow)
    hub.watch(quick)
    for number in range(4):
        hub.tell(str(number))
    assert (slow.told, slow.closed) == (["0", "1"], 1)
    assert quick.told == channel.sent == ["0", "1", "2", "3"]


def test_a_watcher_that_raises_is_let_go(hub):
    class Broken(Watcher):
        def on_event(self, event):
            raise OSError

        def on_closed(self):
            raise OSError

    channel = Channel()
    hub.open_channel(channel)
    hub.watch(Broken())
    assert hub.tell("one")
    assert hub.tell("two")
    assert channel.sent == ["one", "two"]


def test_an_event_that_is_too_long_is_refused_with_an_error_event(hub, heard):
    channel = Channel()
    hub.open_channel(channel)
    hub.hear("x" * (MAX_EVENT_BYTES + 1))
    assert heard == []
    (error,) = map(json.loads, channel.sent)
    assert error["type"] == "error"
    assert error["error"]["code"] == "event_too_large"
    assert error["event_id"].startswith("event_")


def test_ten_thousand_events_a_second_cost_the_backend_two_hundred_and_the_client_one_answer(heard):
    now = 100.0
    hub, channel = EventHub(heard.append, lambda: now), Channel()
    hub.open_channel(channel)
    for _ in range(10_000):
        hub.hear("{}")
    assert len(heard) == MAX_EVENTS_PER_S
    assert [json.loads(event)["error"]["code"] for event in channel.sent] == ["rate_limit_exceeded"]
    now = 101.0
    hub.hear("{}")
    assert len(heard) == MAX_EVENTS_PER_S + 1


def test_a_watcher_that_floods_spends_its_own_limit_and_is_told_alone(heard):
    hub, channel, loud, quiet = EventHub(heard.append, lambda: 100.0), Channel(), Watcher(), Watcher()
    hub.open_channel(channel)
    hub.watch(loud)
    hub.watch(quiet)
    for _ in range(1_000):
        hub.hear("{}", loud)
    hub.hear("x" * (MAX_EVENT_BYTES + 1), quiet)
    hub.hear("from the client")
    assert heard == ["{}"] * MAX_EVENTS_PER_S + ["from the client"]
    assert [json.loads(event)["error"]["code"] for event in loud.told] == ["rate_limit_exceeded"]
    assert [json.loads(event)["error"]["code"] for event in quiet.told] == ["event_too_large"]
    assert channel.sent == []


def test_the_end_of_the_call_reaches_watchers_and_ends_everything(hub, heard):
    watcher = Watcher()
    hub.watch(watcher)
    hub.close()
    hub.hear("late")
    assert watcher.closed == 1
    assert heard == []
    assert not hub.tell("late")
    assert not hub.watch(Watcher())


def test_watchers_are_few(hub):
    assert all(hub.watch(Watcher()) for _ in range(MAX_WATCHERS))
    assert not hub.watch(Watcher())


def test_a_client_hears_of_an_event_that_is_longer_than_what_it_takes(hub):
    channel = Channel(takes_bytes=1_000)
    hub.open_channel(channel)
    assert hub.tell("x" * 1_001) is False
    assert (
        json.loads(channel.sent[0])["error"]["message"] == "an event of 1001 bytes is not sent: this client takes 1000"
    )
