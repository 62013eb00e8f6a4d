"""What an owner's own words decide about a flow: whose call it is, and that the call is over (docs/adr/0037).

::

    a check of another call of the owner ──▶ a candidate ──its owner's success, under the candidate's password──▶ the flow's name
    a refusal, under the flow's password ──▶ the flow lives GOODBYE_S more
    a DTLS alert, which proves nothing   ──▶ the flow lives ALERT_S more, unless its owner says another word

An owner answers every authentic check of its calls, whoever sent it from where. So the answer to somebody else's check, that
was sent from a client's address by who spoofs it, must neither name that client's flow nor end it. Both are believed
under a password only that belongs to the call in question. A flow whose call this process does not know (adopted, restored,
keys just changed) has none, and takes no goodbye.

Owns: these three decisions. Does not own: who may bind a flow (core/relay/relay.py), how long it lives (core/relay/flow.py).
"""

from voicefleet_dataplane.core.relay.flow import ALERT_S, GOODBYE_S, Candidate, Flow, FlowTable
from voicefleet_dataplane.wire.dtls_record import ALERT
from voicefleet_dataplane.wire.stun import (
    BINDING_ERROR,
    BINDING_SUCCESS,
    FORBIDDEN,
    HEADER_BYTES,
    TRANSACTION_ID_BYTES,
    StunError,
    parse_binding_response,
    verify_integrity,
)

# Calls of one owner that may be about to take a tuple over: a client's next one, and those of spoofers.
MOST_CANDIDATES = 4
_SUCCESS, _REFUSAL = BINDING_SUCCESS.to_bytes(2), BINDING_ERROR.to_bytes(2)
_TRANSACTION_ID = slice(HEADER_BYTES - TRANSACTION_ID_BYTES, HEADER_BYTES)


def note_candidate(flow: Flow, ufrag: bytes, password: bytes, transaction_id: bytes) -> None:
    """Remember an authentic check of another call of the flow's owner; the one checked longest ago is forgotten first."""
    others = [one for one in flow.candidates or () if one.ufrag != ufrag]
    flow.candidates = [*others[-(MOST_CANDIDATES - 1) :], Candidate(ufrag, password, transaction_id)]


def hear(flows: FlowTable, flow: Flow, word: bytes, now: float) -> bool:
    """Take what a flow's owner sends to its client; says whether it is the answer to a check that was accepted."""
    kind = word[:2]
    if kind == _REFUSAL:
        if flow.patience_s != GOODBYE_S and flow.password and _is_signed(word, flow.password, FORBIDDEN):
            flow.alive_at, flow.patience_s = now, GOODBYE_S
        return False
    flow.alive_at = now
    if word[0] == ALERT:
        flow.patience_s = ALERT_S if flow.patience_s is None else flow.patience_s
        return False
    flow.patience_s = None
    if kind != _SUCCESS:
        return False
    for one in flow.candidates or ():
        if one.transaction_id == word[_TRANSACTION_ID] and _is_signed(word, one.password, None):
            flows.rename(flow, one.ufrag)
            flow.password, flow.candidates = one.password, None
            break
    return True


def _is_signed(word: bytes, password: bytes, error_code: int | None) -> bool:
    try:
        answer = parse_binding_response(word)
    except StunError:
        return False
    return answer.error_code == error_code and verify_integrity(answer, password)
