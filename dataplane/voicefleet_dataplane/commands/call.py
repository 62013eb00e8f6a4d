"""`voicefleet call`: place calls with recorded speech, and say whether each heard itself and nobody else."""

import asyncio
import json
import ssl
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import typer
import uvloop

from voicefleet_dataplane.media.speech import (
    Samples,
    SpeechError,
    decode_opus,
    encode_opus,
    join,
    last,
    read_wav,
    repeat,
    similarity,
    write_wav,
)
from voicefleet_dataplane.shell.client.packet_caller import FRAME_S, Caller, CallResult, make_identity
from voicefleet_dataplane.shell.client.trouble import NO_TROUBLE, Trouble

# Own recordings come back at 0.9 and more through Opus; strangers' stay under 0.2 (measured on Debian's alsa-utils speech).
OWN_AT_LEAST = 0.7
STRANGER_AT_MOST = 0.4
_SILENCE_S = 1.0
_SPEEDS = 0.03  # each call plays its recording a little faster: ten calls, ten recordings, however few files


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What the command line says."""

    url: str
    wavs: tuple[Path, ...]
    count: int
    concurrency: int
    duration_s: float
    key: str
    region: str
    pool: str
    verify: bool | str
    record: Path | None
    as_json: bool
    client: str = "packet"  # ours, at packet level; or "aiortc", a stack that is not ours
    trouble: Trouble = NO_TROUBLE  # of our client


class _Placer(Protocol):
    async def run(self, url: str, headers: dict[str, str]) -> CallResult: ...


_Make = Callable[[httpx.AsyncClient, int], _Placer]


def call(options: CallOptions) -> int:
    """Run it; gives the exit code: 0 when all calls were answered and heard themselves alone."""
    try:
        recordings = [
            read_wav(options.wavs[n % len(options.wavs)], 1 + _SPEEDS * n) for n in range(min(options.count, 20))
        ]
    except SpeechError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    frames = max(1, round(options.duration_s / FRAME_S))
    if options.client == "aiortc":
        spoken, make = _with_aiortc(recordings, frames)
    else:
        spoken, make = _with_ours(recordings, frames, options.trouble)
    results = uvloop.run(_place(options, make))
    fine = 0
    for number, result in enumerate(results):
        heard = decode_opus(result.heard) if result.samples is None else join(result.samples)
        scores = [similarity(voice, heard) for voice in spoken]
        own = scores.pop(number % len(spoken))
        good = (
            not result.error and _is_well(result, own, options.trouble) and max(scores, default=0.0) <= STRANGER_AT_MOST
        )
        fine += good
        if options.record is not None:
            options.record.mkdir(parents=True, exist_ok=True)
            (options.record / f"call-{number}-sent.wav").write_bytes(write_wav(spoken[number % len(spoken)]))
            (options.record / f"call-{number}-heard.wav").write_bytes(write_wav(heard))
        _print_call(number, result, own, max(scores, default=0.0), good=good, as_json=options.as_json)
    typer.echo(json.dumps(_summary(results, fine)))
    return 0 if fine == options.count else 1


def _is_well(result: CallResult, own: float, trouble: Trouble) -> bool:
    """Say whether a call came to what its troubles leave possible: who is muted need not hear itself."""
    if trouble.mutes:
        return True
    return result.heard_again_s is not None if trouble.rebind_after_s else own >= OWN_AT_LEAST


def _with_ours(recordings: list[Samples], frames: int, trouble: Trouble) -> tuple[list[Samples], _Make]:
    """Our client sends what was encoded before; what it said is what a listener would have decoded."""
    voices, identity = [repeat(encode_opus(recording), frames) for recording in recordings], make_identity()
    spoken = [decode_opus(dict(enumerate(voice))) for voice in voices]
    return spoken, lambda http, number: Caller(http, identity, voices[number % len(voices)], trouble)


def _with_aiortc(recordings: list[Samples], frames: int) -> tuple[list[Samples], _Make]:
    from voicefleet_dataplane.shell.client.aiortc_caller import AiortcCaller  # noqa: PLC0415  # a second of imports

    spoken = [last(recording, frames) for recording in recordings]
    return spoken, lambda http, number: AiortcCaller(http, spoken[number % len(spoken)])


async def _place(options: CallOptions, make: _Make) -> list[CallResult]:
    headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
    parameters = {name: value for name, value in (("region", options.region), ("pool", options.pool)) if value}
    url = str(httpx.URL(options.url.rstrip("/") + "/v1/realtime/calls").copy_merge_params(parameters))
    room = asyncio.Semaphore(options.concurrency)
    async with httpx.AsyncClient(verify=verifier(options.verify), timeout=15.0, trust_env=False) as http:

        async def one(number: int) -> CallResult:
            async with room:
                return await make(http, number).run(url, headers)

        return list(await asyncio.gather(*(one(number) for number in range(options.count))))


def verifier(verify: bool | str) -> bool | ssl.SSLContext:
    """Return what httpx verifies with: a CA file as a context."""
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify


def _print_call(number: int, result: CallResult, own: float, stranger: float, *, good: bool, as_json: bool) -> None:
    if as_json:
        fields = {
            "call": number,
            "id": result.call_id,
            "ufrag": result.ufrag,
            "ingress": result.ingress,
            "error": result.error or None,
            "timeline_ms": result.timeline_ms,
            "rtt_ms": _round(result.rtt_ms),
            "jitter_ms": _round(result.jitter_ms),
            "loss": _round(result.loss, 5),
            "sent": result.sent,
            "received": result.received,
            "silent_s": result.silent_s,
            "heard_again_s": result.heard_again_s,
            "own": round(own, 3),
            "others": round(stranger, 3),
            "audio_ok": good,
        }
        typer.echo(json.dumps(fields))
        return
    stages = " → ".join(f"{stage} {at:.0f} ms" for stage, at in result.timeline_ms.items())
    typer.echo(f"call {number} {'ok ' if good else 'BAD'} {result.call_id or '-'} via {result.ingress or '-'}")
    typer.echo(f"  POST → {stages or 'nothing'}")
    if result.error:
        typer.echo(f"  error: {result.error}")
    else:
        rtt, jitter = (
            f"{one:.2f} ms" if one is not None else "not measured" for one in (result.rtt_ms, result.jitter_ms)
        )
        typer.echo(f"  RTT {rtt}, jitter {jitter}, loss {result.loss or 0.0:.2%} of {result.sent}")
        if result.silent_s > _SILENCE_S:
            typer.echo(
                f"  nothing came any more in the last {result.silent_s:.1f} s: its transceiver or the path is gone"
            )
        if result.heard_again_s is not None:
            typer.echo(f"  heard again {result.heard_again_s:.2f} s after the rebinding")
        typer.echo(f"  heard itself {own:.2f}, the closest other recording {stranger:.2f}")


def _summary(results: list[CallResult], fine: int) -> dict[str, object]:
    setups = [result.timeline_ms["audio"] for result in results if "audio" in result.timeline_ms]
    round_trips = [result.rtt_ms for result in results if result.rtt_ms is not None]
    sent = sum(result.sent for result in results)
    heard = sum(result.returned for result in results)
    return {
        "calls": len(results),
        "answered": sum("answer" in result.timeline_ms for result in results),
        "audio_ok": fine,
        "setup_ms_p50": _round(statistics.median(setups)) if setups else None,
        "rtt_ms_p50": _round(statistics.median(round_trips)) if round_trips else None,
        "loss": _round(1 - heard / sent, 5) if sent else None,
    }


def _round(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)
