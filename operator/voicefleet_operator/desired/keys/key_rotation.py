"""What to do next with a key ring: publish an epoch, sign with it, retire the one before. Pure: it decides, nothing else.

::

    publish ──▶ every process that must hold it says so ──▶ sign ──▶ every signer says that it signs with it
        ▲                                                                              │
        └────────────── a period after signing began ──── retire ◀── the longest call and a margin later

Invariants (tests/property/test_key_rotation_property.py)

- No epoch signs before every process that could meet it acknowledged it, and `Pace.settle_s` passed since it was published:
  a pod that started meanwhile may have been given the files of before.
- No epoch is retired before the longest call and a margin after the last signer stopped using it.
- Without a registry there are no acknowledgements, and nothing moves.
- Only `Wish.DROP_CALLS` breaks these: it replaces the whole ring at once, and with it every call that the ring signed.

Owns: the order of steps and their times. Does not own: secrets, and where the state is kept (cluster/key_rotation.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from voicefleet_contract.keys import MAX_EPOCH

# The longest that a Transceiver resource may allow (crds/transceivers.yaml; a test holds them equal). Not what the pools
# allow now: a pod of before may still have calls that began under another spec.
LONGEST_CALL_S = 86_400.0
MARGIN_S = 600.0
# More epochs than that at once would mean rotating faster than calls end.
_MOST_EPOCHS = 4


class Wish(StrEnum):
    """What a person asks for, as the value of the annotation `voicefleet.dev/rotate` on a ring's Secret."""

    NOW = "now"  # as planned, but without waiting for the period: no call notices
    DROP_CALLS = "drop-calls"  # a key was stolen: it opens nothing any more, and every call that it signed ends


@dataclass(frozen=True, slots=True)
class Ring:
    """A key ring without its secrets. ``retiring`` says of each epoch since when nobody signs with it, once that is known."""

    epochs: frozenset[int]
    signing: int
    signing_since: float
    published: int | None = None
    published_at: float = 0.0
    retiring: Mapping[int, float | None] = field(default_factory=dict)

    def state(self, epoch: int) -> str:
        """Return what an epoch of this ring does."""
        return "signing" if epoch == self.signing else "published" if epoch == self.published else "retiring"

    def unused(self) -> int:
        """Return the epoch that follows the newest: five bits come round, and an epoch in use is not given again."""
        newest = self.signing if self.published is None else self.published
        return next(
            epoch for step in range(1, MAX_EPOCH + 2) if (epoch := (newest + step) % (MAX_EPOCH + 1)) not in self.epochs
        )


@dataclass(frozen=True, slots=True)
class Process:
    """A process that holds the ring, and what it acknowledged of it: nothing while it is silent."""

    name: str
    signs: bool
    epochs: frozenset[int] = frozenset()
    signing: int | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast. ``period_s`` 0: only when somebody asks."""

    period_s: float
    settle_s: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The ring as it is to be now, why if that is news, and where the rotation stands in words."""

    ring: Ring
    step: str = ""
    says: str = ""
    waits_for: tuple[str, ...] = ()
    wish_done: bool = False


def decide(ring: Ring, wish: Wish | None, processes: Iterable[Process] | None, pace: Pace, now: float) -> Decision:
    """Return what to do now. ``processes`` is None while the registry is away."""
    if wish is Wish.DROP_CALLS:
        epoch = ring.unused()
        step = f"epoch {epoch} replaces all others at once: calls that they signed end"
        return Decision(Ring(frozenset({epoch}), epoch, now), step, step, wish_done=True)
    if processes is None:
        return Decision(
            ring, says=f"epoch {ring.signing} signs; nothing moves: no registry to read acknowledgements from"
        )
    known = sorted(processes, key=lambda process: process.name)
    ring, step = _retire(ring, known, now)
    if ring.published is not None:
        decision = _publish_to_sign(ring, known, pace, now)
        return replace(decision, step=_joined(step, decision.step), wish_done=wish is Wish.NOW)
    due_at = ring.signing_since + pace.period_s
    if wish is Wish.NOW or (pace.period_s > 0 and now >= due_at):
        if len(ring.epochs) >= _MOST_EPOCHS:
            says = f"epoch {ring.signing} signs; the next waits until one of {sorted(ring.retiring)} is retired"
            return Decision(ring, step, says)
        epoch = ring.unused()
        ring = replace(ring, epochs=ring.epochs | {epoch}, published=epoch, published_at=now)
        says = f"epoch {epoch} is published, {ring.signing} signs"
        return Decision(ring, _joined(step, f"epoch {epoch} published"), says, wish_done=wish is Wish.NOW)
    nxt = f"the next is due {_clock(due_at)}" if pace.period_s > 0 else "rotation by time is off"
    return Decision(ring, step, f"epoch {ring.signing} signs; {nxt}{_retiring(ring)}")


def _publish_to_sign(ring: Ring, processes: list[Process], pace: Pace, now: float) -> Decision:
    published = ring.published
    assert published is not None
    missing = tuple(process.name for process in processes if published not in process.epochs)
    if missing:
        says = (
            f"epoch {published} is published, {ring.signing} signs; "
            f"{len(missing)} of {len(processes)} have not acknowledged it yet, {missing[0]} among them"
        )
        return Decision(ring, says=says, waits_for=missing)
    if now < ring.published_at + pace.settle_s:
        says = f"epoch {published} is published and acknowledged; it signs {_clock(ring.published_at + pace.settle_s)}"
        return Decision(ring, says=says)
    signs = Ring(ring.epochs, published, signing_since=now, retiring={**ring.retiring, ring.signing: None})
    return Decision(signs, f"epoch {published} signs", f"epoch {published} signs{_retiring(signs)}")


def _retire(ring: Ring, processes: list[Process], now: float) -> tuple[Ring, str]:
    """Note which epochs fell silent, and take out those that have been silent long enough."""
    signers = [process for process in processes if process.signs]
    all_moved = all(process.signing == ring.signing for process in signers)
    in_use = {process.signing for process in signers}
    retiring: dict[int, float | None] = {}
    retired = []
    for epoch, since in ring.retiring.items():
        if epoch in in_use:
            retiring[epoch] = None  # somebody signs with it after all: files of before
        elif since is None:
            retiring[epoch] = now if all_moved else None
        elif now < since + LONGEST_CALL_S + MARGIN_S:
            retiring[epoch] = since
        else:
            retired.append(epoch)
    if not retired and retiring == ring.retiring:
        return ring, ""
    step = "; ".join(f"epoch {epoch} retired" for epoch in retired)
    return replace(ring, epochs=ring.epochs - frozenset(retired), retiring=retiring), step


def _retiring(ring: Ring) -> str:
    parts = [
        f"; epoch {epoch} is retired {_clock(since + LONGEST_CALL_S + MARGIN_S)}"
        if since is not None
        else f"; epoch {epoch} is retired after the last signer has stopped using it"
        for epoch, since in sorted(ring.retiring.items())
    ]
    return "".join(parts)


def _joined(*steps: str) -> str:
    return "; ".join(step for step in steps if step)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
