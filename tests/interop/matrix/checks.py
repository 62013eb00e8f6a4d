"""What every stack is asked to do: each check once, for all of them.

A check ends with what is worth a word in the table, or fails. No check holds anybody to a time; the times in the table are what was seen.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from tests.interop.matrix.call import Call, Channel, Place, Sideband, calling, fresh, over
from tests.interop.matrix.client import Client
from tests.interop.matrix.content import message, seen
from tests.support.chromium import contains

Check = Callable[[Place, Client], Awaitable[str]]

CHANNELS = 64  # of a call, the one for events among them
KILO = 1_000
_ALIKE, _STRANGE = 0.7, 0.5
_HEARD_S = 3.0
_LISTENINGS = 3
_MANY = 500


async def audio_comes_back(place: Place, client: Client) -> str:
    async with calling(place, client) as call:
        await _is_heard(place, call)
    return ""


async def a_second_call(place: Place, client: Client) -> str:
    async with calling(place, client) as call:
        await call.events.text_comes_back('{"type":"hello"}')
        await call.hang_up()
    async with calling(place, client) as call:
        await call.events.text_comes_back('{"type":"hello again"}')
        await _is_heard(place, call)
    return ""


async def _is_heard(place: Place, call: Call) -> None:
    """On a busy machine a jitter buffer stretches every repetition now and then: then it is listened to once more."""
    for _ in range(_LISTENINGS):
        heard = await call.listen(_HEARD_S)
        own = await asyncio.to_thread(contains, place.said.samples, heard)
        other = await asyncio.to_thread(contains, place.stranger, heard)
        assert other < _STRANGE, (own, other)
        if own >= _ALIKE:
            return
    raise AssertionError(f"what is heard is not what was said: {own:.2f}")


async def long_messages(place: Place, client: Client) -> str:
    """60 KB of text and of bytes."""
    async with calling(place, client) as call:
        channel = await call.open()
        for kind in ("binary", "text"):
            await channel.comes_back(kind, 60 * KILO, fill=3)
    return ""


async def the_longest_message(place: Place, client: Client) -> str:
    """The smaller of both sides' a=max-message-size (RFC 8841), up to 256 KiB."""
    async with calling(place, client) as call:
        size = min(call.most_bytes, 256 * 1024)
        channel = await call.open()
        await channel.comes_back("binary", size, fill=5)
    return f"{size:,} bytes"


async def messages_of_256_kb(place: Place, client: Client) -> str:
    async with calling(place, client) as call:
        channel = await call.open()
        for kind in ("binary", "text"):
            await channel.comes_back(kind, 256 * KILO, fill=4)
    return ""


async def small_messages(place: Place, client: Client) -> str:
    """500 of text and 500 of bytes, at once, in order."""
    async with calling(place, client) as call:
        for kind in ("text", "binary"):
            channel = await call.open()
            await channel.send(kind, 40, count=_MANY)
            for number in range(_MANY):
                assert await channel.next() == seen(message(kind, 40, number)), (kind, number)
    return ""


async def unordered_messages(place: Place, client: Client) -> str:
    """Each comes back, in any order."""
    async with calling(place, client) as call:
        channel = await call.open(ordered=False)
        await channel.send("binary", 2 * KILO, count=50)
        came = [(await channel.next())["sha256"] for _ in range(50)]
        assert sorted(came) == sorted(seen(message("binary", 2 * KILO, number))["sha256"] for number in range(50))
    return ""


async def partly_reliable_messages(place: Place, client: Client) -> str:
    """RFC 3758; nothing is lost on loopback."""
    async with calling(place, client) as call:
        for options in ({"max_retransmits": 0}, {"max_lifetime_ms": 500}, {"max_retransmits": 2, "ordered": False}):
            channel = await call.open(**options)
            await channel.comes_back("text", 100)
            await channel.comes_back("binary", 8 * KILO)
    return ""


async def any_text(place: Place, client: Client) -> str:
    """Letters of one to four bytes, and single bytes."""
    async with calling(place, client) as call:
        channel = await call.open()
        for text in ("Grüße, 電話, 🙂", "\u0000", "x" * 1_200):
            await channel.text_comes_back(text)
        await channel.comes_back("binary", 1)
    return ""


async def empty_messages(place: Place, client: Client) -> str:
    """Text and bytes of no length (RFC 8831 section 6.6), and something after them."""
    async with calling(place, client) as call:
        channel = await call.open()
        for kind in ("text", "binary", "text"):
            await channel.comes_back(kind, 0)
        await channel.comes_back("text", 10)
    return ""


async def no_label(place: Place, client: Client) -> str:
    async with calling(place, client) as call:
        for options in ({}, {"protocol": "chat.example"}):
            channel = await call.open("", **options)
            await channel.comes_back("text", 10)
    return ""


async def any_label(place: Place, client: Client) -> str:
    """Labels are UTF-8 (RFC 8832 section 5.1)."""
    async with calling(place, client) as call:
        for label in ("Grüße", "電話", "x" * 500):
            channel = await call.open(label, protocol=label)
            await channel.comes_back("text", 10)
    return ""


async def negotiated_channels(place: Place, client: Client) -> str:
    """The application says the id, nothing on the wire does (RFC 8831 section 6.5)."""
    first = Channel(client, fresh("first"))
    wanted = {"channel": first.name, "label": "first", "negotiated": True, "id": 100}
    async with calling(place, client, wanted) as call:
        await first.opened()
        for channel in (first, await call.open("second", negotiated=True, id=7)):
            await channel.comes_back("text", 100)
            await channel.comes_back("binary", 20 * KILO)
    return ""


async def many_channels(place: Place, client: Client) -> str:
    """64 with the one for events."""
    async with calling(place, client) as call:
        channels = [await call.open(f"number {number}") for number in range(CHANNELS - 1)]
        for number, channel in enumerate(channels):
            await channel.send("text", 50, fill=number)
        for number, channel in enumerate(channels):
            assert await channel.next() == seen(message("text", 50, number)), number
    return ""


async def the_client_closes_a_channel(place: Place, client: Client) -> str:
    """Ours closes too (RFC 8831 section 6.7), a new one opens, the others go on."""
    async with calling(place, client) as call:
        stays = await call.open("stays")
        for number in range(3):
            channel = await call.open("goes")
            await channel.comes_back("text", 20, fill=number)
            await channel.close()
            await channel.closed()
        await stays.comes_back("text", 20)
    return ""


async def we_close_a_channel(place: Place, client: Client) -> str:
    """The one that is too many; the others go on."""
    async with calling(place, client) as call:
        for number in range(CHANNELS - 1):
            last = await call.open(f"number {number}")
        one_more = Channel(client, fresh("one more"))
        await client.do("open", channel=one_more.name, label="one more")
        await one_more.closed()
        await last.comes_back("text", 20)
    return ""


async def the_client_hangs_up(place: Place, client: Client) -> str:
    """When the fleet learns of it."""
    async with calling(place, client) as call, call.watched() as sideband:
        await call.events.text_comes_back('{"type":"hello"}')
        return await _when_the_fleet_learns(client, sideband)


async def the_client_hangs_up_audio_alone(place: Place, client: Client) -> str:
    """Without a data channel, as WHIP publishers do."""
    async with calling(place, client, events=False) as call, call.watched() as sideband:
        return await _when_the_fleet_learns(client, sideband)


async def _when_the_fleet_learns(client: Client, sideband: Sideband) -> str:
    began = time.monotonic()
    await client.do("hang_up")
    return f"{await over(sideband, client.patience_s) - began:.1f} s"


async def we_hang_up(place: Place, client: Client) -> str:
    """When the client learns of it: by its channel, by its connection's state."""
    async with calling(place, client) as call:
        await call.events.text_comes_back('{"type":"hello"}')
        return await _when_the_client_learns(call, {"channel": call.events.closed()}, place.settle_s)


async def we_hang_up_audio_alone(place: Place, client: Client) -> str:
    async with calling(place, client, events=False) as call:
        return await _when_the_client_learns(call, {}, place.settle_s)


async def _when_the_client_learns(call: Call, words: dict[str, Coroutine[Any, Any, float]], settle_s: float) -> str:
    learns = {word: asyncio.create_task(wait) for word, wait in words.items()}
    learns |= {state: asyncio.create_task(call.state(state)) for state in ("disconnected", "failed", "closed")}
    began = time.monotonic()
    await call.hang_up()
    await asyncio.wait(learns.values(), return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait(learns.values(), timeout=settle_s)  # what else it says soon
    said = {word: task.result() for word, task in learns.items() if task.done() and not task.exception()}
    for task in learns.values():
        task.cancel()
    await asyncio.gather(*learns.values(), return_exceptions=True)
    assert said, "the client does not learn of it"
    return ", ".join(f"{word} {at - began:.1f} s" for word, at in sorted(said.items(), key=lambda one: one[1]))


CHECKS: dict[str, Check] = {
    "audio": audio_comes_back,
    "60 KB": long_messages,
    "longest": the_longest_message,
    "256 KB": messages_of_256_kb,
    "500 small": small_messages,
    "unordered": unordered_messages,
    "partly reliable": partly_reliable_messages,
    "any text": any_text,
    "empty": empty_messages,
    "no label": no_label,
    "any label": any_label,
    "negotiated": negotiated_channels,
    "64 channels": many_channels,
    "client closes channel": the_client_closes_a_channel,
    "we close channel": we_close_a_channel,
    "client hangs up": the_client_hangs_up,
    "client hangs up, audio alone": the_client_hangs_up_audio_alone,
    "we hang up": we_hang_up,
    "we hang up, audio alone": we_hang_up_audio_alone,
    "second call": a_second_call,
}
