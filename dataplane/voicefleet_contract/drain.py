"""How people ask for a drain: one annotation, ``voicefleet.dev/drain``, on a pod, a node, or a Transceiver.

======================  =====================================================================
``"true"``              drain as spec.drain of the pool says
``"10m"``               calls that are still there ten minutes after the fence are hung up
``"HangUp"``            hang up at once, one call after the other
``"Wait 10m"``          both said
``"false"``, ``""``     nothing is asked
======================  =====================================================================

Owns: the spelling. Does not own: what follows (the operator's desired.drain).
"""

from dataclasses import dataclass

from voicefleet_contract.outside import is_digits
from voicefleet_contract.resources import DrainPolicy
from voicefleet_contract.settings import parse_duration_s

MAX_DEADLINE_S = 24 * 3600.0
_POLICIES = {policy.value: policy for policy in (DrainPolicy.WAIT, DrainPolicy.HANG_UP)}


class DrainRequestError(ValueError):
    """The annotation says something else; the text says what it may say."""


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """A drain that somebody asked for; what it leaves open is the pool's to say."""

    policy: DrainPolicy | None = None
    deadline_s: float | None = None


def parse_drain(value: str) -> DrainRequest | None:
    """Read the annotation; None asks for nothing. Raises DrainRequestError."""
    if value in ("", "false"):
        return None
    policy: DrainPolicy | None = None
    deadline_s: float | None = None
    for word in [] if value == "true" else value.split():
        if word in _POLICIES and policy is None:
            policy = _POLICIES[word]
        elif deadline_s is None:
            deadline_s = _parse_deadline(word, value)
        else:
            raise _error(value)
    return DrainRequest(policy, deadline_s)


def _parse_deadline(word: str, value: str) -> float:
    try:
        deadline_s = parse_duration_s(word)
    except ValueError:
        raise _error(value) from None
    if is_digits(word) or deadline_s > MAX_DEADLINE_S:  # a bare number says no unit
        raise _error(value)
    return deadline_s


def _error(value: str) -> DrainRequestError:
    return DrainRequestError(f"{value[:40]!r}: write true, Wait, HangUp, a duration up to 24h, or both: HangUp 10m")
