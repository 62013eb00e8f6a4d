"""Where the records of ended calls go: standard output, a Redis stream, a webhook. Any of them may be slow or away.

A record is written to standard output at once. The others have a bounded queue each, and a task: a webhook is tried again, with
pauses that grow, for a quarter of an hour; what waits when the queue is full is dropped, oldest first, and counted. Nothing here
ever delays a call or its end.

Owns: delivery. Does not own: what a record says (contract.call_records).
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from voicefleet_contract.call_records import CallRecord, event_id, sign_webhook
from voicefleet_contract.quality import estimate_mos
from voicefleet_contract.registry import call_records_key, client_network
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.shell.process.redis_sink import open_redis

log = logging.getLogger("voicefleet.transceiver")

_MOST_WAITING = 2_000
_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_GIVE_UP_AFTER_S = 900.0
_TIMEOUT_S = 10.0
_LEAVE_S = 5.0

Deliver = Callable[[CallRecord], Awaitable[None]]


def make_record(settings: TransceiverSettings, session: Session, relay: str, now: float, unix_now: float) -> CallRecord:
    """Return the record of a call that has just ended."""
    status = session_status(session, now)
    host = status.client.rpartition(":")[0].strip("[]") if status.client else ""
    truncated = settings.call_record_addresses == "Truncated"

    def stage_ms(at: float | None) -> float | None:
        return None if at is None else round((at - session.lifetime.started_at) * 1e3, 1)

    return CallRecord(
        event_id=event_id(status.call_id),
        call_id=status.call_id,
        cluster=settings.cluster_id,
        pool=settings.pool,
        slot=settings.slot,
        generation=settings.generation,
        pod=settings.process_name,
        node=settings.node_name,
        relay=relay,
        region=session.agreed.region,
        client=client_network(host) if host and truncated else host,
        backend=settings.backend,
        started_at=round(unix_now - status.age_s, 3),
        ended_at=round(unix_now, 3),
        duration_s=status.age_s,
        checked_ms=stage_ms(session.checked_at),
        connected_ms=stage_ms(session.connected_at),
        audio_ms=stage_ms(session.audio_at),
        ended_reason=status.ended_reason or "",
        ended_detail=status.ended_detail or "",
        rtt_ms=status.rtt_ms,
        loss=status.loss,
        jitter_ms=status.jitter_ms,
        mos=estimate_mos(status.rtt_ms, status.loss, status.jitter_ms),
        packets_in=status.packets_in,
        packets_out=status.packets_out,
        bytes_in=status.bytes_in,
        bytes_out=status.bytes_out,
    )


class CallRecords:
    """Delivers records as the settings say."""

    def __init__(self, settings: TransceiverSettings, write: Callable[[str], Any] = print) -> None:
        """Read the webhook's secret. Raises OSError, ValueError."""
        self._write = write if settings.call_records_stdout else None
        self._lanes: list[_Lane] = []
        self._closing: list[Callable[[], Awaitable[Any]]] = []
        if settings.call_records_stream and settings.redis_url:
            stream = _Stream(settings)
            self._lanes.append(_Lane("stream", stream.deliver))
            self._closing.append(stream.close)
        if settings.call_records_webhook_url:
            webhook = _Webhook(settings)
            self._lanes.append(_Lane("webhook", webhook.deliver))
            self._closing.append(webhook.close)

    def put(self, record: CallRecord) -> None:
        """Take a record: written at once, delivered soon."""
        if self._write is not None:
            self._write(record.model_dump_json())
        for lane in self._lanes:
            lane.put(record)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return (where, outcome) → records, for the metrics."""
        return {(lane.name, outcome): count for lane in self._lanes for outcome, count in lane.counts.items()}

    def start(self) -> None:
        """Deliver from now on."""
        for lane in self._lanes:
            lane.start()

    async def close(self) -> None:
        """Deliver what waits, for a few seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await asyncio.gather(*(lane.drained() for lane in self._lanes))
        for lane in self._lanes:
            lane.stop()
        for close in self._closing:
            with contextlib.suppress(Exception):
                await close()


class _Lane:
    """One destination: its queue, its task, its patience."""

    def __init__(self, name: str, deliver: Deliver) -> None:
        self.name = name
        self.counts = {"delivered": 0, "dropped": 0}
        self._deliver = deliver
        self._waiting: deque[tuple[float, CallRecord]] = deque()
        self._more, self._empty = asyncio.Event(), asyncio.Event()
        self._empty.set()
        self._task: asyncio.Task[None] | None = None

    def put(self, record: CallRecord) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self.counts["dropped"] += 1
        self._waiting.append((time.monotonic(), record))
        self._empty.clear()
        self._more.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.counts["dropped"] += len(self._waiting)

    async def drained(self) -> None:
        await self._empty.wait()

    async def _run(self) -> None:
        failures = 0
        while True:
            if not self._waiting:
                self._empty.set()
                self._more.clear()
                await self._more.wait()
                continue
            since, record = self._waiting[0]
            try:
                await self._deliver(record)
            except Exception as error:  # whatever a client library has: the next try may do
                if failures == 0:
                    log.warning("call records: the %s does not take them (%r): tried again", self.name, error)
                failures += 1
                if time.monotonic() - since < _GIVE_UP_AFTER_S:
                    await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S)) - 1])
                    continue
                outcome = "dropped"
            else:
                failures, outcome = 0, "delivered"
            if self._waiting and self._waiting[0][1] is record:
                self._waiting.popleft()
            self.counts[outcome] += 1


class _Stream:
    """A Redis stream of the cluster, no longer than the settings say."""

    def __init__(self, settings: TransceiverSettings) -> None:
        self._redis = open_redis(settings)
        self._key, self._keep_s = call_records_key(settings.cluster_id), settings.call_records_keep_s

    async def deliver(self, record: CallRecord) -> None:
        oldest_ms = int((record.ended_at - self._keep_s) * 1e3)
        fields: dict[Any, Any] = {"type": record.type, "record": record.model_dump_json()}
        await self._redis.xadd(self._key, fields, minid=f"{max(0, oldest_ms)}-0", approximate=True)

    async def close(self) -> None:
        await self._redis.aclose()


class _Webhook:
    """POSTs of one record each, signed; redirects are not followed."""

    def __init__(self, settings: TransceiverSettings) -> None:
        self._url = settings.call_records_webhook_url
        path = settings.call_records_webhook_secret_file
        self._secret = Path(path).read_bytes().strip() if path else b""
        if not self._secret:
            raise ValueError("call_records_webhook_secret_file: a webhook needs a secret to sign with")
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False)

    async def deliver(self, record: CallRecord) -> None:
        body = record.model_dump_json().encode()
        headers = sign_webhook(self._secret, record.event_id, int(time.time()), body)
        answer = await self._http.post(self._url, content=body, headers={"Content-Type": "application/json", **headers})
        if not 200 <= answer.status_code < 300:
            raise ValueError(f"the receiver answered {answer.status_code}")

    async def close(self) -> None:
        await self._http.aclose()
