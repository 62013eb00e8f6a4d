"""What a relay tells the registry: which topology and which keys it works with.

The operator waits for these acknowledgements before it signs with a new key epoch: a relay that does not hold the epoch yet
would drop every check of a new call. Redis is told, never asked; while it is away nothing here changes for any call.

Owns: the record and when it is due. Does not own: the connection (a RecordSink).
"""

import asyncio
import contextlib
import logging
import time

from voicefleet_contract.registry import ACK_TTL_S, HEARTBEAT_INTERVAL_S, Acknowledgement, ack_key
from voicefleet_contract.settings import RelaySettings
from voicefleet_dataplane.core.relay import Relay
from voicefleet_dataplane.shell.records import Record, RecordSink

log = logging.getLogger("voicefleet.relay")

_REWRITE_S = ACK_TTL_S / 3  # the record survives one write that fails


class Acknowledger:
    """Tells a sink what one relay works with, until cancelled."""

    def __init__(self, settings: RelaySettings, core: Relay, sink: RecordSink) -> None:
        self._settings, self._core, self._sink = settings, core, sink
        self._key = ack_key(settings.cluster_id, settings.process_name)
        self._written: tuple[float, Acknowledgement] | None = None
        self._away = False

    async def run(self) -> None:
        """Write when something changed, and before the record would be forgotten. A registry away is said once."""
        while True:
            record = self.due(time.monotonic(), time.time())
            try:
                if record is not None:
                    await self._sink.write([record], [])
            except Exception as error:  # whatever a client library has: nothing of it may end a report
                self._written = None
                if not self._away:
                    log.warning("the registry is away (%r): calls go on; acknowledged when it is back", error)
                self._away = True
            else:
                self._away = False
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def leave(self) -> None:
        """Take the record away, as far as the registry can be reached: nobody should wait for a relay that left."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1.0):
                await self._sink.write([], [self._key])

    def due(self, now: float, unix_now: float) -> Record | None:
        """Return the record to write now, if any."""
        topology = self._core.topology.topology if self._core.topology is not None else None
        content = Acknowledgement(
            process=self._settings.process_name,
            topology_revision=topology.revision if topology is not None else 0,
            ring_epochs={pool.name: pool.ring_epoch for pool in topology.pools} if topology is not None else {},
            key_epochs=self._core.keys.epochs,
            at=0.0,
        )
        if self._written is not None and self._written[1] == content and now - self._written[0] < _REWRITE_S:
            return None
        self._written = (now, content)
        return Record(self._key, content.model_copy(update={"at": unix_now}).model_dump_json(), ACK_TTL_S)
