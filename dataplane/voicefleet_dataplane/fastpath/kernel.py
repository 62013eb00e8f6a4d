"""The fast path in the kernel: maps and programs loaded or adopted, attached where packets come by, kept in force.

Life of what is pinned, each step such that no packet of a live rule finds no program:

1. *Open.* Maps that a predecessor of the same layout pinned are reused, rules and all; the new programs are loaded onto
   them and swapped into the hooks in place. A predecessor of another layout is left alone (HandOverError): it forwards while this
   process carries new packets in user space and tells owners so, until everybody has been told.
2. *Tend.* The lease moves on; interfaces that appeared are covered; native XDP and TC are compared, where that is asked for.
3. *Close.* With ``keep`` only descriptors are closed. Without, hooks are detached first, then the pins go.

A rule has force for LEASE_S after the last `tend`: as long as clients' consent can outlive their checks, and a margin
for a slow start. What has none any more is nobody's: whoever starts next on the node sweeps it, of whatever relay and
version.

Owns: maps, programs, the lease, what relay_xdp is told. Does not own: what hangs where (coverage.py), which rules
there are (shell/relay/kernel_path.py).
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from voicefleet_contract.settings import Datapath
from voicefleet_dataplane.fastpath.coverage import EGRESS_PROGRAM, INGRESS_PROGRAM, XDP_PROGRAM, Coverage
from voicefleet_dataplane.fastpath.engine import LADDER, Mode
from voicefleet_dataplane.fastpath.hooks import Hooks
from voicefleet_dataplane.fastpath.loader import Libbpf, Object, checked
from voicefleet_dataplane.fastpath.maps import (
    CONTROL,
    ENDS,
    RULE,
    Carried,
    Counter,
    How,
    Map,
    Rule,
    Xdp,
    decode_carried,
    decode_ends,
    decode_rule,
    encode_rule,
    read_counters,
)
from voicefleet_dataplane.fastpath.netlink import Routes, Way, interfaces
from voicefleet_dataplane.fastpath.pins import Pins, is_bpffs, lease_of, prune
from voicefleet_dataplane.fastpath.trial import Trial

OBJECT = Path(__file__).parent / "bpf" / "relay.bpf.o"
LEASE_S = 60.0
_LOOK_AROUND_S = 5.0
_ZERO = bytes(4)
_XDP_AT = 15  # in a control value
_LARGEST_CONTROL = 256  # of any layout
_SENT_ON = (Counter.FORWARDED.name.lower(), Counter.DELIVERED.name.lower())
_SOFT_INTERRUPTS = 7  # the column of /proc/stat
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class HandOverError(Exception):
    """A predecessor of another layout still forwards: try again when its flows are known to be elsewhere."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the fast path works, and what it is told."""

    node: str
    relay: str
    public_port: int
    flow_ports: range
    max_flows: int
    bpffs: Path = Path("/sys/fs/bpf")
    program: Path = OBJECT
    only: tuple[str, ...] = ()  # interfaces; empty: every Ethernet interface with an address

    @property
    def pins(self) -> Pins:
        """Where it pins."""
        return Pins(self.bpffs, self.node, self.relay)

    def has_pins(self) -> bool:
        """Say whether a predecessor left anything, of whatever layout."""
        return bool(self.pins.layouts())


class KernelFastPath:
    """Implements FastPath. Opening raises OSError with what is missing, or HandOverError."""

    def __init__(self, place: Place, datapath: Datapath) -> None:
        self._place = place
        self._lib = Libbpf()
        self._pins = place.pins
        if not is_bpffs(place.bpffs):
            raise OSError(errno.ENOENT, f"no BPF file system at {place.bpffs}")
        if not place.program.is_file():
            raise OSError(errno.ENOENT, f"{place.program} is missing: make bpf")
        self._sweep()
        if self._pins.of_other_layouts():
            raise HandOverError(f"a relay of another version left {self._pins.of_other_layouts()[0]}")
        self._pins.here.mkdir(parents=True, exist_ok=True)
        fresh = not any(self._pins.here.iterdir())
        self._routes = Routes()
        self._fds: dict[str, int] = {}
        self._returns = not fresh  # rules of a predecessor may be such
        self._xdp = Xdp.OFF
        self._trial: Trial | None = None
        self._refused: list[str] = []  # rungs above ours, and why
        try:
            self._load_what_this_kernel_takes()
            self._coverage = Coverage(Hooks(self._lib, self._pins.here), self._fds, place.only)
            self._refused = self._coverage.climb(LADDER[datapath])
        except OSError:
            self.close(keep=not fresh)
            raise
        match self._coverage.mode:
            case Mode.XDP_GENERIC:
                self._xdp = Xdp.ALONE
            case Mode.XDP_NATIVE if datapath == "XDP":
                self._trial, self._xdp = Trial(), Xdp.OFF
            case Mode.XDP_NATIVE:
                self._xdp = Xdp.FIRST
            case _:
                self._xdp = Xdp.OFF
        self._looked_at = time.monotonic()
        self._renew(self._looked_at)

    # ---- FastPath

    @property
    def mode(self) -> Mode:
        """How media moves. While native XDP is compared with TC, TC: its turns are an experiment."""
        mode, compared = self._coverage.mode, self._trial is not None and self._trial.verdict is None
        if mode is Mode.XDP_NATIVE and (compared or self._xdp is Xdp.OFF):
            mode = self._coverage.tc
        assert mode is not None
        return mode

    @property
    def reason(self) -> str:
        """Why so, in a sentence."""
        said = [f"on {', '.join(self._coverage.names)}"]
        if self._trial is not None:
            said.append(str(self._trial.verdict or "native XDP is compared with TC under load"))
        return "; ".join([*said, *self._refused])

    def way(self, host: str) -> Way | None:
        """How packets reach a host, if all of its packets pass where a program hangs and may be forwarded."""
        found = self._routes.way_to(host)
        if found is None:
            return None
        if found.local:
            return found if self._coverage.returns else None
        return found if self._coverage.sees(found.ifindex, six=":" in host) else None

    def put(self, rule: Rule) -> None:
        """Make or replace a rule."""
        if rule.how is How.RETURN and not self._returns:
            self._returns = True
            self._renew(time.monotonic())
        self._rules.put(rule.seen.encode(), encode_rule(rule))

    def drop(self, rule: Rule) -> Carried | None:
        """Delete a rule if it is still this one; gives what it carried."""
        key = rule.seen.encode()
        value = self._rules.get(key)
        if value is None or decode_ends(value) != rule.to:
            return None
        self._rules.delete(key)
        return next(decode_carried(value))

    def rules(self) -> list[tuple[Rule, Carried]]:
        """Return every rule with what it has carried."""
        size = RULE.size
        return [
            decode_rule(key, values[at * size : (at + 1) * size])
            for keys, values in self._rules.batches()
            for at, key in enumerate(keys)
        ]

    def carried(self) -> Iterator[list[tuple[bytes, Carried]]]:
        """Return what rules have carried, by key."""
        for keys, values in self._rules.batches():
            yield list(zip(keys, decode_carried(values), strict=True))

    def tend(self, now: float) -> None:
        """Renew the lease; compare, if asked to; cover interfaces that appeared."""
        if self._trial is not None:
            if self._trial.verdict is None:
                counters = self.counters()
                self._trial.look(now, sum(counters[what] for what in _SENT_ON), _interrupts_ns())
            self._xdp = Xdp.FIRST if self._trial.use_xdp else Xdp.OFF
        try:
            if now - self._looked_at >= _LOOK_AROUND_S:
                self._looked_at = now
                self._look_around()
        finally:
            self._renew(now)

    def counters(self) -> Mapping[str, int]:
        """Return what became of packets."""
        counts = read_counters(self._lib, self._fds["counters"], self._lib.libbpf_num_possible_cpus())
        return {counter.name.lower(): value for counter, value in counts.items()}

    def close(self, *, keep: bool) -> None:
        """Let go of descriptors; unless ``keep``, of everything."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._routes.close()
        if not keep:
            remove_pins(self._lib, self._pins.here)

    def _look_around(self) -> None:
        try:
            self._coverage.look_around()
        except OSError as error:
            if self._coverage.mode is not Mode.XDP_NATIVE or (self._xdp is Xdp.OFF and self._trial is None):
                raise
            self._trial, self._xdp = None, Xdp.OFF
            self._refused.append(f"{Mode.XDP_NATIVE.value}: {error.strerror}")

    def _renew(self, now: float) -> None:
        """Put the rules in force until LEASE_S from now."""
        ports = self._place.flow_ports
        port = self._place.public_port.to_bytes(2, "big")
        lease_ns = int((now + LEASE_S) * 1e9)
        self._control.put(_ZERO, CONTROL.pack(lease_ns, port, ports.start, ports.stop - 1, self._returns, self._xdp))

    # ---- opening

    def _load_what_this_kernel_takes(self) -> None:
        """Load all programs; or, for a kernel that is too old for the XDP one, the others. Raises OSError."""
        try:
            self._load((INGRESS_PROGRAM, EGRESS_PROGRAM, XDP_PROGRAM))
        except OSError:
            self._load((INGRESS_PROGRAM, EGRESS_PROGRAM))

    def _load(self, programs: tuple[str, ...]) -> None:
        """Load the programs onto the maps that are pinned, or onto new ones that are pinned then."""
        found = Object(self._lib, str(self._place.program))
        maps = ("rules", "control", "counters")
        try:
            for name in maps:
                pin = self._pins.here / name
                if pin.exists():
                    fd = checked(self._lib.bpf_obj_get(str(pin).encode()), f"pinned map {name}")
                    found.reuse_map(name, fd)
                    os.close(fd)
                elif name == "rules":
                    found.size_map(name, 2 * self._place.max_flows)
            if XDP_PROGRAM not in programs:
                found.leave_out(XDP_PROGRAM)
            found.load()
            for name in maps:
                fd = self._fds[name] = found.map_fd(name)
                pin = self._pins.here / name
                if not pin.exists():
                    checked(self._lib.bpf_obj_pin(fd, str(pin).encode()), f"pin of map {name}")
            for name in programs:
                self._fds[name] = found.program_fd(name)
        finally:
            found.close()
        self._rules = Map(self._lib, self._fds["rules"], ENDS.size, RULE.size)
        self._control = Map(self._lib, self._fds["control"], 4, CONTROL.size)
        before = self._control.get(_ZERO)
        # What a predecessor's XDP program is told holds until everything is attached that may stand in its place.
        self._xdp = Xdp(before[_XDP_AT]) if before is not None else Xdp.OFF
        self._renew(time.monotonic())

    # ---- what others left

    def _sweep(self) -> None:
        """Remove what is without a lease on this node: of relays that did not come back, or of our own past."""
        for directory in self._pins.of_node():
            with contextlib.suppress(OSError):  # not for our eyes, or somebody sweeps at the same time
                fd = checked(self._lib.bpf_obj_get(str(directory / "control").encode()), "pinned control map")
                value = Map(self._lib, fd, 4, _LARGEST_CONTROL).get(_ZERO)
                os.close(fd)
                if value is not None and lease_of(value) < time.monotonic_ns():
                    remove_pins(self._lib, directory)


def abandon(place: Place, *, everything: bool) -> None:
    """Remove what a predecessor left that this process does not adopt. Raises OSError."""
    lib = Libbpf()
    for directory in place.pins.layouts() if everything else place.pins.of_other_layouts():
        remove_pins(lib, directory)


def remove_pins(lib: Libbpf, directory: Path) -> None:
    """Detach and unpin everything in one relay's directory of one layout, and the directory itself."""
    hooks = Hooks(lib, directory)
    found = interfaces()
    for name in list(hooks.names()):
        hooks.detach(name, found)
    for entry in directory.iterdir():
        if entry.is_dir():
            entry.rmdir()
        else:
            entry.unlink()
    prune(directory)


def _interrupts_ns() -> int:
    """How long this node's CPUs have been in soft interrupts."""
    with Path("/proc/stat").open(encoding="ascii") as lines:
        return int(next(lines).split()[_SOFT_INTERRUPTS]) * _TICK_NS
