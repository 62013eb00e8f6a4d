"""The paths of one call: when one is alive, where media goes, and when another call may have its address (docs/adr/0044).

::

    evidence of a path   an authentic check that is new, SRTP, SRTCP or DTLS that opens, the answer to a check of ours
    selected             moves  by nomination: of a path that is nominated for the first time, that was heard later than
                                the selected one, or while that one is silent
                                by media: by a path that carries the newest packet, while the selected one is silent
                                never by packets that are late, replayed or not authentic: they are no evidence of anything
    contested            by an authentic check of another call from the same address

                ──contested──▶            ──PROBES without an answer──▶
           held                 probed                                   released, for whoever checks first
                ◀──evidence───            ◀──────────evidence──────────

| time | after the last | what ends |
|---|---|---|
| CONSENT_S | check | a path that carries nothing else: no consent (RFC 7675 section 5.1) |
| EVIDENCE_S | SRTP, SRTCP, DTLS or answer | a path that carries any. RFC 7675's expiry binds who sends consent checks; a lite agent only answers |
| SILENT_S | of those, or selection | the claim of the selected path: another one that is heard gets the media |
| PROBES × PROBE_GAP_S | evidence, once contested | the hold of an address |

How long a call may take to be set up is a limit of its own (core/call/model.py).

Owns: these decisions. Does not own: what is authentic (core/call/ice.py, core/call/incoming.py), how much a path gets (core/call/path_budget.py),
sending (core/call/outgoing.py).
Invariants: the selected path is one of those there are. By nominations that come again and by media it changes once in SILENT_S at most.
"""

from dataclasses import dataclass, field

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.core.call.credentials import Credentials
from voicefleet_dataplane.core.call.path_budget import PathBudget
from voicefleet_dataplane.wire.stun import FORBIDDEN, build_binding_error

CONSENT_S = 30.0
EVIDENCE_S = 30.0
SILENT_S = 1.0
PROBES, PROBE_GAP_S = 5, 0.5
MAX_PATHS = 8
# Between an announcement's time and ours: what two clocks may differ by, and how long one may be under way.
ANNOUNCEMENT_WINDOW_S = 10.0
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
    heard_at: float = -_NEVER  # its last evidence but for checks
    nominated_by: int = -1  # the number of the credentials that did it last
    credentials: Credentials | None = None  # of its last check
    transaction_id: bytes = b""  # of that check
    budget: PathBudget = field(default_factory=PathBudget)
    _contested_at: float = _NEVER
    _by_another_owner: bool = False  # who learns of nothing but our word that the address is free
    _asked: int = 0
    _probes: int = 0  # of those, how many its budget let go

    @property
    def alive_at(self) -> float:
        """When its last evidence came."""
        return max(self.checked_at, self.heard_at)

    @property
    def dies_at(self) -> float:
        """When it is forgotten if no more evidence comes."""
        return max(self.checked_at + CONSENT_S, self.heard_at + EVIDENCE_S)

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

    # ---- another call wants its address

    def contest(self, now: float, *, by_another_owner: bool = False) -> None:
        """An authentic check of another call has come from there. Evidence in the next PROBE_GAP_S spares the question."""
        can_answer = self.credentials is not None and bool(self.credentials.remote_pwd)
        if can_answer and (self._is_uncontested() or self._is_over(now)):
            self._contested_at, self._asked, self._probes = now, 0, 0
            self._by_another_owner = by_another_owner

    def probe_due(self) -> float:
        """When the next probe is to be sent."""
        if self._is_uncontested() or self._asked >= PROBES:
            return _NEVER
        return self._contested_at + (self._asked + 1) * PROBE_GAP_S

    def note_probe(self, *, sent: bool) -> None:
        """One was due."""
        self._asked += 1
        self._probes += sent

    def is_held(self, now: float) -> bool:
        """Say whether no other call may have its address."""
        is_lost = self._probes >= PROBES and self._is_over(now) and not self._is_uncontested()
        return now < self.dies_at and not is_lost

    def given_up_at(self) -> float:
        """When it is to be forgotten for the call of another owner."""
        is_lost = self._by_another_owner and self._probes >= PROBES and not self._is_uncontested()
        return self._contested_at + (PROBES + 1) * PROBE_GAP_S if is_lost else _NEVER

    def _is_over(self, now: float) -> bool:
        return now >= self._contested_at + (PROBES + 1) * PROBE_GAP_S

    def _is_uncontested(self) -> bool:
        return self.alive_at >= self._contested_at or self._contested_at == _NEVER


class Paths:
    """Those of one call."""

    __slots__ = ("_selected_at", "by_client", "forgotten", "selected")

    def __init__(self) -> None:
        self.by_client: dict[Address, Path] = {}
        self.selected: Path | None = None
        self.forgotten: list[Address] = []
        self._selected_at = -_NEVER

    def check(
        self, client: Address, destination: Address, prefix: bytes, bare: Address | None, now: float, nominated_by: int
    ) -> Path:
        """An authentic check that is new has come; ``nominated_by``: -1 if it nominates nothing, or nothing any more."""
        path = self.by_client.get(client)
        if path is None:
            self._make_room()
            path = self.by_client[client] = Path(client, destination, prefix, checked_at=now, announced_at=now)
        path.checked_at = now
        path.destination, path.prefix, path.bare = destination, prefix, bare
        selected = self.selected
        if selected is None:
            self._select(path, now)
        elif nominated_by >= 0 and selected is not path:
            is_new = nominated_by > path.nominated_by
            if is_new or path.heard_at > selected.heard_at or self._is_silent(selected, now):
                self._select(path, now)
        path.nominated_by = max(path.nominated_by, nominated_by)
        return path

    def newest_came(self, path: Path, now: float) -> None:
        """A path that is not the selected one has carried the newest packet of a stream."""
        if self.selected is not None and self._is_silent(self.selected, now) and path.client in self.by_client:
            self._select(path, now)

    def deadline(self) -> float:
        """When a path dies or is given up, or a probe is due."""
        times = (min(path.dies_at, path.probe_due(), path.given_up_at()) for path in self.by_client.values())
        return min(times, default=_NEVER)

    def given_up(self, now: float) -> list[Path]:
        """Those whose address another owner's call may have."""
        return [path for path in self.by_client.values() if path.given_up_at() <= now]

    def expire(self, now: float) -> bool:
        """Forget dead paths; False when none is left of those there were."""
        had_paths = bool(self.by_client)
        for path in [path for path in self.by_client.values() if now >= path.dies_at]:
            self.forget(path)
        return bool(self.by_client) or not had_paths

    def forget(self, path: Path) -> None:
        """It is dead, or its address is another call's."""
        del self.by_client[path.client]
        self.forgotten.append(path.client)
        if self.selected is path:
            self.selected = max(
                self.by_client.values(), key=lambda other: (other.nominated_by >= 0, other.alive_at), default=None
            )

    def _select(self, path: Path, now: float) -> None:
        self.selected, self._selected_at = path, now

    def _is_silent(self, selected: Path, now: float) -> bool:
        return now >= max(selected.heard_at, self._selected_at) + SILENT_S

    def _make_room(self) -> None:
        """The longest silent one goes: the newest address is likely to be the one that its client has now."""
        if len(self.by_client) >= MAX_PATHS:
            others = [path for path in self.by_client.values() if path is not self.selected]
            self.forget(min(others, key=lambda path: path.alive_at))
