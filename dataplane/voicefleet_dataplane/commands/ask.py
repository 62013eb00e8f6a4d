"""`voicefleet ask`: speak to an agent, and say what it heard, what it answered, and how long that took."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import typer

from voicefleet_dataplane.commands.call import verifier
from voicefleet_dataplane.engines.stages import TEXT_TO_SPEECH, TextToSpeech, find_engine
from voicefleet_dataplane.media.speech import Samples, SpeechError, read_wav, write_wav
from voicefleet_dataplane.shell.client.packet_caller import CallError
from voicefleet_dataplane.shell.client.talker import Talker

_ANSWER_WITHIN_S = 60.0
_PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class AskOptions:
    """What the command line says."""

    url: str
    key: str
    pool: str
    wavs: tuple[Path, ...]
    texts: tuple[str, ...]
    engine: str
    verify: bool | str
    record: Path | None
    as_json: bool


def ask(options: AskOptions) -> int:
    """Run it; gives the exit code: 0 when every question was answered with speech."""
    try:
        questions = [read_wav(wav) for wav in options.wavs]
        if options.texts:
            voice: TextToSpeech = find_engine(TEXT_TO_SPEECH, options.engine)()
            questions += [speak(voice, text) for text in options.texts]
    except (SpeechError, ValueError, ImportError) as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    try:
        return asyncio.run(_converse(options, questions))
    except (CallError, httpx.HTTPError, TimeoutError) as error:
        typer.echo(f"error: {str(error) or 'the call did not come up, or no answer came, in time'}", err=True)
        return 1


def speak(voice: TextToSpeech, text: str) -> Samples:
    """Return a sentence at 48 kHz."""
    pcm = np.frombuffer(b"".join(voice.speak(text, "", 1.0)), np.int16)
    places = np.arange(len(pcm) * 2) / 2
    return np.asarray(np.interp(places, np.arange(len(pcm)), pcm), np.int16)


async def _converse(options: AskOptions, questions: list[Samples]) -> int:
    url = httpx.URL(options.url.rstrip("/") + "/v1/realtime/calls")
    url = url.copy_merge_params({"pool": options.pool}) if options.pool else url
    headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
    async with (
        httpx.AsyncClient(verify=verifier(options.verify), timeout=15.0, trust_env=False) as http,
        Talker(http, str(url), headers) as talker,
    ):
        for number, question in enumerate(questions, 1):
            turn = await _ask(talker, number, question)
            typer.echo(json.dumps(turn) if options.as_json else _sentence(turn))
            if turn["error"]:
                return 1
        if options.record is not None:
            options.record.write_bytes(write_wav(talker.heard()))
    return 0


async def _ask(talker: Talker, number: int, question: Samples) -> dict[str, Any]:
    errors = len(talker.told("error"))
    await asyncio.sleep(_PAUSE_S)
    talker.first_loud_at = 0.0
    said_at = await talker.say(question)
    stopped = "output_audio_buffer.stopped"
    await talker.until(
        lambda: len(talker.told(stopped)) >= number or len(talker.told("error")) > errors, _ANSWER_WITHIN_S
    )
    failed = talker.told("error")[errors:]
    heard = talker.told("conversation.item.input_audio_transcription.completed")
    answered = talker.told("response.output_audio_transcript.done")
    return {
        "heard": heard[-1]["transcript"] if heard else "",
        "answered": answered[-1]["transcript"] if answered and not failed else "",
        "silence_ms": round((talker.first_loud_at - said_at) * 1_000) if talker.first_loud_at else None,
        "error": failed[-1]["error"]["message"] if failed else None,
    }


def _sentence(turn: dict[str, Any]) -> str:
    if turn["error"]:
        return f"it heard     {turn['heard']}\nerror        {turn['error']}"
    return f"it heard     {turn['heard']}\nit answered  {turn['answered']}   (after {turn['silence_ms']} ms)"
