"""What a transceiver tells the registry: its heartbeat, its calls, and which topology and keys it works with.

Redis is told, never asked: if it is away nothing here changes for any call, and everything is told again when it is back,
because every record is written again before it would be forgotten.

Owns: the records and when they are due. Does not own: the connection (a RecordSink), or the models (contract).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping

from voicefleet_contract.registry import (
    ACK_TTL_S,
    FIRST_MEDIA_S,
    HEARTBEAT_INTERVAL_S,
    HEARTBEAT_TTL_S,
    Acknowledgement,
    Heartbeat,
    ack_key,
    heartbeat_key,
)
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import TopologyIndex
from voicefleet_dataplane.core.transceiver.rate import Rate
from voicefleet_dataplane.core.transceiver.transceiver import Transceiver
from voicefleet_dataplane.shell.process.records import Record, RecordSink
from voicefleet_dataplane.shell.transceiver.session_records import SessionTeller, Telling

log = logging.getLogger("voicefleet.transceiver")

_SETUP_RATE_OVER_S = 30.0
_ACK_REWRITE_S = ACK_TTL_S / 3  # the record survives one write that fails


class Reporter:
    """Tells a sink about one transceiver until cancelled."""

    def __init__(
        self,
        settings: TransceiverSettings,
        core: Transceiver,
        topology: Callable[[], TopologyIndex | None],
        sink: RecordSink,
    ) -> None:
        self._settings = settings
        self._core = core
        self._topology = topology
        self._sink = sink
        self._sessions = SessionTeller(settings, core, topology)
        self._acknowledged: tuple[float, object] = (-_ACK_REWRITE_S, None)
        self._setups = Rate(_SETUP_RATE_OVER_S)
        self._seen_total = 0
        self._idle_since: float | None = None
        self._away = False

    async def run(self) -> None:
        """Report every HEARTBEAT_INTERVAL_S; a registry that is away is said once."""
        while True:
            records, telling = self.due(time.monotonic(), time.time())
            try:
                await self._sink.write(records, [])
                self._sessions.note_answers(telling, await self._sink.execute(telling.state))
                await self._sink.execute(telling.events)
            except Exception as error:  # whatever a client library has: nothing of it may end a report
                self._note_away(error)
            else:
                self._note_written()
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def leave(self) -> None:
        """Take this slot's records away, as far as the registry can be reached."""
        place, telling = self._core.place, self._sessions.leave()
        keys = [heartbeat_key(place.cluster, place.slot, place.generation)]
        keys.append(ack_key(place.cluster, self._settings.process_name))
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1.0):
                await self._sink.write([], keys)
                await self._sink.execute(telling.state)
                await self._sink.execute(telling.events)

    def due(self, now: float, unix_now: float) -> tuple[list[Record], Telling]:
        """The records and session commands to write now."""
        telling = self._sessions.due(now, unix_now)
        records = [self._heartbeat(telling.counts, now, unix_now)]
        acknowledgement = self._acknowledgement(unix_now)
        content = acknowledgement.model_copy(update={"at": 0.0})
        at, acknowledged = self._acknowledged
        if content != acknowledged or now - at >= _ACK_REWRITE_S:
            self._acknowledged = (now, content)
            key = ack_key(self._core.place.cluster, self._settings.process_name)
            records.append(Record(key, acknowledgement.model_dump_json(), ACK_TTL_S))
        return records, telling

    def _heartbeat(self, counts: Mapping[str, Mapping[str, int]], now: float, unix_now: float) -> Record:
        calls, place = self._core.calls, self._core.place
        oldest = min((session.lifetime.started_at for session in calls.sessions.values()), default=now)
        heartbeat = Heartbeat(
            slot=place.slot,
            generation=place.generation,
            pool=self._settings.pool,
            state=calls.state,
            pod=self._settings.process_name,
            node=self._settings.node_name,
            sessions=len(calls.sessions),
            counts={field: dict(values) for field, values in counts.items()},
            capacity=place.capacity,
            oldest_session_age_s=round(now - oldest, 3),
            idle_since=self._note_idle(unix_now),
            media_up=calls.tally.media_up,
            media_failed=calls.tally.media_failed(now, FIRST_MEDIA_S),
            setups_per_s=round(self._setups.note(calls.tally.started, now), 3),
            at=unix_now,
        )
        key = heartbeat_key(place.cluster, place.slot, place.generation)
        return Record(key, heartbeat.model_dump_json(), HEARTBEAT_TTL_S)

    def _note_idle(self, unix_now: float) -> float | None:
        """Return since when there is no call; one that came and went between two heartbeats counts."""
        calls = self._core.calls
        busy = bool(calls.sessions) or calls.tally.started != self._seen_total
        self._seen_total = calls.tally.started
        if busy or self._idle_since is None:
            self._idle_since = round(unix_now)
        return None if calls.sessions else self._idle_since

    def _acknowledgement(self, unix_now: float) -> Acknowledgement:
        index = self._topology()
        pools = index.topology.pools if index is not None else ()
        calls = self._core.calls
        return Acknowledgement(
            process=self._settings.process_name,
            topology_revision=self._core.topology_revision,
            ring_epochs={pool.name: pool.ring_epoch for pool in pools},
            key_epochs=calls.hint_keys.epochs,
            signing_epoch=calls.hint_keys.signing,
            call_key_epochs=calls.call_keys.epochs,
            call_signing_epoch=calls.call_keys.signing,
            at=unix_now,
        )

    def _note_away(self, error: Exception) -> None:
        self._sessions.note_failed()
        self._acknowledged = (-_ACK_REWRITE_S, None)
        if not self._away:
            log.warning("the registry is away (%r): calls go on, and are reported when it is back", error)
        self._away = True

    def _note_written(self) -> None:
        if self._away:
            log.info("the registry is back, and was told of %d sessions", len(self._core.calls.sessions))
        self._away = False
