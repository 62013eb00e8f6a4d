"""What a voice pipeline does in a RealtimeSession of OpenAI's own client, step by step; on loopback and on a cluster it is the same.

The pipeline's hook is tests/support/clerk_hook.py, and the client's function says TOOL_SAYS.
"""

from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.support.agents_sdk import SdkSession, sdk_session
from tests.support.sdk_story import TOOL_SAYS
from tests.support.spoken import SENTENCES, UNDERSTOOD, recognise, say_with_flite, understood
from voicefleet_dataplane.media.speech import write_wav

TO_MOTHER, MONEY, CHILDREN = range(3)


def write_question(folder: Path, number: int) -> Path:
    """Return the recording of one of SENTENCES."""
    path = folder / f"question-{number}.wav"
    path.write_bytes(write_wav(say_with_flite(SENTENCES[number])))
    return path


async def the_sdk_talks_with_a_pipeline(
    gateway: str,
    api_key: str,
    microphone: Path,
    folder: Path,
    *,
    query: str = "",
    flags: Sequence[str] = (),
    each: float = UNDERSTOOD,
) -> None:
    """The whole story. Nothing of ``microphone`` is heard: it speaks into a stream of its own.

    ``each``: which part of a sentence must come through a browser's jitter buffer and a small recogniser; on loopback it is all of it.
    """
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=15) as http:
        made = await http.post(
            f"{gateway}/v1/realtime/client_secrets",
            json={"session": {"type": "realtime"}},
            headers={"Authorization": f"Bearer {api_key}"},
        )
    url, key = f"{gateway}/v1/realtime/calls{query}", made.json()["value"]
    async with sdk_session(url, key, microphone, result=TOOL_SAYS, flags=flags) as session:
        await spoken_exchange_with_a_pipeline(session, folder, each)


async def spoken_exchange_with_a_pipeline(session: SdkSession, folder: Path, each: float) -> None:
    """A question that needs a function, one that is interrupted by speech, one that the client interrupts, and the end."""
    to_mother, money, children = (write_question(folder, number) for number in (TO_MOTHER, MONEY, CHILDREN))
    assert session.connect_ms < 4_500  # it waits 5 s for session.updated
    await session.say(money)
    await session.until("output_audio_buffer.stopped", within_s=60)
    assert await session.tool_calls() == [{"order": 7}]
    history = await session.history()
    heard = history[0]["content"][0]["transcript"]
    assert understood(SENTENCES[MONEY], heard) >= each, heard
    assert understood(SENTENCES[MONEY], heard) > max(understood(SENTENCES[n], heard) for n in (TO_MOTHER, CHILDREN))
    assert history[-1]["content"][0]["transcript"] == f"The order is {TOOL_SAYS}."
    in_audio = await recognise(await session.heard())
    assert understood(f"the order is {TOOL_SAYS}", in_audio) >= each, in_audio
    assert understood(TOOL_SAYS, in_audio) >= 2 / 3, in_audio  # what the function gave was spoken
    await session.say(to_mother)
    await session.until("output_audio_buffer.started", 2, within_s=60)
    await session.say(children)  # into the long answer
    await session.until("conversation.item.truncated", within_s=60)
    await session.until("output_audio_buffer.started", 3, within_s=60)
    await session.do("interrupt()")
    await session.until("conversation.item.truncated", 2, within_s=60)
    assert [one for one in await session.events("session:error") if "not_active" not in str(one)] == []
    await session.do("close()")
