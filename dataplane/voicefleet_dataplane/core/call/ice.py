"""The lite agent of one session (RFC 8445 section 2.5): it answers checks, and sends none but to prove a path (core/call/path_proof.py).

Owns: whether a check is authentic, and whether it was seen before. Does not own: what an authentic one does to the
paths (core/call/paths.py), which session a check belongs to (core/transceiver/transceiver.py).

Invariants
- Only an authentic check that was never seen before moves anything. A transaction that comes again from its own
  address is answered and moves nothing; from another address it is a replay and gets silence. The memory is
  TRANSACTIONS_REMEMBERED long: a 60-minute call at one check in 2.5 s. Whoever delays the original on the path and
  sends it first from elsewhere is not held back by this (out of scope: docs/security.md).
- An authentic check is always answered.
- Addresses come from checks alone: never from candidates, never from media.
- A restart (RFC 8445 section 9) adds credentials and disturbs nothing: the old ones serve until the client has used the new
  ones, and OLD_CREDENTIALS_S longer. One that the client never completes changes nothing. At most MAX_CREDENTIALS are known;
  once newer ones have nominated a path, older ones keep theirs alive and select none.
- A relay's announcement changes through which relay a validated path goes, and nothing else: it validates no address and
  prolongs no consent. Announcements of a path are believed in ascending order of their time, each once, none that is
  older than the path, so one that was believed can't be repeated to lead the path back (docs/adr/0016).
"""

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.credentials import Credentials
from voicefleet_dataplane.core.call.paths import Path, Paths
from voicefleet_dataplane.wire.stun import (
    BindingRequest,
    build_binding_error,
    build_binding_success,
    verify_integrity,
)

TRANSACTIONS_REMEMBERED = 1_536
MAX_CREDENTIALS = 3  # the ones in use, the newest, and those of a restart whose answer the client may still take
OLD_CREDENTIALS_S = 30.0
_ROLE_CONFLICT = 487


class IceAgent:
    """Answers the checks of one client."""

    __slots__ = (
        "_credentials",
        "_selected_by",
        "_transactions",
        "_used",
        "retired",
        "table",
    )

    def __init__(self, ufrag: str, pwd: str, remote_ufrag: str, remote_pwd: str = "") -> None:
        self._credentials = [Credentials(ufrag, pwd.encode(), remote_ufrag.encode(), remote_pwd, 0)]  # oldest first
        self._used = -1  # the number of the newest ones that a check has used
        self._selected_by = -1  # … of those that nominated a path
        self._transactions: dict[bytes, Address] = {}
        self.table = Paths()
        self.retired: list[str] = []  # our ufrags that are no longer known

    @property
    def paths(self) -> dict[Address, Path]:
        """By client address."""
        return self.table.by_client

    @property
    def selected(self) -> Path | None:
        """Where media goes."""
        return self.table.selected

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
            self._remember(request.transaction_id, client)
            self._use(credentials, now)
            nominates = request.use_candidate and credentials.number >= self._selected_by
            if nominates:
                self._selected_by = credentials.number
            nominated_by = credentials.number if nominates else -1
            path = self.table.check(client, destination, prefix, bare, now, nominated_by)
            path.credentials, path.transaction_id = credentials, request.transaction_id
        return build_binding_success(request.transaction_id, client, credentials.key, sha256=sha256)

    def is_repeated(self, request: BindingRequest) -> bool:
        """Say whether a transaction was seen before: it is answered, and moves nothing."""
        return request.transaction_id in self._transactions

    def deadline(self) -> float:
        """When something is due: a path, a probe, or old credentials."""
        return min(self.table.deadline(), self._credentials[0].leaves_at)

    def expire(self, now: float) -> bool:
        """Forget old credentials, and paths that are dead; False when no path is left of those there were."""
        for credentials in [one for one in self._credentials if one.leaves_at <= now]:
            self._retire(credentials)
        selected = self.table.selected
        is_left = self.table.expire(now)
        if self.table.selected is not selected:
            self._selected_by = -1  # whoever is still there may say where to go
        return is_left

    def lose(self, client: Address) -> bool:
        """Another call has this address now; False when no path is left."""
        path = self.paths.get(client)
        if path is not None:
            self.table.forget(path)
            self._selected_by = -1
        return bool(self.paths)

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
