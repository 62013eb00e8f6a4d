"""The lite agent of one session (RFC 8445 section 2.5): it answers checks, and sends none.

Owns: whether a check is authentic, which client addresses it has validated (paths), which of them we send to, and
whether there is still consent to send (RFC 7675). Does not own: which session a check belongs to (core/transceiver.py).

Invariants
- Only an authentic check that was never seen before moves anything. A transaction that comes again from its own
  address is answered and moves nothing; from another address it is a replay and gets silence. The memory is
  TRANSACTIONS_REMEMBERED long: a 60-minute call at one check in 2.5 s. Whoever delays the original on the path and
  sends it first from elsewhere is not held back by this (out of scope: docs/security.md).
- We send to the path nominated last; before any nomination, to the first that was checked.
- A path without a check for CONSENT_S is forgotten, and nothing more is sent there.
- Addresses come from checks alone: never from candidates, never from media.
- A relay's announcement changes through which relay a validated path goes, and nothing else: it validates no address and
  prolongs no consent. Announcements of a path are believed in ascending order of their time, each once, none that is
  older than the path, so one that was believed can't be repeated to lead the path back (docs/adr/0016).
"""

from dataclasses import dataclass

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.wire.stun import BindingRequest, build_binding_error, build_binding_success, verify_integrity

CONSENT_S = 30.0
MAX_PATHS = 8
TRANSACTIONS_REMEMBERED = 1_536
# Between an announcement's time and ours: what two clocks may differ by, and how long one may be under way.
ANNOUNCEMENT_WINDOW_S = 10.0
_ROLE_CONFLICT = 487


@dataclass(slots=True)
class Path:
    """A validated client address and how to reach it: straight, or through the relay that its last check came from."""

    client: Address
    destination: Address  # the relay's inner address, or the client itself
    prefix: bytes  # the SPP header for the relay; empty without one
    checked_at: float
    announced_at: float  # the time of the last announcement that was believed; at first, when the path was made
    bare: Address | None = None  # media goes here, without a header: the relay's flow port (docs/adr/0012)
    nominated: bool = False
    received_bytes: int = 0
    sent_bytes: int = 0

    def media(self, packet: bytes) -> tuple[bytes, Address]:
        """Return what to send, and where, for RTP and RTCP."""
        return (packet, self.bare) if self.bare is not None else (self.prefix + packet, self.destination)

    def follow(self, destination: Address, prefix: bytes, said_at: float, now: float) -> bool:
        """Go through another relay from now on, as an authentic announcement of it says; False if it comes too late."""
        if said_at <= self.announced_at or abs(now - said_at) > ANNOUNCEMENT_WINDOW_S:
            return False
        self.announced_at = said_at
        self.destination, self.prefix, self.bare = destination, prefix, None
        return True


class IceAgent:
    """Answers the checks of one client."""

    __slots__ = ("_key", "_remote_ufrag", "_transactions", "forgotten", "paths", "selected", "ufrag")

    def __init__(self, ufrag: str, pwd: str, remote_ufrag: str) -> None:
        self.ufrag = ufrag
        self._key = pwd.encode()
        self._remote_ufrag = remote_ufrag.encode()
        self._transactions: dict[bytes, Address] = {}
        self.paths: dict[Address, Path] = {}
        self.selected: Path | None = None
        self.forgotten: list[Address] = []

    def authenticate(self, request: BindingRequest) -> DropReason | None:
        """Why a check is not to be believed, or None."""
        if not verify_integrity(request, self._key):
            return DropReason.STUN_BAD_INTEGRITY
        if request.client_ufrag != self._remote_ufrag:
            return DropReason.ICE_WRONG_CLIENT
        if request.unknown_attributes:
            return DropReason.STUN_UNKNOWN_ATTRIBUTE
        return None

    def accept(
        self,
        request: BindingRequest,
        client: Address,
        destination: Address,
        prefix: bytes,
        now: float,
        bare: Address | None = None,
    ) -> bytes | DropReason:
        """Act on an authentic check; gives the answer to send back the way it came, or why there is none."""
        if request.ice_controlled is not None:
            # A lite agent is controlled (RFC 8445 section 6.1.1): the other side has to change its mind.
            return build_binding_error(request.transaction_id, _ROLE_CONFLICT, self._key)
        seen_from = self._transactions.get(request.transaction_id)
        if seen_from is not None and seen_from != client:
            return DropReason.ICE_REPLAY
        if seen_from is None:
            if client not in self.paths and not self._make_room(now):
                return DropReason.ICE_TOO_MANY_TUPLES
            self._remember(request.transaction_id, client)
            self._move(client, destination, prefix, bare, now, nominated=request.use_candidate)
        return build_binding_success(request.transaction_id, client, self._key)

    def is_repeated(self, request: BindingRequest) -> bool:
        """Say whether a transaction was seen before: it is answered, and moves nothing."""
        return request.transaction_id in self._transactions

    def deadline(self) -> float | None:
        """When the next path runs out of consent."""
        return min(path.checked_at for path in self.paths.values()) + CONSENT_S if self.paths else None

    def expire(self, now: float) -> bool:
        """Forget paths without consent; False when none is left of those there were."""
        had_paths = bool(self.paths)
        for path in [path for path in self.paths.values() if now - path.checked_at >= CONSENT_S]:
            self._forget(path)
        return bool(self.paths) or not had_paths

    def _remember(self, transaction_id: bytes, client: Address) -> None:
        if len(self._transactions) >= TRANSACTIONS_REMEMBERED:
            del self._transactions[next(iter(self._transactions))]
        self._transactions[transaction_id] = client

    def _move(
        self,
        client: Address,
        destination: Address,
        prefix: bytes,
        bare: Address | None,
        now: float,
        *,
        nominated: bool,
    ) -> None:
        path = self.paths.get(client)
        if path is None:
            path = self.paths[client] = Path(client, destination, prefix, checked_at=now, announced_at=now)
        path.checked_at = now
        path.destination = destination
        path.prefix = prefix
        path.bare = bare
        if nominated:
            path.nominated = True
        if nominated or self.selected is None:
            self.selected = path

    def _make_room(self, now: float) -> bool:
        if len(self.paths) < MAX_PATHS:
            return True
        for path in self.paths.values():
            if path is not self.selected and now - path.checked_at >= CONSENT_S / 2:
                self._forget(path)
                return True
        return False

    def _forget(self, path: Path) -> None:
        del self.paths[path.client]
        self.forgotten.append(path.client)
        if self.selected is path:
            nominated = [other for other in self.paths.values() if other.nominated]
            self.selected = max(nominated or self.paths.values(), key=lambda other: other.checked_at, default=None)
