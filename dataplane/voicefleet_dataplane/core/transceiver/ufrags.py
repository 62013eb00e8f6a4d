"""The server ufrags of one slot: given out, leading to a call, and known for a while to have led to one.

Invariants
- A nonce is not given again while its call lives, nor for the NONCES_REMEMBERED ufrags after it.
- Consent is withdrawn (`pwd_to_withdraw`) only for calls that are over. Credentials that a running call has outgrown lead to silence, for as
  long as their nonce is known.
"""

from collections.abc import Callable

from voicefleet_contract.announcement import Addressee
from voicefleet_contract.hint import Hint, HintError, decode_hint, encode_hint, ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.wire.stun import BindingRequest, verify_integrity

NONCES_REMEMBERED = 65_536
RETIRED_REMEMBERED = 4_096


class Ufrags:
    """Which session a check's ufrag names."""

    def __init__(self, owner: Addressee, random_bytes: Callable[[int], bytes]) -> None:
        self.sessions: dict[bytes, Session] = {}  # by ufrag, as it stands in USERNAME
        self._owner = owner
        self._random_bytes = random_bytes
        self._retired: dict[bytes, bool] = {}  # whether its call is over; oldest first
        self._nonces: dict[int, None] = {}  # oldest first

    def new(self, keys: KeyRing) -> tuple[str, str]:
        """Return a ufrag that leads nowhere yet, and its password."""
        while True:
            ufrag = encode_hint(
                Hint(keys.signing, self._owner.cluster, self._owner.slot, self._owner.generation, self._new_nonce()),
                keys,
            )
            if ufrag.encode() not in self.sessions:
                return ufrag, ice_pwd(ufrag, keys.signing, keys)

    def lead_to(self, ufrag: str, session: Session) -> None:
        """Checks with it are this session's."""
        self.sessions[ufrag.encode()] = session

    def retire(self, ufrag: str, *, call_is_over: bool) -> None:
        """A check that carries it leads nowhere any more."""
        name = ufrag.encode()
        del self.sessions[name]
        if len(self._retired) >= RETIRED_REMEMBERED:
            del self._retired[next(iter(self._retired))]
        self._retired[name] = call_is_over

    def was_in_use(self, ufrag: bytes) -> bool:
        """Say whether it led to a call not long ago."""
        return ufrag in self._retired

    def pwd_to_withdraw(self, ufrag: bytes, keys: KeyRing) -> bytes | None:
        """Return the password of a ufrag of this slot whose call is over, or was another process's before us; else None.

        For the latter it needs no memory: of a process that was killed, the next one knows the passwords too.
        """
        if ufrag in self.sessions or not self._retired.get(ufrag, True):
            return None
        try:
            hint = decode_hint(ufrag, keys)
        except HintError:
            return None
        if Addressee(hint.cluster, hint.slot, hint.generation) != self._owner:
            return None
        if ufrag not in self._retired and hint.nonce in self._nonces:
            return None  # ours, and how it went out of use is forgotten: its call may go on
        return ice_pwd(ufrag.decode(), hint.key_epoch, keys).encode()

    def is_of_another_owner(self, request: BindingRequest, keys: KeyRing) -> bool:
        """Say whether a check is authentic, and another owner's."""
        try:
            hint = decode_hint(request.server_ufrag, keys)
        except HintError:
            return False
        pwd = ice_pwd(request.server_ufrag.decode(), hint.key_epoch, keys).encode()
        return Addressee(hint.cluster, hint.slot, hint.generation) != self._owner and verify_integrity(request, pwd)

    def _new_nonce(self) -> int:
        nonce = int.from_bytes(self._random_bytes(4))
        while nonce in self._nonces:
            nonce = int.from_bytes(self._random_bytes(4))
        # In use for as long as a call may last, and every call started since counts one: far more than are alive.
        if len(self._nonces) >= NONCES_REMEMBERED:
            del self._nonces[next(iter(self._nonces))]
        self._nonces[nonce] = None
        return nonce
