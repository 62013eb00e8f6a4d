"""The fast path as the relay process sees it, and the one that does nothing.

Owns: the interface, the ways packets can move (Mode), and in which order they are tried. Does not own: any of them.

The order: **TC** first, by a TCX link (kernels from 6.6) or else a clsact filter. It works on every driver, with
checksum offload, and its cost is within a microsecond of XDP's beside the 40 that the rest of a packet's way takes.
**Native XDP**, where `XDP` asks for it, stands before TC and is used when it has been measured to be better
(trial.py). Generic XDP is for the odd kernel where TC is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from voicefleet_contract.settings import Datapath
from voicefleet_dataplane.fastpath.maps import Carried, Rule
from voicefleet_dataplane.fastpath.netlink import Way


class Mode(StrEnum):
    """How media moves. The values are a metric label and part of what a relay tells the operator."""

    TCX = "TCX"
    CLSACT = "Clsact"
    XDP_NATIVE = "XDPNative"
    XDP_GENERIC = "XDPGeneric"
    USERSPACE = "Userspace"


LADDER: Mapping[Datapath, Sequence[Mode]] = {
    "Auto": (Mode.TCX, Mode.CLSACT, Mode.XDP_GENERIC),
    "TC": (Mode.TCX, Mode.CLSACT),
    "XDP": (Mode.XDP_NATIVE, Mode.TCX, Mode.CLSACT, Mode.XDP_GENERIC),
    # For benches and tests: one rung, nothing else, and nothing is compared.
    "TCX": (Mode.TCX,),
    "Clsact": (Mode.CLSACT,),
    "XDPNative": (Mode.XDP_NATIVE,),
    "XDPGeneric": (Mode.XDP_GENERIC,),
    "Userspace": (),
}


class FastPath(Protocol):
    """A kernel path. Calls are system calls of a few microseconds; none waits."""

    @property
    def mode(self) -> Mode:
        """How media moves; it may change."""

    @property
    def reason(self) -> str:
        """Why so, in a sentence."""

    def way(self, host: str) -> Way | None:
        """How packets reach a host, if they pass only where this path sees them; None: leave its flows alone."""

    def put(self, rule: Rule) -> None:
        """Make a rule, replacing one that sees the same ends. Raises OSError, E2BIG when there is no room."""

    def drop(self, rule: Rule) -> Carried | None:
        """Take a rule away, unless another one sees the same ends by now; gives what it carried."""

    def rules(self) -> list[tuple[Rule, Carried]]:
        """Return every rule: what a predecessor left, for who adopts it."""

    def carried(self) -> Iterator[list[tuple[bytes, Carried]]]:
        """Return what rules have carried, by encoded ends, a batch at a time."""

    def tend(self, now: float) -> None:
        """Keep the rules in force and the interfaces covered. Call it every second or so."""

    def counters(self) -> Mapping[str, int]:
        """Return what became of packets, by reason."""

    def close(self, *, keep: bool) -> None:
        """Let go. ``keep``: a successor adopts what is pinned, and packets go on; else nothing stays behind."""


class NullFastPath:
    """No kernel path: every packet goes through the process."""

    def __init__(self, reason: str) -> None:
        self.mode = Mode.USERSPACE
        self.reason = reason

    def way(self, host: str) -> Way | None:
        """Nothing is seen."""
        return None

    def put(self, rule: Rule) -> None:
        """No rule is made: who asks for one did not ask for a way first."""
        raise AssertionError

    def drop(self, rule: Rule) -> Carried | None:
        """There is none."""
        return None

    def rules(self) -> list[tuple[Rule, Carried]]:
        """There is none."""
        return []

    def carried(self) -> Iterator[list[tuple[bytes, Carried]]]:
        """Nothing."""
        return iter(())

    def tend(self, now: float) -> None:
        """Nothing to tend."""

    def counters(self) -> Mapping[str, int]:
        """Nothing was counted."""
        return {}

    def close(self, *, keep: bool) -> None:
        """Nothing to let go."""
