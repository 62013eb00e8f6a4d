"""The lite agent of one session (RFC 8445 section 2.5): it answers checks, and sends none but to prove a path (core/call/path_proof.py).

Owns: whether a check is authentic, which client addresses it has validated (paths), which of them we send to, and
whether there is still consent to send (RFC 7675). Does not own: which session a check belongs to (core/transceiver/transceiver.py).

Invariants
- Only an authentic check that was never seen before moves anything. A transaction that comes again from its own
  address is answered and moves nothing; from another address it is a replay and gets silence. The memory is
  TRANSACTIONS_REMEMBERED long: a 60-minute call at one check in 2.5 s. Whoever delays the original on the path and
  sends it first from elsewhere is not held back by this (out of scope: docs/security.md).
- We send to the path nominated last; before any nomination, to the first that was checked.
- A path without a check for CONSENT_S is forgotten, and nothing more is sent there.
- Addresses come from checks alone: never from candidates, never from media.
- A restart (RFC 8445 section 9) adds credentials and disturbs nothing: the old ones serve until the client has used the new
  ones, and OLD_CREDENTIALS_S longer. One that the client never completes changes nothing. At most MAX_CREDENTIALS are known;
  once newer ones have nominated a path, older ones keep theirs alive and select none.
- A relay's announcement changes through which relay a validated path goes, and nothing else: it validates no address and
  prolongs no consent. Announcements of a path are believed in ascending order of their time, each once, none that is
  older than the path, so one that was believed can't be repeated to lead the path back (docs/adr/0016).
"""

from dataclasses import dataclass, field

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.path_budget import PathBudget
from voicefleet_dataplane.wire.stun import (
    FORBIDDEN,
    BindingRequest,
    build_binding_error,
    build_binding_success,
    verify_integrity,
)

CONSENT_S = 30.0
MAX_PATHS = 8
TRANSACTIONS_REMEMBERED = 1_536
MAX_CREDENTIALS = 3  # the ones in use, the newest, and those of a restart whose answer the client may still take
OLD_CREDENTIALS_S = 30.0
# Between an announcement's time and ours: what two clocks may differ by, and how long one may be under way.
ANNOUNCEMENT_WINDOW_S = 10.0
_ROLE_CONFLICT = 487
_NEVER = float("inf")


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
    credentials: "Credentials | None" = None  # of its last check
    transaction_id: bytes = b""  # of that check
    budget: PathBudget = field(default_factory=PathBudget)

    def media(self, packet: bytes) -> tuple[bytes, Address]:
        """Return what to send, and where, for RTP and RTCP."""
        return (packet, self.bare) if self.bare is not None else (self.prefix + packet, self.destination)

    def refusal(self) -> bytes | None:
        """Return the word for its relay that the call is over, signed as the answers to its checks were; None without a relay.

        To the client it is a second answer to its last check, which nobody expects.
        """
        if not self.prefix or self.credentials is None:
            return None
        return build_binding_error(self.transaction_id, FORBIDDEN, self.credentials.key)

    def follow(self, destination: Address, prefix: bytes, said_at: float, now: float) -> bool:
        """Go through another relay from now on, as an authentic announcement of it says; False if it comes too late."""
        if said_at <= self.announced_at or abs(now - said_at) > ANNOUNCEMENT_WINDOW_S:
            return False
        self.announced_at = said_at
        self.destination, self.prefix, self.bare = destination, prefix, None
        return True


@dataclass(slots=True)
class Credentials:
    """Our ufrag and pwd, and those of the client that they were made for."""

    ufrag: str
    key: bytes
    remote_ufrag: bytes
    remote_pwd: str  # empty: not known
    number: int  # counts a session's restarts
    leaves_at: float = _NEVER


class IceAgent:
    """Answers the checks of one client."""

    __slots__ = (
        "_credentials",
        "_selected_by",
        "_transactions",
        "_used",
        "forgotten",
        "paths",
        "retired",
        "selected",
    )

    def __init__(self, ufrag: str, pwd: str, remote_ufrag: str, remote_pwd: str = "") -> None:
        self._credentials = [Credentials(ufrag, pwd.encode(), remote_ufrag.encode(), remote_pwd, 0)]  # oldest first
        self._used = -1  # the number of the newest ones that a check has used
        self._selected_by = -1  # … of those that nominated a path
        self._transactions: dict[bytes, Address] = {}
        self.paths: dict[Address, Path] = {}
        self.selected: Path | None = None
        self.forgotten: list[Address] = []
        self.retired: list[str] = []  # our ufrags that are no longer known

    @property
    def ufrag(self) -> str:
        """Our newest one."""
        return self._credentials[-1].ufrag

    @property
    def pwd(self) -> str:
        """Of our newest ufrag."""
        return self._credentials[-1].key.decode()

    @property
    def remote_ufrag(self) -> str:
        """The one that the client said last."""
        return self._credentials[-1].remote_ufrag.decode()

    @property
    def restarts(self) -> int:
        """How often it has restarted."""
        return self._credentials[-1].number

    @property
    def ufrags(self) -> list[str]:
        """All that checks may carry now."""
        return [credentials.ufrag for credentials in self._credentials]

    def restart(self, ufrag: str, pwd: str, remote_ufrag: str, remote_pwd: str = "") -> None:
        """Know other credentials too, from now on."""
        number = self._credentials[-1].number + 1
        self._credentials.append(Credentials(ufrag, pwd.encode(), remote_ufrag.encode(), remote_pwd, number))
        if len(self._credentials) > MAX_CREDENTIALS:
            # Those in use carry the call until newer ones do: the others are of restarts that were restarted again.
            self._retire(next(one for one in self._credentials if one.number != self._used))

    def authenticate(self, request: BindingRequest) -> DropReason | None:
        """Why a check is not to be believed, or None."""
        credentials = self._of(request)
        if credentials is None or not verify_integrity(request, credentials.key):
            return DropReason.STUN_BAD_INTEGRITY
        if request.client_ufrag != credentials.remote_ufrag:
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
        credentials = self._of(request)
        assert credentials is not None  # it is authentic
        sha256 = bool(request.sha256_offset)
        if request.ice_controlled is not None:
            # A lite agent is controlled (RFC 8445 section 6.1.1): the other side has to change its mind.
            return build_binding_error(request.transaction_id, _ROLE_CONFLICT, credentials.key, sha256=sha256)
        seen_from = self._transactions.get(request.transaction_id)
        if seen_from is not None and seen_from != client:
            return DropReason.ICE_REPLAY
        if seen_from is None:
            if client not in self.paths and not self._make_room(now):
                return DropReason.ICE_TOO_MANY_TUPLES
            self._remember(request.transaction_id, client)
            self._use(credentials, now)
            nominated = request.use_candidate and credentials.number >= self._selected_by
            if nominated:
                self._selected_by = credentials.number
            path = self._move(client, destination, prefix, bare, now, nominated=nominated)
            path.credentials, path.transaction_id = credentials, request.transaction_id
        return build_binding_success(request.transaction_id, client, credentials.key, sha256=sha256)

    def is_repeated(self, request: BindingRequest) -> bool:
        """Say whether a transaction was seen before: it is answered, and moves nothing."""
        return request.transaction_id in self._transactions

    def deadline(self) -> float | None:
        """When the next path runs out of consent, or old credentials leave."""
        due = self._credentials[0].leaves_at
        if self.paths:
            due = min(due, min(path.checked_at for path in self.paths.values()) + CONSENT_S)
        return None if due == _NEVER else due

    def expire(self, now: float) -> bool:
        """Forget old credentials, and paths without consent; False when no path is left of those there were."""
        for credentials in [one for one in self._credentials if one.leaves_at <= now]:
            self._retire(credentials)
        had_paths = bool(self.paths)
        # The same sum as in `deadline`: a difference may round to less, and then the timer fires for ever at one moment.
        for path in [path for path in self.paths.values() if now >= path.checked_at + CONSENT_S]:
            self._forget(path)
        return bool(self.paths) or not had_paths

    def _of(self, request: BindingRequest) -> Credentials | None:
        ufrag = request.server_ufrag
        return next((one for one in reversed(self._credentials) if one.ufrag.encode() == ufrag), None)

    def _use(self, credentials: Credentials, now: float) -> None:
        """The client has these: older ones are needed until it has moved, and packets under way have come."""
        if credentials.number > self._used:
            self._used = credentials.number
            for one in self._credentials:
                if one.number < self._used:
                    one.leaves_at = min(one.leaves_at, now + OLD_CREDENTIALS_S)

    def _retire(self, credentials: Credentials) -> None:
        self._credentials.remove(credentials)
        self.retired.append(credentials.ufrag)

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
    ) -> Path:
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
        return path

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
            self._selected_by = -1  # whoever is still there may say where to go
            nominated = [other for other in self.paths.values() if other.nominated]
            self.selected = max(nominated or self.paths.values(), key=lambda other: other.checked_at, default=None)
