"""What the control API asks about a call that runs: later offers, ICE, its events, its end.

Owns: whose a call is, and what each request means for it. Does not own: making calls and the process around them
(shell/transceiver/process.py, which is one of these), HTTP (shell/transceiver/control_api.py), the protocols (core).
Invariant: a call of another tenant is one that is not there.
"""

import time
from dataclasses import replace
from math import ceil

from voicefleet_contract.http_api import IceUpdated, Refusal, RefusalReason, Renegotiate, Renegotiated, UpdateIce
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.core.transceiver.transceiver import Created, Restarted, Transceiver
from voicefleet_dataplane.media.events import EventHub
from voicefleet_dataplane.shell.transceiver.control_api import no_call
from voicefleet_dataplane.shell.transceiver.media_socket import MediaSocket
from voicefleet_dataplane.shell.transceiver.running_call import RunningCall


class RunningCalls:
    """Calls by id, over one core and its socket."""

    core: Transceiver
    socket: MediaSocket
    calls: dict[str, RunningCall]

    def call_of(self, call_id: str, tenant: str | None) -> RunningCall | None:
        """The call, if it is here and of this tenant (None: whoever's)."""
        call = self.calls.get(call_id)
        return call if call is not None and tenant in (None, call.config.tenant) else None

    def renegotiate(self, call_id: str, request: Renegotiate) -> Renegotiated | Refusal:
        """Answer a later offer of a running call; raises SdpError."""
        call = self.call_of(call_id, request.tenant)
        if call is None:
            return no_call(call_id)
        candidates = [candidate.as_address() for candidate in request.candidates]
        session, now = call.session, time.monotonic()
        if request.another_peer:
            replaced = self.core.replace_peer(session, request.offer, candidates, now)
            if isinstance(replaced, Created):
                call.move(replaced.session)
            answer = replaced.answer if isinstance(replaced, Created) else replaced
        else:
            answer = self.core.renegotiate(session, request.offer, candidates, now)
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
            restarted = self.core.restart_ice(session, request.ice_ufrag, time.monotonic())
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
        ended = self.core.hang_up(call_id, EndReason.REPLACED if replaced else EndReason.HANG_UP)
        self.socket.wake()
        return ended


def _too_many_restarts(wait_s: float) -> Refusal:
    message = "this session restarts ICE too often; what it has serves on"
    return Refusal(reason=RefusalReason.TOO_MANY_RESTARTS, message=message, retry_after_s=ceil(wait_s))
