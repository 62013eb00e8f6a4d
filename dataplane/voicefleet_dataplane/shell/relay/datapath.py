"""How this relay moves media: the fast path that the settings ask for, or user space and the reason why.

A relay that starts adopts what its predecessor left in the kernel. What it cannot read (another layout, or user space
is asked for now) it leaves in force for HAND_OVER_S: checks, which come by here, tell owners in that time to put
headers on everything again. Then it is removed, and no packet was without a way.

Owns: the choice at start, the hand-over, what is said about it. Does not own: rules of flows (kernel_path.py).
"""

import logging
import zlib
from collections.abc import Mapping
from pathlib import Path

from voicefleet_contract.addresses import Address
from voicefleet_contract.settings import RelaySettings
from voicefleet_dataplane.core.relay.bypass import FlowPorts
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.fastpath.engine import LADDER, FastPath, Mode, NullFastPath
from voicefleet_dataplane.fastpath.kernel import (
    OBJECT,
    HandOverError,
    KernelFastPath,
    Place,
    abandon,
)
from voicefleet_dataplane.shell.relay.kernel_path import KernelPath

log = logging.getLogger("voicefleet.relay")

# Four of the slowest intervals at which browsers check (RFC 7675: 5 s, a fifth more at most).
HAND_OVER_S = 24.0
_FIRST_PORT, _LAST_PORT = 10_000, 65_535


def flow_ports(public: int, inner: int) -> range:
    """Return the port numbers that bare media may come from: a range that holds none of our own."""
    first, last = _FIRST_PORT, _LAST_PORT
    for own in (public, inner):
        if first <= own <= last:
            first, last = (own + 1, last) if own - first < last - own else (first, own - 1)
    return range(first, last + 1)


class Datapath:
    """The fast path of one relay, from its start to its end."""

    def __init__(self, settings: RelaySettings, core: Relay, public: Address, now: float) -> None:
        """Open it, and know a predecessor's flows again. Never raises: user space always works."""
        self._settings, self._core, self._public = settings, core, public
        self._place = Place(
            node=settings.node_name or f"ns-{Path('/proc/self/ns/net').stat().st_ino}",
            relay=settings.relay_name or f"port-{public.port}",
            public_port=public.port,
            flow_ports=flow_ports(public.port, core.inner.port),
            max_flows=settings.max_flows,
            bpffs=Path(settings.bpffs),
            program=Path(settings.fastpath_object) if settings.fastpath_object else OBJECT,
            only=tuple(name.strip() for name in settings.fastpath_interfaces.split(",") if name.strip()),
        )
        self.kernel: KernelPath | None = None
        self.adopted = 0
        self._hand_over_at: float | None = None
        self.engine = self._open(now)
        log.info("datapath %s: %s", self.mode, self.reason)

    @property
    def mode(self) -> Mode:
        """How media moves."""
        return self.engine.mode

    @property
    def reason(self) -> str:
        """Why so, in a sentence."""
        return self.engine.reason

    def counters(self) -> Mapping[str, int]:
        """Return what the kernel did with packets."""
        return self.engine.counters()

    async def tend(self, now: float) -> None:
        """Keep the kernel's rules in force and our books right; end a hand-over that is due."""
        if self._hand_over_at is not None and now >= self._hand_over_at:
            self._hand_over_at = None
            abandon(self._place, everything=not LADDER[self._settings.datapath])
            self.engine = self._open(now)
            log.info("datapath %s: %s", self.mode, self.reason)
        if self.kernel is not None:
            await self.kernel.tend(now)

    def close(self, *, keep: bool) -> None:
        """Let go; ``keep`` what a successor will adopt."""
        self._core.bypass = None
        self.engine.close(keep=keep)

    def _open(self, now: float) -> FastPath:
        datapath = self._settings.datapath
        try:
            if not LADDER[datapath]:
                if self._place.has_pins():
                    raise HandOverError("a predecessor used the kernel")
                return NullFastPath("user space is asked for")
            engine = KernelFastPath(self._place, datapath)
        except HandOverError as error:
            self._hand_over_at = now + HAND_OVER_S
            return NullFastPath(f"{error}; it is replaced in {HAND_OVER_S:g} s")
        except OSError as error:
            return NullFastPath(error.strerror or str(error))
        ports = FlowPorts(self._place.flow_ports, zlib.crc32(self._place.relay.encode()))
        self.kernel = KernelPath(self._core, engine, self._public, ports)
        self.adopted = self.kernel.adopt(now)
        self._core.bypass = self.kernel
        self._core.flows.evidence_until = now
        if self.adopted:
            log.info("%d flows of a predecessor go on", self.adopted)
        return engine
