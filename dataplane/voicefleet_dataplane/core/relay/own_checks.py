"""The consent checks of a flow's own call: looked at without asking the limits for strangers, within a small budget.

Calls live on these checks, so a flood must not keep them out (core/relay/check_limits.py). But what only says that it is one
can be said by anybody who knows the call's ufrag, its own caller first of all. So a flow has a bucket of its own: a check
takes a token from it and gives it back when it was authentic. Who sends more that fail is a stranger like any other.

Owns: which checks say that they are of a flow's call, and the bucket. Does not own: what a check is worth (core/relay/relay.py).
"""

from voicefleet_contract.hint import HintError, peek_hint
from voicefleet_dataplane.core.relay.flow import Flow
from voicefleet_dataplane.wire.stun import peek_server_ufrag

OWN_CHECKS_PER_S = 5.0
OWN_CHECKS_AT_ONCE = 10
_INTERVAL_S = 1 / OWN_CHECKS_PER_S
_SLACK_S = (OWN_CHECKS_AT_ONCE - 1) * _INTERVAL_S


def is_of(flow: Flow, check: bytes) -> bool:
    """Say whether a check names the flow's call; of a flow without a name, its owner. Nothing is verified."""
    ufrag = peek_server_ufrag(check)
    if flow.ufrag or ufrag is None:
        return ufrag == flow.ufrag
    try:
        hint = peek_hint(ufrag)
    except HintError:
        return False
    return (hint.slot, hint.generation) == flow.owner


def take_own_check(flow: Flow, now: float) -> bool:
    """Let one be looked at; False when too many of the flow's have failed."""
    due = max(flow.checks_due, now)
    if due - now > _SLACK_S + 1e-9:  # below a nanosecond is rounding
        return False
    flow.checks_due = due + _INTERVAL_S
    return True


def give_own_check_back(flow: Flow) -> None:
    """It was authentic."""
    flow.checks_due -= _INTERVAL_S
