"""Nothing is lost in silence on the way to a client: what waits, what is shortened, what is lost and told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicefleet_dataplane.media.client_events import MAX_WAITING, MAX_WAITING_BYTES, ClientEvents
from voicefleet_dataplane.media.shortening import shorten


class Channel:
    """Takes `room` messages until it is given more."""

    label = "oai-events"

    def __init__(self, room: int = 1 << 30, takes_bytes: int = 0) -> None:
        self.room, self.takes_bytes, self.sent = room, takes_bytes, []

    def send(self, message):
        if self.room <= 0 or (self.takes_bytes and len(message.encode()) > self.takes_bytes):
            return False
        self.room -= 1
        self.sent.append(message)
        return True


def event(kind: str, number: int = 0, **fields) -> str:
    return json.dumps({"type": kind, "number": number, **fields})


def numbers(channel: Channel) -> list[tuple[str, int]]:
    return [(one["type"], one.get("number", -1)) for one in map(json.loads, channel.sent)]


# ---- the client's limit


DONE = {
    "type": "response.done",
    "event_id": "event_1",
    "response": {
        "id": "resp_1",
        "status": "completed",
        "output": [
            {
                "id": "item_1",
                "role": "assistant",
                "content": [{"type": "output_audio", "transcript": "wörter " * 5_000}],
            },
            {"id": "item_2", "name": "look_up", "call_id": "call_1", "arguments": json.dumps({"text": "x" * 200})},
        ],
        "usage": {"total_tokens": 17},
    },
}


def test_an_event_over_the_clients_limit_goes_without_its_large_content_and_is_marked():
    client, channel = ClientEvents(), Channel(takes_bytes=16_384)
    client.open(channel, is_sure=True)
    assert client.tell(json.dumps(DONE))
    (sent,) = map(json.loads, channel.sent)
    first, second = sent["response"]["output"]
    assert first == {"id": "item_1", "role": "assistant", "content": [{"type": "output_audio", "transcript": ""}]}
    assert second == DONE["response"]["output"][1]
    assert (sent["response"]["status"], sent["response"]["usage"]) == ("completed", {"total_tokens": 17})
    whole = len(json.dumps(DONE, ensure_ascii=False, separators=(",", ":")).encode())
    assert sent["voicefleet"] == {"shortened": ["response.output.0.content.0.transcript"], "bytes": whole}
    assert client.counts == {"shortened": 1, "lost": 0}


def test_an_event_of_many_small_parts_keeps_its_own_fields():
    big = DONE | {"response": DONE["response"] | {"output": [{"id": f"item_{number}"} for number in range(10_000)]}}
    sent = json.loads(shorten(json.dumps(big), 4_096))
    assert sent["response"] == {"id": "resp_1", "status": "completed"}
    assert sent["voicefleet"]["shortened"] == ["response"]


def test_what_fits_is_sent_as_it_is_to_the_byte():
    text = json.dumps(DONE)
    client, channel = ClientEvents(), Channel(takes_bytes=len(text))
    client.open(channel, is_sure=True)
    client.tell(text)
    assert channel.sent == [text]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=400),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=300), inner, max_size=6),
    max_leaves=40,
)


@given(st.dictionaries(st.text(max_size=20), JSON, max_size=8), st.integers(1, 6_000))
def test_a_shortened_event_fits_and_has_its_type(fields, most_bytes):
    short = shorten(json.dumps(fields | {"type": "response.done"}), most_bytes)
    assert short is not None or most_bytes < 1_200
    if short is not None:
        assert len(short.encode()) <= most_bytes
        assert json.loads(short)["type"] == "response.done"
        assert json.loads(short)["voicefleet"]["bytes"] > 0


@pytest.mark.parametrize("text", ["", "x" * 5_000, "[]", '"text"', "[" * 5_000, '{"type":' + "9" * 5_000 + "}"])
def test_what_is_no_event_cannot_be_shortened_and_is_told(text):
    assert shorten(text, 1_024) is None
    client, channel = ClientEvents(), Channel(takes_bytes=1_024)
    client.open(channel, is_sure=True)
    assert client.tell(text) == (len(text) <= 1_024)
    if len(text) > 1_024:
        assert json.loads(channel.sent[0])["error"]["code"] == "event_too_large"
        assert client.counts["lost"] == 1


# ---- a channel that is full


def test_what_a_full_channel_does_not_take_comes_later_and_in_order():
    client, channel = ClientEvents(), Channel(room=2)
    client.open(channel, is_sure=True)
    assert all(client.tell(event("delta", number)) for number in range(10))
    assert len(channel.sent) == 2
    channel.room = 3
    client.flush()
    channel.room = 1 << 30
    assert client.tell(event("delta", 10))
    assert numbers(channel) == [("delta", number) for number in range(11)]
    assert client.counts["lost"] == 0


@pytest.mark.parametrize("last", ["response.done", "error"])
@pytest.mark.parametrize("is_open", [False, True])
def test_the_end_of_a_response_always_comes(last, is_open):
    client, channel = ClientEvents(), Channel(room=0)
    if is_open:
        client.open(channel, is_sure=True)
    client.tell(event("session.created", 0))
    for number in range(1_000):
        client.tell(event("response.output_audio_transcript.delta", number))
        client.tell(event("response.output_item.added", number))
    assert client.tell(event(last, 1_000))
    channel.room = 1 << 30
    client.open(channel, is_sure=True)
    told = numbers(channel)
    assert (told[0], told[1], told[-1]) == (("error", -1), ("session.created", 0), (last, 1_000))
    lost = 2_002 - (len(told) - 1)
    assert f"{lost} events" in json.loads(channel.sent[0])["error"]["message"]
    assert client.counts["lost"] == lost
    assert len(told) == MAX_WAITING + 1
    client.tell(event("x"))
    assert sum(kind == "error" for kind, _ in numbers(channel)) == 1 + (last == "error"), "said once"


def test_deltas_make_way_for_what_is_no_delta():
    client, channel = ClientEvents(), Channel()
    for number in range(MAX_WAITING):
        client.tell(event("response.output_text.delta", number))
    assert not client.tell(event("response.output_text.delta", 999))
    assert client.tell(event("response.output_text.done", 1))
    client.open(channel, is_sure=True)
    assert numbers(channel)[1] == ("response.output_text.delta", 1)
    assert numbers(channel)[-1] == ("response.output_text.done", 1)


def test_a_long_event_waits_without_its_large_content():
    client, channel = ClientEvents(), Channel()
    for number in range(8):
        assert client.tell(event("response.done", number, text="x" * MAX_WAITING_BYTES))
    client.open(channel, is_sure=True)
    assert numbers(channel) == [("response.done", number) for number in range(8)]
    assert client.counts == {"shortened": 8, "lost": 0}


@given(st.lists(st.tuples(st.sampled_from(["a.delta", "b", "response.done"]), st.integers(0, 300_000)), max_size=60))
def test_what_waits_is_bounded_whatever_is_told(events):
    client = ClientEvents()
    for number, (kind, size) in enumerate(events):
        client.tell(event(kind, number, text="x" * size))
        assert len(client._waiting) <= MAX_WAITING
        assert client._waiting_bytes == sum(one.size for one in client._waiting) <= MAX_WAITING_BYTES
