"""Calls of the stories: a client in this process, and what its owner says of it over the control API."""

import asyncio
import functools
import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, overload

import httpx

from e2e.fleet import Fleet
from voicefleet_contract import names
from voicefleet_contract.hint import peek_hint
from voicefleet_dataplane.media.speech import encode_opus, read_wav, repeat
from voicefleet_dataplane.shell.client.packet_caller import Caller, CallResult, make_identity

SPEECH = Path("/usr/share/sounds/alsa")
PACKETS_PER_S = 50
_PACE_S = 0.12  # a gateway lets one client place ten calls a second


def speech(seconds: float, number: int = 0) -> list[bytes]:
    """Opus packets of a recording, over and over."""
    found = sorted(SPEECH.glob("*_*.wav"))
    assert found, f"no recorded speech in {SPEECH}: run `make deps`"
    return repeat(encode_opus(read_wav(found[number % len(found)])), round(seconds * PACKETS_PER_S))


@asynccontextmanager
async def calling(fleet: Fleet, seconds: float) -> AsyncIterator[Caller]:
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


def slot_of(caller: Caller) -> int:
    """Which slot of the pool holds this call."""
    return peek_hint(caller.result.ufrag).slot


def lost(callers: Iterable[Caller]) -> int:
    """How many packets of these calls never came back."""
    return sum(caller.result.sent - len(caller.result.heard) for caller in callers)


def sent(callers: Iterable[Caller]) -> int:
    """How many packets these calls sent."""
    return sum(caller.result.sent for caller in callers)


def lost_after(result: CallResult, number: int) -> int:
    """How many of the packets from ``number`` on never came back."""
    return len(set(range(number, result.sent)) - set(result.heard))


class UntilTold(Sequence[bytes]):
    """Speech over and over until somebody says that it is enough."""

    def __init__(self, packets: Sequence[bytes]) -> None:
        self._packets, self.enough = packets, False

    def __len__(self) -> int:
        return len(self._packets)

    @overload
    def __getitem__(self, number: int) -> bytes: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[bytes]: ...
    def __getitem__(self, number: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(number, slice):
            return self._packets[number]
        if self.enough:
            raise IndexError(number)
        return self._packets[number % len(self._packets)]


@asynccontextmanager
async def talking(fleet: Fleet, count: int) -> AsyncIterator[list[Caller]]:
    """So many calls in progress, audio heard on each, for as long as the body takes; it must end with no packet lost."""
    async with holding(fleet, count) as callers:
        yield callers
    for caller in callers:
        assert caller.result.loss == 0, f"{caller.result.call_id}: lost {lost_after(caller.result, 0)}"


@asynccontextmanager
async def holding(fleet: Fleet, count: int) -> AsyncIterator[list[Caller]]:
    """So many calls in progress, audio heard on each, for as long as the body takes; it must end with no call lost.

    Sequence numbers are counted, nothing is decoded: the clients must not be what is slow.
    """
    said = UntilTold(speech(10))
    headers = {"Authorization": f"Bearer {fleet.api_key}"}
    async with httpx.AsyncClient(verify=False, timeout=15, trust_env=False) as http:
        identity = make_identity()
        callers = [Caller(http, identity, said) for _ in range(count)]
        tasks = []
        try:
            for caller in callers:
                tasks.append(asyncio.create_task(caller.run(fleet.url + "/v1/realtime/calls", headers)))
                await asyncio.sleep(_PACE_S)
            async with asyncio.timeout(30):
                while not all("audio" in caller.result.timeline_ms for caller in callers):
                    assert not any(task.done() for task in tasks), [caller.result.error for caller in callers]
                    await asyncio.sleep(0.02)
            yield callers
            said.enough = True
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # they hang up
    for caller in callers:
        assert not caller.result.error


class Marks:
    """How far each call was, to count what it lost since."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self._callers = list(callers)
        self._since = [caller.result.sent for caller in callers]

    async def settle(self, packets: int = 2 * PACKETS_PER_S) -> None:
        """Wait for so many more packets of each call: what is lost is lost by then, and counted."""
        goals = [caller.result.sent + packets for caller in self._callers]
        while any(caller.result.sent < goal for caller, goal in zip(self._callers, goals, strict=True)):
            assert not [caller.result.error for caller in self._callers if caller.result.error]
            await asyncio.sleep(0.05)

    def lost(self) -> list[int]:
        """How many packets of each call never came back; the youngest second may be on its way."""
        until = [caller.result.sent - PACKETS_PER_S for caller in self._callers]
        return [
            len(set(range(start, end)) - set(caller.result.heard))
            for caller, start, end in zip(self._callers, self._since, until, strict=True)
        ]


def place_calls(fleet: Fleet, count: int, seconds: float = 3.0) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`voicefleet call`: the calls and the summary."""
    argv = [sys.executable, "-m", "voicefleet_dataplane", "call", fleet.url, "--json", "--insecure"]
    options = ["--count", str(count), "--concurrency", str(count), "--duration", str(seconds), "--key", fleet.api_key]
    done = subprocess.run([*argv, *options], capture_output=True, text=True, check=False, timeout=120)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr
    return lines[:-1], lines[-1]


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
