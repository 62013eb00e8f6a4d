"""What a transceiver tells the registry: its heartbeat, its calls, and which topology and keys it works with.

Redis is told, never asked: if it is away nothing here changes for any call, and everything is told again when it is back,
because every record is written again before it would be forgotten.

Owns: the records and when they are due. Does not own: the connection (a RecordSink), or the models (contract).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from voicefleet_contract.registry import (
    ACK_TTL_S,
    HEARTBEAT_INTERVAL_S,
    HEARTBEAT_TTL_S,
    SESSION_TTL_S,
    Acknowledgement,
    Heartbeat,
    SessionRecord,
    ack_key,
    client_network,
    heartbeat_key,
    session_key,
)
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import TopologyIndex
from voicefleet_dataplane.core.session import Session
from voicefleet_dataplane.core.transceiver import Transceiver
from voicefleet_dataplane.shell.records import Record, RecordSink

log = logging.getLogger("voicefleet.transceiver")

# A third of the TTL: a record survives one write that fails.
_SESSION_REWRITE_S = SESSION_TTL_S / 3
_ACK_REWRITE_S = ACK_TTL_S / 3


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
        self._written: dict[str, tuple[float, str]] = {}  # call id → when, and the state that was written
        self._acknowledged: tuple[float, object] = (-_ACK_REWRITE_S, None)
        self._away = False

    async def run(self) -> None:
        """Report every HEARTBEAT_INTERVAL_S; a registry that is away is said once."""
        while True:
            records, forgotten = self.due(time.monotonic(), time.time())
            try:
                await self._sink.write(records, forgotten)
            except Exception as error:  # whatever a client library has: nothing of it may end a report
                self._note_away(error)
            else:
                self._note_written(records)
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def leave(self) -> None:
        """Take this slot's records away, as far as the registry can be reached."""
        place = self._core.place
        keys = [session_key(place.cluster, call_id) for call_id in self._written]
        keys.append(heartbeat_key(place.cluster, place.slot, place.generation))
        keys.append(ack_key(place.cluster, self._settings.process_name))
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1.0):
                await self._sink.write([], keys)

    def due(self, now: float, unix_now: float) -> tuple[list[Record], list[str]]:
        """The records to write now, and the keys of calls that are over."""
        core, cluster = self._core, self._core.place.cluster
        records = [self._heartbeat(now, unix_now)]
        acknowledgement = self._acknowledgement(unix_now)
        content = acknowledgement.model_copy(update={"at": 0.0})
        at, acknowledged = self._acknowledged
        if content != acknowledged or now - at >= _ACK_REWRITE_S:
            self._acknowledged = (now, content)
            key = ack_key(cluster, self._settings.process_name)
            records.append(Record(key, acknowledgement.model_dump_json(), ACK_TTL_S))
        for call_id, session in core.sessions.items():
            at, state = self._written.get(call_id, (-_SESSION_REWRITE_S, ""))
            if now - at >= _SESSION_REWRITE_S or state != session.state:
                self._written[call_id] = (now, session.state)
                value = self._session(session, now, unix_now).model_dump_json()
                records.append(Record(session_key(cluster, call_id), value, SESSION_TTL_S))
        over = [call_id for call_id in self._written if call_id not in core.sessions]
        for call_id in over:
            del self._written[call_id]
        return records, [session_key(cluster, call_id) for call_id in over]

    def _heartbeat(self, now: float, unix_now: float) -> Record:
        core, place = self._core, self._core.place
        oldest = min((session.started_at for session in core.sessions.values()), default=now)
        heartbeat = Heartbeat(
            slot=place.slot,
            generation=place.generation,
            pool=self._settings.pool,
            state=core.state,
            sessions=len(core.sessions),
            capacity=place.capacity,
            oldest_session_age_s=round(now - oldest, 3),
            at=unix_now,
        )
        key = heartbeat_key(place.cluster, place.slot, place.generation)
        return Record(key, heartbeat.model_dump_json(), HEARTBEAT_TTL_S)

    def _acknowledgement(self, unix_now: float) -> Acknowledgement:
        index = self._topology()
        pools = index.topology.pools if index is not None else ()
        return Acknowledgement(
            process=self._settings.process_name,
            topology_revision=self._core.topology_revision,
            ring_epochs={pool.name: pool.ring_epoch for pool in pools},
            key_epochs=self._core.hint_keys.epochs,
            at=unix_now,
        )

    def _session(self, session: Session, now: float, unix_now: float) -> SessionRecord:
        status = session.status(now)
        path, index, place = session.ice.selected, self._topology(), self._core.place
        relay = index.relay_at(path.destination) if index is not None and path is not None and path.prefix else None
        return SessionRecord(
            call_id=status.call_id,
            pool=self._settings.pool,
            slot=place.slot,
            generation=place.generation,
            pod=self._settings.process_name,
            node=self._settings.node_name,
            relay=relay.name if relay is not None else session.agreed.relay,
            region=session.agreed.region,
            client_network=client_network(path.client.host) if path is not None else "",
            state=status.state,
            started_at=round(unix_now - status.age_s, 3),
            rtt_ms=status.rtt_ms,
            loss=status.loss,
            jitter_ms=status.jitter_ms,
            bytes_in=status.bytes_in,
            bytes_out=status.bytes_out,
        )

    def _note_away(self, error: Exception) -> None:
        self._written.clear()  # tell everything again when it is back
        self._acknowledged = (-_ACK_REWRITE_S, None)
        if not self._away:
            log.warning("the registry is away (%r): calls go on, and are reported when it is back", error)
        self._away = True

    def _note_written(self, records: Sequence[Record]) -> None:
        if self._away:
            log.info("the registry is back: %d records written", len(records))
        self._away = False
