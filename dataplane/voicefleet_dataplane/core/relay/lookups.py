"""Look-ups: which unknown clients a relay asks the flow cache about, and what waits for the answers.

::

    media of no flow ──▶ hold ──▶ to_ask ──(shell: one MGET)──▶ answered ──▶ a flow, an announcement to its owner,
                          │                                        │         and the held packet on its way
                          ▼                                        ▼
                 pending, limit, unknown: dropped          unknown: dropped

The cache is a hint. Whatever goes wrong with it (away, slow, empty, forged) costs what a relay without one costs: the
client's next check binds the flow. So everything here is bounded, and what is over a bound is dropped with a reason
and asked again with a later packet:

- At most MOST_PENDING clients wait, each with HELD_A_WAY packets a way, and MOST_HELD in all. A question is shorter than a frame, but
  packets come in bunches: a relay that has just started finds in its sockets what came since they were bound.
- Questions have a rate, and those about one network's clients (/24, /48) a part of it. Garbage from made-up addresses reaches Redis
  at this rate and no faster, and a herd of restores after a relay's death is spread by it. Both want the same questions, so
  during a flood from many networks a herd may wait for its checks instead.
- A client that the cache doesn't know is not asked about again for ABSENT_S.
- After a question that failed nothing is asked, and nothing held, for FAILED_PAUSE_S.

Owns: these bounds and the held packets. Does not own: what an answer is worth (core/relay/recovery.py), Redis
(shell/relay/flow_cache.py).
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.limits import RateLimit
from voicefleet_dataplane.core.relay.check_limits import MOST_NETWORKS, network_of

MOST_PENDING = 4_096
HELD_A_WAY = 8
MOST_HELD = 16_384  # packets of 1,500 bytes at most: 25 MB; of audio: 3 MB
LOOKUPS_PER_S = 5_000  # a tenth of a core, answers and all
LOOKUP_BURST = 4_096
NETWORK_SHARE = 0.25
MOST_ABSENT = 65_536
ABSENT_S = 2.0  # about a check's interval: who has a call is bound by then
FAILED_PAUSE_S = 1.0


class LookupOutcome(StrEnum):
    """What came of asking about one client: a metric label."""

    RESTORED = "restored"
    BOUND_MEANWHILE = "bound_meanwhile"  # a check was faster
    UNKNOWN = "unknown"  # the cache holds nothing
    NOT_AUTHENTIC = "not_authentic"  # forged, or of a key epoch or version that we don't hold
    OWNER_GONE = "owner_gone"  # a generation that was replaced, or a member that ended
    NO_ROOM = "no_room"  # the flow table is full
    FAILED = "failed"  # the cache did not answer


@dataclass(slots=True)
class Held:
    """What waits for one client's answer: its packets, and those for it with who sent them."""

    inward: list[bytes] = field(default_factory=list)
    outward: list[tuple[bytes, Address]] = field(default_factory=list)

    @property
    def packets(self) -> int:
        """How many packets wait."""
        return len(self.inward) + len(self.outward)


class Lookups:
    """The questions of one relay."""

    def __init__(self, per_s: float = LOOKUPS_PER_S, burst: float = LOOKUP_BURST) -> None:
        self.outcomes = dict.fromkeys(LookupOutcome, 0)
        self._rate = RateLimit(per_s, burst, max_keys=1)
        self._networks = RateLimit(per_s * NETWORK_SHARE, max(1.0, burst * NETWORK_SHARE), MOST_NETWORKS)
        self._pending: dict[Address, Held] = {}
        self._held = 0  # packets
        self._to_ask: list[Address] = []
        self._absent: OrderedDict[Address, float] = OrderedDict()  # client → until when
        self._paused_until = float("-inf")

    def __len__(self) -> int:
        """How many clients wait for an answer."""
        return len(self._pending)

    @property
    def to_ask(self) -> bool:
        """Say whether there is a question to put."""
        return bool(self._to_ask)

    def hold(self, client: Address, data: bytes, owner: Address | None, now: float) -> DropReason | None:
        """Hold a packet of an unknown flow while the cache is asked; or say why not. ``owner``: who sent an outward one."""
        held = self._pending.get(client)
        if held is None:
            if now < self._paused_until or now < self._absent.get(client, now):
                return DropReason.FLOW_UNKNOWN
            if len(self._pending) >= MOST_PENDING or not self._may_ask(client, now):
                return DropReason.FLOW_LOOKUP_LIMIT
            held = self._pending[client] = Held()
            self._to_ask.append(client)
        if len(held.inward if owner is None else held.outward) >= HELD_A_WAY or self._held >= MOST_HELD:
            return DropReason.FLOW_LOOKUP_PENDING
        self._held += 1
        if owner is None:
            held.inward.append(data)
        else:
            held.outward.append((data, owner))
        return None

    def take_questions(self, most: int) -> list[Address]:
        """Return clients to ask the cache about now, oldest first. Each must come back to `take_held`."""
        asked, self._to_ask = self._to_ask[:most], self._to_ask[most:]
        return asked

    def take_held(self, client: Address, outcome: LookupOutcome, now: float) -> Held:
        """Note what came of a question, and give back what waited for it."""
        self.outcomes[outcome] += 1
        if outcome is LookupOutcome.FAILED:
            self._paused_until = now + FAILED_PAUSE_S
        elif outcome not in (LookupOutcome.RESTORED, LookupOutcome.BOUND_MEANWHILE):
            self._absent[client] = now + ABSENT_S
            self._absent.move_to_end(client)
            if len(self._absent) > MOST_ABSENT:
                self._absent.popitem(last=False)
        held = self._pending.pop(client)
        self._held -= held.packets
        return held

    def _may_ask(self, client: Address, now: float) -> bool:
        network = network_of(client.host)
        if self._networks.take(network, now):
            return False
        if self._rate.take("", now):
            self._networks.give_back(network)
            return False
        return True
