"""The fleet that is attacked, a call beside the attack, and what is counted while it lasts.

A datagram "with the victim's address" is sent from the victim's own socket: to the fleet it is the same, and needs no raw socket.
"""

import asyncio
import contextlib
import itertools
import os
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from voicefleet_contract.addresses import Address
from voicefleet_contract.hint import peek_hint
from voicefleet_dataplane.commands.dev import DevFleet
from voicefleet_dataplane.shell.client.packet_caller import Caller, make_identity
from voicefleet_dataplane.wire.stun import build_binding_request

_FRAME = b"\xf8\xff\xfe" + bytes(60)  # Opus enough for packets to be counted
_FOR_EVER = 1_000_000
_UNDER_WAY = 25  # frames, half a second: sent, and not back yet
_HEARD_WITHIN_S = 20.0


class Talker(Caller):
    """A call that goes on until it is told to give up, and knows when each packet came."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        super().__init__(http, make_identity(), [_FRAME] * _FOR_EVER)
        self.came_at: list[float] = []

    def _on_rtp(self, datagram: bytes, now: float) -> None:
        self.came_at.append(now)
        super()._on_rtp(datagram, now)

    @property
    def slot(self) -> int:
        """Which owner holds it."""
        return peek_hint(self.result.ufrag).slot

    @property
    def ingress(self) -> Address:
        """Where the relay is."""
        return self.answer.candidates[0]

    def build_check(self) -> bytes:
        """A new authentic check of this call that nominates its path."""
        username = f"{self.answer.ufrag}:{self.client_ufrag}"
        return build_binding_request(
            secrets.token_bytes(12), username, self.answer.password.encode(), use_candidate=True
        )

    def send_as(self, datagram: bytes) -> None:
        """Send with this call's source address."""
        self._send(datagram)

    def build_audio(self, rtp: bytes) -> bytes | None:
        """Protect an RTP packet with this call's key."""
        return None if self._srtp is None else self._srtp.protect(rtp)


@dataclass
class Outcome:
    """What an attack sent, and what else is worth a column: (what, unit) → value."""

    sent: int
    extra: dict[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Harm:
    """What a call suffered meanwhile: frames that should have come back, those that did not, and gaps between packets."""

    frames: int
    lost: int
    p99_gap_ms: float


class Watch:
    """One call from now on."""

    def __init__(self, call: Talker) -> None:
        self._call = call
        self._sent, self._last, self._came = call.result.sent, max(call.result.heard), len(call.came_at)

    def harm(self) -> Harm:
        """Count up to now."""
        result, last = self._call.result, max(self._call.result.heard)
        holes = len(set(range(self._last, last)) - set(result.heard))
        missing = (result.sent - self._sent) - (last - self._last)
        came = self._call.came_at[self._came :]
        gaps = sorted(later - one for one, later in itertools.pairwise(came))
        p99 = gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))] if gaps else float("inf")
        return Harm(result.sent - self._sent, holes + (missing if missing > _UNDER_WAY else 0), p99 * 1e3)


class World:
    """A running fleet of two owners, and calls to it."""

    def __init__(self, fleet: DevFleet, http: httpx.AsyncClient) -> None:
        self.fleet, self.http = fleet, http
        self.url = fleet.url + "/v1/realtime/calls"
        self.headers = {"Authorization": f"Bearer {fleet.api_key}"}

    @contextlib.asynccontextmanager
    async def talking(self, slot: int | None = None, *, elsewhere: int | None = None) -> AsyncIterator[Talker]:
        """A call under way; ``slot`` or ``elsewhere`` (not there) says whose. It is hung up at the end."""
        for _ in range(40):
            call = Talker(self.http)
            task = asyncio.create_task(call.run(self.url, self.headers))
            try:
                await self.hear(call, 5, task)
                if (slot is None or call.slot == slot) and (elsewhere is None or call.slot != elsewhere):
                    yield call
                    return
            finally:
                call.give_up()
                await task
        raise RuntimeError("forty calls, and none of the wanted owner")

    async def hear(self, call: Talker, frames: int, task: "asyncio.Task[object] | None" = None) -> None:
        """Wait until a call has heard so many more frames. Raises TimeoutError."""
        goal = len(call.result.heard) + frames
        async with asyncio.timeout(_HEARD_WITHIN_S):
            while len(call.result.heard) < goal:
                if task is not None and task.done():
                    raise RuntimeError(f"a call ended: {call.result.error}")
                await asyncio.sleep(0.02)

    def cpu_s(self) -> float:
        """CPU time of relay and transceivers until now."""
        ticks = 0
        for name, process in self.fleet._processes.items():
            if name.startswith(("relay", "transceiver")):
                after_name = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(after_name[11]) + int(after_name[12])
        return ticks / os.sysconf("SC_CLK_TCK")


async def pace(seconds: float, per_s: float) -> AsyncIterator[int]:
    """Give numbers, so many a second: what was late is caught up."""
    start, number = time.monotonic(), 0
    while (passed := time.monotonic() - start) < seconds:
        while number < passed * per_s:
            yield number
            number += 1
        await asyncio.sleep(0.004)
