"""What a transceiver tells the registry of its sessions: which of them are due, as Redis commands.

A session is told when it begins, when its state or its relay changes, and before it would be forgotten; what changes all
the time (RTT, loss, bytes) travels with the last of these. Nothing is ever read back: what was told is remembered here.

Owns: what is due. Does not own: the connection, or the pace (reporter).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voicefleet_contract.registry import SESSION_TTL_S, client_network
from voicefleet_contract.sessions import (
    INDEXED,
    Command,
    SessionRecord,
    count_fields,
    event_command,
    forget_commands,
    keep_commands,
    leave_commands,
    write_commands,
)
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import TopologyIndex
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.core.transceiver.transceiver import Transceiver

_REWRITE_S = SESSION_TTL_S / 3  # a record survives one write that fails


@dataclass(frozen=True, slots=True)
class Telling:
    """What to execute, in this order: who sees an event then finds the state behind it."""

    state: list[Command]
    events: list[Command]
    counts: Mapping[str, Mapping[str, int]]


def relay_name(session: Session, index: TopologyIndex | None) -> str:
    """Return the relay that a session's packets come through; until there are any, the one that its answer named."""
    path = session.ice.selected
    relay = index.relay_at(path.destination) if index is not None and path is not None and path.prefix else None
    return relay.name if relay is not None else session.agreed.relay


class SessionTeller:
    """Knows what the registry was told of one transceiver's sessions."""

    def __init__(
        self, settings: TransceiverSettings, core: Transceiver, topology: Callable[[], TopologyIndex | None]
    ) -> None:
        self._settings = settings
        self._core = core
        self._topology = topology
        self._told: dict[str, tuple[float, SessionRecord]] = {}
        self._sets: set[tuple[str, str]] = set()  # (field, value) of every set that we wrote to
        self._listed = False  # the list of slots had us before
        self._unsure = False  # a write failed: the registry may have any part of it, or have lost everything

    def due(self, now: float, unix_now: float) -> Telling:
        """Return what to tell now; it counts as told unless `note_failed` is called."""
        cluster, slot, generation = self._place
        sessions = self._core.calls.sessions
        records = {call_id: self._record(session, now, unix_now) for call_id, session in sessions.items()}
        written: list[tuple[SessionRecord | None, SessionRecord]] = []
        for call_id, record in records.items():
            at, before = self._told.get(call_id, (0.0, None))
            if self._unsure:
                before = None
            if (
                before is None
                or now - at >= _REWRITE_S
                or any(getattr(before, f) != getattr(record, f) for f in INDEXED)
            ):
                written.append((before, record))
                self._told[call_id] = (now, record)
                self._sets.update((field, getattr(record, field)) for field in INDEXED)
        gone = [self._told.pop(call_id)[1] for call_id in [c for c in self._told if c not in records]]
        self._unsure = False
        state = [
            *write_commands(cluster, slot, generation, written),
            *forget_commands(cluster, gone),
            *keep_commands(cluster, slot, generation, sorted(self._sets), unix_now),
        ]
        return Telling(state, [*self._events(written, gone)], count_fields(records.values()))

    def note_failed(self) -> None:
        """The last telling may not have arrived: everything is told again, as new."""
        self._unsure = True

    def note_answers(self, telling: Telling, answers: Sequence[Any]) -> None:
        """See from Redis' answers whether it still knew us. If not (another Redis, or we were silent for too long),
        watchers were told that our sessions are gone: tell them again.
        """
        listed = next((a for c, a in zip(telling.state, answers, strict=False) if c[0] == "ZADD"), 0)
        if listed and self._listed:
            self._unsure = True
        self._listed = True

    def leave(self) -> Telling:
        """Return what takes all of it away."""
        gone = [record for _, record in self._told.values()]
        self._told.clear()
        state = [*leave_commands(*self._place, sorted(self._sets))]
        return Telling(state, [*self._events([], gone)], {})

    @property
    def _place(self) -> tuple[int, int, int]:
        place = self._core.place
        return place.cluster, place.slot, place.generation

    def _events(
        self, written: list[tuple[SessionRecord | None, SessionRecord]], gone: list[SessionRecord]
    ) -> Iterator[Command]:
        for before, record in [*written, *((record, None) for record in gone)]:
            command = event_command(self._place[0], before, record)
            if command is not None:
                yield command

    def _record(self, session: Session, now: float, unix_now: float) -> SessionRecord:
        status = session_status(session, now)
        path, place = session.ice.selected, self._core.place
        return SessionRecord(
            call_id=status.call_id,
            pool=self._settings.pool,
            slot=place.slot,
            generation=place.generation,
            pod=self._settings.process_name,
            node=self._settings.node_name,
            relay=relay_name(session, self._topology()),
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
