"""Telling watchers of sessions whose owner died: it cannot do so itself.

A transceiver that has been silent for two heartbeats' lives is taken off the list of slots. Redis takes it off for one of us
only: that one writes the DELETED events and drops its records. Should it only have been silent, it sees that it is off the list and
tells everything again (dataplane, session_records).
"""

import asyncio
import contextlib
import logging
import time

from voicefleet_contract.sessions import INDEXED, event_command, leave_commands
from voicefleet_operator.sessions_api.registry import RegistryAwayError, SessionRegistry

log = logging.getLogger("voicefleet.sessions")

_LOOK_S = 5.0


async def forget_lost_slots(registry: SessionRegistry, cluster: int) -> None:
    """Look for ever; a registry that is away is somebody else's to tell."""
    while True:
        with contextlib.suppress(RegistryAwayError):
            await forget_once(registry, cluster, time.time())
        await asyncio.sleep(_LOOK_S)


async def forget_once(registry: SessionRegistry, cluster: int, unix_now: float) -> int:
    """Take every silent transceiver's sessions away; return how many there were. Raises RegistryAwayError."""
    forgotten = 0
    for slot, generation in await registry.silent_slots(unix_now):
        records = await registry.all_of(slot, generation)
        if not await registry.claim(slot, generation):
            continue
        sets = {(field, getattr(record, field)) for record in records for field in INDEXED}
        commands = [*leave_commands(cluster, slot, generation, sorted(sets))]
        events = [command for record in records if (command := event_command(cluster, record, None)) is not None]
        await registry.execute(commands)
        await registry.execute(events)
        forgotten += len(records)
        log.warning("slot %d generation %d fell silent: %d sessions taken away", slot, generation, len(records))
    return forgotten
