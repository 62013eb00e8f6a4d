"""Which interfaces the programs hang on, and by which hooks: the rungs of the ladder.

::

    TCX, Clsact   relay_ingress and relay_egress at TC
    XDPNative     the same, and relay_xdp before them, in the driver: what it passes on is TC's
    XDPGeneric    relay_xdp without TC at ingress, for kernels that refuse it there; relay_egress where it can be had, and
                  where it cannot, flows of transceivers on this node stay in user space

Native XDP is used only where every interface can also send what another one redirects to it, as the kernel says: on a
veth whose peer neither runs a program nor does GRO such packets would be dropped without a word.

Owns: what is attached, and which interfaces are seen. Does not own: attaching one thing (hooks.py), maps and the lease
(kernel.py), whether native XDP is worth using (trial.py).
"""

import contextlib
import errno
from collections.abc import Mapping, Sequence
from pathlib import Path

from voicefleet_dataplane.fastpath.engine import Mode
from voicefleet_dataplane.fastpath.hooks import EGRESS, INGRESS, Hooks
from voicefleet_dataplane.fastpath.netlink import (
    ARPHRD_ETHER,
    XDP_FORWARDS,
    XDP_TAKES_REDIRECTED,
    Interface,
    interfaces,
    xdp_features,
)

INGRESS_PROGRAM, EGRESS_PROGRAM, XDP_PROGRAM = "relay_ingress", "relay_egress", "relay_xdp"
_TC = (Mode.TCX, Mode.CLSACT)


class Coverage:
    """What hangs where. ``programs``: descriptors by name; ``only``: interface names, none for all that suit."""

    def __init__(self, hooks: Hooks, programs: Mapping[str, int], only: Sequence[str]) -> None:
        self.mode: Mode | None = None  # the rung that it stands on
        self.tc: Mode | None = None  # how packets are seen at TC ingress, if they are
        self.returns = False  # whether they are seen at egress
        self.names: list[str] = []  # of the interfaces
        self._hooks, self._programs, self._only = hooks, programs, only
        self._forwarding: set[tuple[int, bool]] = set()

    def climb(self, ladder: Sequence[Mode]) -> list[str]:
        """Attach in the first way that works, then take away what hangs in any other; gives what refused, and why.

        Raises OSError when every way is refused; nothing is attached then.
        """
        refused: list[str] = []
        for mode in ladder:
            try:
                attached = self._attach(mode)
            except OSError as error:
                refused.append(f"{mode.value}: {error.strerror}")
                continue
            self.mode = mode
            self._detach_all_but(attached)
            return refused
        self._detach_all_but(set())
        raise OSError(errno.EOPNOTSUPP, "; ".join(refused) or "no way to attach is asked for")

    def look_around(self) -> None:
        """Cover interfaces that have appeared. Raises OSError when one refuses, or can no more what native XDP needs."""
        assert self.mode is not None
        self._attach(self.mode)

    def sees(self, ifindex: int, *, six: bool) -> bool:
        """Say whether packets of a family are seen on an interface, and may be sent on."""
        return (ifindex, six) in self._forwarding

    def _attach(self, mode: Mode) -> set[str]:
        """Attach everywhere; gives the names. Raises OSError, and then some may hang already."""
        wanted = [found for found in interfaces() if self._wants(found)]
        if not wanted:
            raise OSError(errno.ENODEV, "no Ethernet interface with an address")
        tc, egress = None, set[str]()
        if mode is Mode.XDP_GENERIC:
            _, attached = self._everywhere((mode,), XDP_PROGRAM, wanted, INGRESS)
            with contextlib.suppress(OSError):
                _, egress = self._everywhere(_TC, EGRESS_PROGRAM, wanted, EGRESS)
        else:
            tc, attached = self._everywhere(
                _TC if mode is Mode.XDP_NATIVE else (mode,), INGRESS_PROGRAM, wanted, INGRESS
            )
            _, egress = self._everywhere((tc,), EGRESS_PROGRAM, wanted, EGRESS)
        self.tc, self.returns = tc, bool(egress)
        self.names = sorted(interface.name for interface in wanted)
        self._forwarding = {
            (interface.ifindex, six)
            for interface in wanted
            for six in (False, True)
            if _forwards(interface.name, six=six)
        }
        if mode is Mode.XDP_NATIVE:
            self._detach_generic()  # an interface takes one of the two; TC stands in
            attached |= self._everywhere((mode,), XDP_PROGRAM, wanted, INGRESS)[1]
            _check_that_all_take_redirected(wanted)
        return attached | egress

    def _everywhere(
        self, modes: Sequence[Mode], program: str, wanted: Sequence[Interface], side: str
    ) -> tuple[Mode, set[str]]:
        """Attach a program to every interface, in the first mode that all take."""
        if program not in self._programs:
            raise OSError(errno.EOPNOTSUPP, f"the kernel refuses the program {program}")
        *first, last = modes
        for mode in first:
            try:
                return mode, {self._hooks.attach(mode, self._programs[program], one, side) for one in wanted}
            except OSError:
                continue
        return last, {self._hooks.attach(last, self._programs[program], one, side) for one in wanted}

    def _detach_generic(self) -> None:
        for name in list(self._hooks.names()):
            if name.startswith(f"{Mode.XDP_GENERIC.value}-"):
                self._hooks.detach(name, interfaces())

    def _detach_all_but(self, names: set[str]) -> None:
        for name in list(self._hooks.names()):
            if name not in names:
                self._hooks.detach(name, interfaces())

    def _wants(self, interface: Interface) -> bool:
        if self._only:
            return interface.name in self._only
        return interface.kind == ARPHRD_ETHER and bool(interface.addresses)


def _check_that_all_take_redirected(wanted: Sequence[Interface]) -> None:
    """Raise OSError naming an interface that native XDP must not redirect to.

    Asked when the program hangs there: many drivers are ready only then.
    """
    for interface in wanted:
        features = xdp_features(interface.ifindex)
        if features is None:
            raise OSError(errno.EOPNOTSUPP, "the kernel does not say what interfaces can do with it (6.3)")
        if features & XDP_FORWARDS != XDP_FORWARDS:
            raise OSError(errno.EOPNOTSUPP, f"{interface.name} cannot redirect")
        if not features & XDP_TAKES_REDIRECTED:
            words = f"{interface.name} drops what is redirected to it, as a veth does whose peer has no GRO"
            raise OSError(errno.EOPNOTSUPP, words)


def _forwards(interface: str, *, six: bool) -> bool:
    family = "ipv6" if six else "ipv4"
    try:
        return Path(f"/proc/sys/net/{family}/conf/{interface}/forwarding").read_text("ascii").strip() != "0"
    except OSError:
        return False
