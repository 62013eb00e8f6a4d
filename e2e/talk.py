"""Calls of the stories: a client in this process, and what its owner says of it over the control API."""

import asyncio
import functools
import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from e2e.fleet import Fleet
from voicefleet_contract import names
from voicefleet_dataplane.media.speech import encode_opus, read_wav, repeat
from voicefleet_dataplane.shell.caller import Caller, CallResult, make_identity

SPEECH = Path("/usr/share/sounds/alsa")
PACKETS_PER_S = 50


def speech(seconds: float, number: int = 0) -> list[bytes]:
    """Opus packets of a recording, over and over."""
    found = sorted(SPEECH.glob("*_*.wav"))
    assert found, f"no recorded speech in {SPEECH}: run `make deps`"
    return repeat(encode_opus(read_wav(found[number % len(found)])), round(seconds * PACKETS_PER_S))


@asynccontextmanager
async def calling(fleet: Fleet, seconds: float, during: Callable[[Caller], Awaitable[None]] | None = None):
    """A call under way, audio heard; its result is there when the body has ended and the speech is over."""
    async with httpx.AsyncClient(verify=False, timeout=15, trust_env=False) as http:
        caller = Caller(http, make_identity(), speech(seconds))
        headers = {"Authorization": f"Bearer {fleet.api_key}"}
        task = asyncio.create_task(caller.run(fleet.url + "/v1/realtime/calls", headers))
        try:
            async with asyncio.timeout(20):
                while "audio" not in caller.result.timeline_ms:
                    assert not task.done(), caller.result.error
                    await asyncio.sleep(0.02)
            yield caller
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # it hangs up


@asynccontextmanager
async def calls(fleet: Fleet, count: int, seconds: float) -> AsyncIterator[list[Caller]]:
    """So many calls under way; their results are there when the body has ended and their speech is over."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(calling(fleet, seconds)) for _ in range(count)]


def lost(callers: Iterable[Caller]) -> int:
    """How many packets of these calls never came back."""
    return sum(caller.result.sent - len(caller.result.heard) for caller in callers)


def sent(callers: Iterable[Caller]) -> int:
    """How many packets these calls sent."""
    return sum(caller.result.sent for caller in callers)


def lost_after(result: CallResult, number: int) -> int:
    """How many of the packets from ``number`` on never came back."""
    return len(set(range(number, result.sent)) - set(result.heard))


class Calls:
    """`voicefleet call` under way: so many calls at once, each for so long. Leaving the ``with`` early ends them."""

    def __init__(self, fleet: Fleet, count: int, seconds: float) -> None:
        argv = [sys.executable, "-m", "voicefleet_dataplane", "call", fleet.url, "--json", "--insecure"]
        options = ["--count", str(count), "--concurrency", str(count), "--duration", str(seconds)]
        self._process = subprocess.Popen(
            [*argv, *options, "--key", fleet.api_key], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._patience_s = seconds + 90

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def running(self) -> bool:
        """The last of them has not ended."""
        return self._process.poll() is None

    def finish(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Wait for the end; return the calls and the summary."""
        out, said = self._process.communicate(timeout=self._patience_s)
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        assert lines, said
        return lines[:-1], lines[-1]


def place_calls(fleet: Fleet, count: int, seconds: float = 3.0) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`voicefleet call`: the calls and the summary."""
    with Calls(fleet, count, seconds) as calls:
        return calls.finish()


def hang_up(fleet: Fleet, call_id: str) -> int:
    """Hang a call up as its caller would; gives the status."""
    url = f"{fleet.url}/v1/realtime/calls/{call_id}/hangup"
    headers = {"Authorization": f"Bearer {fleet.api_key}"}
    return httpx.post(url, headers=headers, verify=False, trust_env=False, timeout=10).status_code


@functools.cache
def inner_certificate(fleet: Fleet, role: str) -> dict[str, bytes]:
    """A role's certificate, key and CA: read once, kubectl takes a while."""
    return dict(fleet.kube.secret(names.tls_secret(role)))


def control(
    fleet: Fleet,
    pod: Any,
    path: str,
    method: str = "GET",
    *,
    certificate: str | None = "gateway",
    body: str | None = None,
) -> Any:
    """Ask a transceiver over mutual TLS; ``certificate=None`` comes without one. Raises httpx.HTTPError."""
    with tempfile.TemporaryDirectory() as directory:
        for name, content in inner_certificate(fleet, certificate or "gateway").items():
            (Path(directory) / name).write_bytes(content)
        context = ssl.create_default_context(cafile=f"{directory}/{names.TLS_CA_FILE}")
        if certificate is not None:
            context.load_cert_chain(f"{directory}/{names.TLS_CERT_FILE}", f"{directory}/{names.TLS_KEY_FILE}")
    url = f"https://{pod['status']['hostIP']}:{pod['metadata']['labels'][names.LABEL_PORT]}{path}"
    with httpx.Client(verify=context, trust_env=False, timeout=5) as http:
        answer = http.request(
            method, url, content=body, extensions={"sni_hostname": names.inner_dns_name("transceiver")}
        )
    answer.raise_for_status()
    return answer.json()


def relay_drops(pod: Any, port: int = 3479) -> dict[str, int]:
    """A relay's drop counters, from its metrics."""
    text = httpx.get(f"http://{pod['status']['hostIP']}:{port}/metrics", trust_env=False, timeout=5).text
    found: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("voicefleet_relay_drops_total{"):
            reason = line.split('reason="', 1)[1].split('"', 1)[0]
            found[reason] = found.get(reason, 0) + int(float(line.rsplit(" ", 1)[1]))
    return found


def refusals(fleet: Fleet) -> dict[tuple[str, str], int]:
    """Every drop and refusal counter of every relay and transceiver, by pod and reason."""
    found = {(pod["metadata"]["name"], why): n for pod in fleet.relays() for why, n in relay_drops(pod).items()}
    for pod in fleet.transceivers():
        status = control(fleet, pod, "/v1/status")
        for counts in (status["drops"], {f"control:{why}": n for why, n in status["control_refused"].items()}):
            found |= {(pod["metadata"]["name"], why): n for why, n in counts.items()}
    return found


def moved(before: dict[tuple[str, str], int], after: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Which of them moved, and by how much."""
    return {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}
