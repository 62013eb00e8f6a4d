"""The flow cache in Redis: one relay's questions and what it writes behind. Nothing of the packet path waits for it.

Questions go out as soon as there are any, as one MGET for all of a moment's, one at a time on a connection of their own; those
that come meanwhile make the next one. One that takes longer than ANSWER_WITHIN_S has failed, as it has when Redis is away:
what was held for it is dropped, and nothing is asked for a while (core/relay/lookups.py).

Writes go out in batches by one script call: a pipeline of SETs costs the client ten times as much. While Redis is away nothing
is kept for it; when it is back it hears of every flow again, since it may have come back empty.

Owns: the connection, batches and their pace. Does not own: what is asked, held and written (core/relay/lookups.py, core/relay/recovery.py).
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from voicefleet_contract.addresses import Address
from voicefleet_contract.registry import flow_key
from voicefleet_contract.settings import RelaySettings
from voicefleet_dataplane.core.relay.flow import CACHE_REFRESH_S
from voicefleet_dataplane.core.relay.lookups import MOST_PENDING
from voicefleet_dataplane.core.relay.recovery import Recovered, Recovery
from voicefleet_dataplane.shell.process.redis_sink import open_redis

log = logging.getLogger("voicefleet.relay")

ANSWER_WITHIN_S = 0.25
_QUESTIONS_AT_ONCE = 64  # what comes of them takes about 2 ms of the loop
_RECORDS_AT_ONCE = 128  # about 1 ms of the loop; with the pause some 15,000 a second at most
_WRITE_PAUSE_S = 0.005
_WRITE_INTERVAL_S = 0.1
_WRITE_AGAIN_S = 1.0
_WRITE_WITHIN_S = 1.0
_WRITE = "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[1]) end return #KEYS"


class FlowCache:
    """Puts a recovery's questions, hands what comes of the answers to ``send``, writes its records; until closed."""

    def __init__(self, settings: RelaySettings, recovery: Recovery, send: Callable[[Recovered], None]) -> None:
        """Read the password. Raises OSError. Connects later."""
        self.written = 0
        self.connected = False  # Redis answered at least once
        self._problems = {"asking": "", "writing": ""}
        self.recovery, self._send, self._cluster = recovery, send, settings.cluster_id
        self._ttl_s = math.ceil(3 * max(CACHE_REFRESH_S, settings.flow_idle_timeout_s))
        self._questions = asyncio.Event()
        retry = Retry(NoBackoff(), 1)  # a connection that was closed meanwhile is made anew, at once
        self._reader, self._writer = open_redis(settings, retry=retry), open_redis(settings, retry=retry)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Ask and write from now on."""
        self._tasks = [asyncio.create_task(self._keep(work)) for work in (self._ask, self._write)]

    def ask(self) -> None:
        """Put the questions that there are now; called after each batch of packets that left some."""
        self._questions.set()

    async def close(self) -> None:
        """Stop, and close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.aclose()
        await self._writer.aclose()

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await work()
            except Exception:  # a bug here must not end recovery for ever
                log.exception("flow cache")
                await asyncio.sleep(_WRITE_AGAIN_S)

    async def _ask(self) -> None:
        await self._attempt("asking", ANSWER_WITHIN_S, self._reader.ping())  # connected before the first question
        while True:
            await self._questions.wait()
            self._questions.clear()
            while clients := self.recovery.lookups.take_questions(_QUESTIONS_AT_ONCE):
                await self._ask_about(clients)

    async def _ask_about(self, clients: list[Address]) -> None:
        recovery = self.recovery
        keys = [flow_key(self._cluster, name) for name in recovery.names(clients)]
        records = None
        try:
            records = await self._attempt("asking", ANSWER_WITHIN_S, self._reader.mget(keys))
        finally:
            now = time.monotonic()
            if records is None:  # those that wait behind would only wait longer
                recovery.unanswered([*clients, *recovery.lookups.take_questions(MOST_PENDING)], now)
            else:
                self._send(recovery.answered(clients, records, now, time.time_ns() // 1_000_000))

    async def _write(self) -> None:
        while True:
            records = self.recovery.records(_RECORDS_AT_ONCE)
            if not records:
                await asyncio.sleep(_WRITE_INTERVAL_S)
                continue
            away = bool(self._problems["writing"])
            keys = [flow_key(self._cluster, name) for name, _ in records]
            written = self._writer.eval(_WRITE, len(keys), *keys, self._ttl_s, *(record for _, record in records))
            if await self._attempt("writing", _WRITE_WITHIN_S, written) is None:
                self.recovery.forget_records()
                await asyncio.sleep(_WRITE_AGAIN_S)
                continue
            self.written += len(records)
            if away:
                self.recovery.remember_all()
            await asyncio.sleep(_WRITE_PAUSE_S)

    async def _attempt(self, what: str, within_s: float, request: Awaitable[Any]) -> Any:
        """Return Redis' answer, or None when there is none; said once when that begins, and once when it ends."""
        try:
            async with asyncio.timeout(within_s):
                answer = await request
        except Exception as error:  # whatever a client library has
            if not self._problems[what]:
                log.warning("the flow cache is away (%s: %r): unknown flows wait for their next check", what, error)
            self._problems[what] = f"{what}: {error!r}"
            return None
        if self._problems[what]:
            log.info("the flow cache is back (%s)", what)
        self._problems[what], self.connected = "", True
        return answer

    @property
    def problem(self) -> str:
        """Why Redis could not be asked or told; empty when it could."""
        return "; ".join(filter(None, self._problems.values()))
