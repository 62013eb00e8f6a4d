"""What a relay or a gateway tells the registry: which topology and which keys it works with.

The operator waits for these acknowledgements before it signs with a new key epoch: a relay that does not hold the epoch yet
would drop every check of a new call, a gateway would refuse its hang-up. Redis is told, never asked; while it is away
nothing here changes for any call. A transceiver says the same beside its heartbeat (reporter.py).

Owns: the record and when it is due. Does not own: the connection (a RecordSink), nor what is in use (`content`).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from voicefleet_contract.registry import ACK_TTL_S, HEARTBEAT_INTERVAL_S, Acknowledgement, ack_key
from voicefleet_contract.topology import TopologyIndex
from voicefleet_dataplane.shell.process.records import Record, RecordSink

log = logging.getLogger("voicefleet.registry")

_REWRITE_S = ACK_TTL_S / 3  # the record survives one write that fails


def acknowledge(process: str, index: TopologyIndex | None) -> Acknowledgement:
    """Return what a process says of its topology; it adds its keys."""
    topology = index.topology if index is not None else None
    return Acknowledgement(
        process=process,
        topology_revision=topology.revision if topology is not None else 0,
        ring_epochs={pool.name: pool.ring_epoch for pool in topology.pools} if topology is not None else {},
        at=0.0,
    )


class Acknowledger:
    """Tells a sink what one process works with, until cancelled."""

    def __init__(self, cluster: int, content: Callable[[], Acknowledgement], sink: RecordSink) -> None:
        self._content, self._sink = content, sink
        self._key = ack_key(cluster, content().process)
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
        """Take the record away, as far as the registry can be reached: nobody should wait for a process that left."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1.0):
                await self._sink.write([], [self._key])

    def due(self, now: float, unix_now: float) -> Record | None:
        """Return the record to write now, if any."""
        content = self._content()
        if self._written is not None and self._written[1] == content and now - self._written[0] < _REWRITE_S:
            return None
        self._written = (now, content)
        return Record(self._key, content.model_copy(update={"at": unix_now}).model_dump_json(), ACK_TTL_S)
