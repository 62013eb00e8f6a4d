"""What the control API asks about calls: a new one, one that listens, later offers, ICE, events, the end; and how many there are.

Owns: the calls of this moment, whose a call is, and what each request means for it. Does not own: the process around them
(shell/transceiver/process.py, which is one of these), HTTP (shell/transceiver/control_api.py), the protocols (core), what is
written of a call (shell/transceiver/call_trace.py).
Invariant: a call of another tenant is one that is not there.
"""

import asyncio
import logging
import time
from dataclasses import replace
from math import ceil

from voicefleet_contract.http_api import (
    CreateSession,
    IceUpdated,
    Refusal,
    RefusalReason,
    Renegotiate,
    Renegotiated,
    SessionCreated,
    SessionList,
    SlotStatus,
    UpdateIce,
)
from voicefleet_contract.registry import FIRST_MEDIA_S
from voicefleet_contract.release import release
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.core.call.negotiation import Terms
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.core.transceiver.admission import NoRoom
from voicefleet_dataplane.core.transceiver.calls import Created, Restarted
from voicefleet_dataplane.core.transceiver.transceiver import Transceiver
from voicefleet_dataplane.media.backend import BackendFactory, CallConfig
from voicefleet_dataplane.media.events import EventHub
from voicefleet_dataplane.media.listening import MAX_LISTENERS
from voicefleet_dataplane.shell.process.codec_thread import CodecThread
from voicefleet_dataplane.shell.process.playout_clock import PlayoutClock
from voicefleet_dataplane.shell.transceiver.call_trace import CallTrace
from voicefleet_dataplane.shell.transceiver.control_api import Refused, no_call
from voicefleet_dataplane.shell.transceiver.media_socket import MediaSocket
from voicefleet_dataplane.shell.transceiver.running_call import RunningCall
from voicefleet_dataplane.wire.sdp.answer import WHY_NO_DATA
from voicefleet_dataplane.wire.sdp.model import Direction

log = logging.getLogger("voicefleet.transceiver")


class RunningCalls:
    """Calls by id, over one core and its socket."""

    socket: MediaSocket  # bound by the process before it serves

    def __init__(
        self,
        settings: TransceiverSettings,
        core: Transceiver,
        make_backend: BackendFactory,
        trace: CallTrace,
        refused: Refused,
    ) -> None:
        """`refused` is counted by the control API and told in the status."""
        self._settings = settings
        self.core = core
        self._make_backend = make_backend
        self._trace = trace
        self._refused = refused
        self._codec = CodecThread()
        self._clock = PlayoutClock()
        self._empty = asyncio.Event()  # set when the last call has ended
        self.calls: dict[str, RunningCall] = {}

    def call_of(self, call_id: str, tenant: str | None) -> RunningCall | None:
        """The call, if it is here and of this tenant (None: whoever's)."""
        call = self.calls.get(call_id)
        return call if call is not None and tenant in (None, call.config.tenant) else None

    def create(self, request: CreateSession) -> SessionCreated | NoRoom:
        """Answer an offer; raises SdpError."""
        return self._create(request, self._make_backend)

    def listen(self, call_id: str, request: CreateSession) -> SessionCreated | NoRoom | Refusal:
        """Answer the offer of a client that wants to hear a call's agent; raises SdpError."""
        heard = self.call_of(call_id, request.tenant)
        if heard is None or heard.session.description.terms.joins:  # who listens has no agent
            return no_call(call_id)
        if heard.audience.is_full:
            return NoRoom(RefusalReason.FULL, f"this call has its {MAX_LISTENERS} listeners", 5)
        return self._create(request, heard.audience.join, joins=True)

    def _create(
        self, request: CreateSession, make_backend: BackendFactory, *, joins: bool = False
    ) -> SessionCreated | NoRoom:
        direction = Direction(request.direction) if request.direction else None
        outcome = self.core.calls.create(
            request.offer,
            [candidate.as_address() for candidate in request.candidates],
            time.monotonic(),
            request_id=request.request_id,
            region=request.region,
            relay=request.relay,
            below=request.below,
            terms=Terms(direction, whole=request.whole, keeps=request.keeps, joins=joins),
        )
        if isinstance(outcome, NoRoom):
            return outcome
        call_id = outcome.session.agreed.call_id
        if call_id not in self.calls:
            try:
                traceparent = self._trace.begin(call_id, request.traceparent)
                config = CallConfig(call_id, request.tenant, request.session, traceparent, request.chat)
                call = RunningCall(
                    outcome.session,
                    config,
                    make_backend,
                    self._codec,
                    self._clock,
                    self.socket.wake,
                    self._ended,
                )
            except Exception as error:  # a backend that cannot be made: this member is no use now, another may be
                log.error("call %s: no backend", call_id, exc_info=error)
                outcome.session.end(EndReason.BACKEND_FAILED)
                self._trace.end_set_up(outcome.session)
                return NoRoom(RefusalReason.OVERLOADED, "the backend of this transceiver cannot be reached", 1)
            self.calls[call_id] = call
            self._empty.clear()
            self.socket.wake()  # its timers
        place = self.core.place
        return SessionCreated(
            call_id=call_id,
            answer=outcome.answer,
            slot=place.slot,
            generation=place.generation,
            sessions=len(self.core.calls.sessions),
            ufrag=outcome.session.ice.ufrag,
            notice=WHY_NO_DATA if outcome.session.agreed.lost_data else "",
        )

    def renegotiate(self, call_id: str, request: Renegotiate) -> Renegotiated | Refusal:
        """Answer a later offer of a running call; raises SdpError."""
        call = self.call_of(call_id, request.tenant)
        if call is None:
            return no_call(call_id)
        candidates = [candidate.as_address() for candidate in request.candidates]
        session, now = call.session, time.monotonic()
        if request.another_peer:
            replaced = self.core.calls.replace_peer(session, request.offer, candidates, now)
            if isinstance(replaced, Created):
                call.move(replaced.session)
            answer = replaced.answer if isinstance(replaced, Created) else replaced
        else:
            answer = self.core.calls.renegotiate(session, request.offer, candidates, now)
        if not isinstance(answer, str):
            return _too_many_restarts(answer)
        call.session.agreed = replace(call.session.agreed, region=request.region, relay=request.relay)
        call.on_agreed()
        self.socket.wake()  # its timers
        return Renegotiated(answer=answer)

    def update_ice(self, call_id: str, request: UpdateIce) -> IceUpdated | Refusal:
        """Hear what a client says of ICE: a restart when its ufrag is another one, and nothing to do else."""
        call = self.call_of(call_id, request.tenant)
        if call is None:
            return no_call(call_id)
        session = call.session
        ice = session.ice
        if "*" not in request.if_match and ice.ufrag not in request.if_match:
            message = "the ICE session has been restarted meanwhile"
            return Refusal(reason=RefusalReason.OTHER_ICE_SESSION, message=message)
        is_new = request.ice_ufrag not in ("", ice.remote_ufrag)
        # A restart whose answer was lost is asked for again in the same words: it gets the same answer. Before any restart they
        # are those of clients that send candidates with `*`.
        is_repeated = not is_new and request.ice_ufrag != "" and "*" in request.if_match and ice.restarts > 0
        if not is_new and not is_repeated:
            return IceUpdated(restarted=False, ice_ufrag=ice.ufrag)
        if is_new:
            restarted = self.core.calls.restart_ice(session, request.ice_ufrag, time.monotonic(), request.client_pwd)
            if not isinstance(restarted, Restarted):
                return _too_many_restarts(restarted)
            self.socket.wake()  # its timers
        session.agreed = replace(session.agreed, region=request.region, relay=request.relay)
        return IceUpdated(restarted=True, ice_ufrag=ice.ufrag, ice_pwd=ice.pwd, mids=session.agreed.mids)

    def events(self, call_id: str, tenant: str | None = None) -> EventHub | None:
        """The events of a call; None if there is none, or not of this tenant."""
        call = self.call_of(call_id, tenant)
        return call.hub if call is not None else None

    def hang_up(self, call_id: str, tenant: str | None = None, *, replaced: bool = False) -> bool:
        """End a call; False if there is none, or not of this tenant (None: whoever's)."""
        if self.call_of(call_id, tenant) is None:
            return False
        ended = self.core.calls.hang_up(call_id, EndReason.REPLACED if replaced else EndReason.HANG_UP)
        self.socket.wake()
        return ended

    def sessions(self) -> SessionList:
        """The calls of this moment."""
        now = time.monotonic()
        sessions = self.core.calls.sessions.values()
        return SessionList(sessions=tuple(session_status(session, now) for session in sessions))

    def status(self) -> SlotStatus:
        """The slot as it sees itself."""
        core, calls, tally = self.core, self.core.calls, self.core.calls.tally
        oldest, newest = tally.started_at() or (None, None)
        return SlotStatus(
            slot=core.place.slot,
            generation=core.place.generation,
            pool=self._settings.pool,
            state=calls.state,
            sessions=len(calls.sessions),
            capacity=core.place.capacity,
            sessions_total=tally.started,
            oldest_started_at=oldest,
            newest_started_at=newest,
            media_up=tally.media_up,
            media_failed=tally.media_failed(time.monotonic(), FIRST_MEDIA_S),
            packets_in=core.packets_in,
            packets_out=self.socket.packets_out,
            drops={reason.value: count for reason, count in core.drops.items() if count},
            control_refused={reason.value: count for reason, count in self._refused.items() if count},
            topology_revision=core.topology_revision,
            release=release(),
        )

    def _ended(self, call: RunningCall) -> None:
        del self.calls[call.call_id]
        self._trace.ended(call)
        if not self.calls:
            self._empty.set()


def _too_many_restarts(wait_s: float) -> Refusal:
    message = "this session restarts ICE too often; what it has serves on"
    return Refusal(reason=RefusalReason.TOO_MANY_RESTARTS, message=message, retry_after_s=ceil(wait_s))
