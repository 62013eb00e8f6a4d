"""Finding an owner for a call: ask the members of a pool in ring order until one takes it.

The ring's key is chance, so calls spread by weight and no caller can aim at a member. Each member is asked to take the call
only while it holds less than its bounded share (core.loads). One that refuses (busy, full, draining) or does not answer is
passed over; when all that were asked are merely busy, the emptiest of them is asked again without a bound: a share is an
estimate, a call that finds room is placed.

A member that did not answer in time may have made the session all the same. Nobody would ever use it, but it would
hold a place until its set-up timeout; so the request is repeated in the background with the same ``request_id``, which
yields that very session (or a new one), and the session is hung up.

Owns: the walk and that clean-up. Does not own: HTTP to members (control_client), HTTP to callers (call_placing).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from voicefleet_contract.http_api import CreateSession, Refusal, RefusalReason, SessionCreated
from voicefleet_contract.topology import Member, TopologyIndex
from voicefleet_dataplane.core.gateway.loads import Loads
from voicefleet_dataplane.shell.gateway.control_client import (
    ControlClient,
    Created,
    NotReached,
    Outcome,
    Refused,
    Unknown,
)

log = logging.getLogger("voicefleet.gateway")

MAX_ASKED = 8  # a caller waits while we walk: past this the fleet is full, and Retry-After says so
MAX_FAILED = 2  # members that fail over a request: then it is the request, and the others are spared it
_CLEAN_UP_TIMEOUT_S = 15.0


@dataclass(slots=True)
class Walk:
    """How a walk went. One of ``session``, ``offer_refusal`` or neither (nobody took the call)."""

    session: SessionCreated | None = None
    owner: Member | None = None
    offer_refusal: Refusal | None = None
    offer_refused: bool = False
    outcomes: list[tuple[Member, str]] = field(default_factory=list)
    failed: int = 0  # members that answered 500
    retry_after_s: float = 1.0


class OwnerWalk:
    """Walks with one control client; ``count`` is told the outcome of each question for the metrics.

    ``loads`` is what was heard, by pool.
    """

    def __init__(self, client: Callable[[], ControlClient], count: Callable[[str], None]) -> None:
        self._client = client
        self._count = count
        self.loads: dict[str, Loads] = {}  # by pool: as many as the topology has
        self._cleaning: set[asyncio.Task[None]] = set()

    async def find(self, index: TopologyIndex, pool: str, key: bytes, body: CreateSession) -> Walk:
        """Ask members of ``pool`` until one takes the session or `MAX_ASKED` did not."""
        walk, active, loads = Walk(), index.active(pool), self.loads.setdefault(pool, Loads())
        busy: list[tuple[int, Member]] = []
        for slot in index.ring(pool).owners(key):
            if len(walk.outcomes) == MAX_ASKED or walk.failed == MAX_FAILED:
                break
            member = active[slot]
            bounded = body.model_copy(update={"below": loads.bound(member, time.monotonic())})
            outcome = await self._ask(walk, member, bounded, loads)
            if walk.session is not None or walk.offer_refused:
                return walk
            if isinstance(outcome, Refused) and outcome.refusal and outcome.refusal.reason is RefusalReason.BUSY:
                busy.append((outcome.refusal.sessions or 0, member))
        if busy and walk.failed < MAX_FAILED:
            _, emptiest = min(busy, key=lambda said: (said[0], said[1].slot))
            await self._ask(walk, emptiest, body, loads)
        return walk

    async def _ask(self, walk: Walk, member: Member, body: CreateSession, loads: Loads) -> Outcome:
        """Ask one member, and note what it said."""
        outcome = await self._client().create_session(member, body)
        match outcome:
            case Created(session):
                self._note(walk, member, "created")
                walk.session, walk.owner = session, member
                # It is heard of just after it got one more than it holds on average: without this, means would be too high.
                _hear(loads, member, None if session.sessions is None else session.sessions - 1)
            case Refused(422, refusal):  # the offer is at fault: no other member would take it
                self._note(walk, member, "offer")
                walk.offer_refusal, walk.offer_refused = refusal, True
            case Refused(status, refusal):
                walk.failed += status == 500
                self._note(walk, member, refusal.reason.value if refusal else f"http_{status}")
                if refusal is not None:
                    walk.retry_after_s = max(walk.retry_after_s, refusal.retry_after_s or 0)
                    _hear(loads, member, refusal.sessions)
            case NotReached(why):
                self._note(walk, member, "not_reached")
                log.warning("member %s (slot %d) not reached: %s", member.name, member.slot, why)
            case Unknown(why):
                self._note(walk, member, "no_answer")
                log.warning("member %s (slot %d) did not answer: %s", member.name, member.slot, why)
                self._clean_up(member, body)
        return outcome

    def imbalances(self, index: TopologyIndex) -> dict[str, float]:
        """Return for each pool that was asked how uneven its load is, as far as it was heard."""
        now = time.monotonic()
        return {pool: loads.imbalance(now) for pool, loads in self.loads.items() if index.pool(pool) is not None}

    def _note(self, walk: Walk, member: Member, outcome: str) -> None:
        walk.outcomes.append((member, outcome))
        self._count(outcome)

    def abandon(self, member: Member, call_id: str) -> None:
        """Hang up, in the background, a session whose caller went away before it got the answer."""
        self._start(self._hang_up(member, call_id))

    def _clean_up(self, member: Member, body: CreateSession) -> None:
        self._start(self._find_and_hang_up(member, body))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _find_and_hang_up(self, member: Member, body: CreateSession) -> None:
        outcome = await self._client().create_session(member, body, timeout_s=_CLEAN_UP_TIMEOUT_S)
        if isinstance(outcome, Created):
            await self._hang_up(member, outcome.session.call_id)

    async def _hang_up(self, member: Member, call_id: str) -> None:
        if await self._client().hang_up(member, call_id) is None:
            log.warning("call %s is left to the set-up timeout of %s", call_id, member.name)

    async def close(self, timeout_s: float) -> None:
        """Wait for clean-ups in progress, but not for ever."""
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=timeout_s)
        for task in self._cleaning:
            task.cancel()


def _hear(loads: Loads, member: Member, sessions: int | None) -> None:
    if sessions is not None:  # None: a member of a version before
        loads.hear(member, sessions, time.monotonic())
