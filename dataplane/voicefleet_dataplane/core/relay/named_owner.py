"""Which member the ufrag of a check names, and whether anybody who holds the keys has said so.

Owns: the order of what is looked at, cheapest first, and the reason when it leads nowhere. Does not own: what a hint is
(contract.hint), flows, MESSAGE-INTEGRITY (core/relay/relay.py).
"""

from voicefleet_contract.drops import DropReason
from voicefleet_contract.hint import HintError, decode_hint, ice_pwd, peek_hint
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.topology import Member, MemberState, TopologyIndex

_HINT_REASONS = {
    "length": DropReason.HINT_MALFORMED,
    "alphabet": DropReason.HINT_MALFORMED,
    "version": DropReason.HINT_VERSION,
    "key_epoch": DropReason.HINT_KEY_EPOCH,
    "tag": DropReason.HINT_TAG,
}


def named_owner(ufrag: bytes, topology: TopologyIndex | None, keys: KeyRing) -> tuple[Member, bytes] | DropReason:
    """Return the member that an authentic hint names, and the password of its checks.

    What can be known to lead nowhere from the bare fields ends before the first HMAC: most garbage, and every hint
    of another cluster or of a member that is no more.
    """
    try:
        hint = peek_hint(ufrag)
        if topology is None:
            return DropReason.OWNER_UNKNOWN
        if hint.cluster != topology.cluster:
            return DropReason.HINT_OTHER_CLUSTER
        member = topology.member(hint.slot, hint.generation)
        if member is None:
            return DropReason.OWNER_UNKNOWN
        if member.state is MemberState.GONE:
            return DropReason.OWNER_GONE
        decode_hint(ufrag, keys)
    except HintError as error:
        return _HINT_REASONS[error.reason]
    return member, ice_pwd(ufrag.decode("ascii"), hint.key_epoch, keys).encode("ascii")
