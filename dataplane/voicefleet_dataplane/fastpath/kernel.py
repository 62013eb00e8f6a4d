"""The fast path in the kernel: maps and programs loaded or adopted, attached where packets come by, kept in force.

Life of what is pinned, each step such that no packet of a live rule finds no program:

1. *Open.* Maps that a predecessor of the same layout pinned are reused, rules and all; the new programs are loaded onto
   them and swapped into the hooks in place. A predecessor of another layout is left alone (HandOverError): it forwards while this
   process carries new packets in user space and tells owners so, until everybody has been told.
2. *Tend.* The lease moves on; interfaces that appeared are covered.
3. *Close.* With ``keep`` only descriptors are closed. Without, hooks are detached first, then the pins go.

A rule has force for LEASE_S after the last `tend`: as long as clients' consent can outlive their checks, and a margin for
a slow start. What a relay leaves that never comes back is swept by the next one on the node.

Owns: maps, programs, hooks, the lease. Does not own: which rules there are (shell/relay_kernel_path.py).
"""

import errno
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from voicefleet_contract.settings import Datapath
from voicefleet_dataplane.fastpath.engine import LADDER, Mode
from voicefleet_dataplane.fastpath.hooks import EGRESS, INGRESS, Hooks
from voicefleet_dataplane.fastpath.loader import Libbpf, Object, checked
from voicefleet_dataplane.fastpath.maps import (
    CONTROL,
    ENDS,
    RULE,
    Carried,
    How,
    Map,
    Rule,
    decode_carried,
    decode_ends,
    decode_rule,
    encode_rule,
    read_counters,
)
from voicefleet_dataplane.fastpath.netlink import ARPHRD_ETHER, Interface, Routes, Way, interfaces
from voicefleet_dataplane.fastpath.pins import Pins, is_bpffs, lease_of, prune

OBJECT = Path(__file__).parent / "bpf" / "relay.bpf.o"
LEASE_S = 60.0
_LOOK_AROUND_S = 5.0
_ZERO = bytes(4)
_XDP_PROGRAM = "relay_xdp"
_INGRESS_PROGRAM = {Mode.TCX: "relay_ingress", Mode.CLSACT: "relay_ingress"}
# Where a transceiver stands on the relay's own node, answers pass a TC hook at egress in every mode: XDP has none.
_EGRESS = {Mode.TCX: (Mode.TCX,), Mode.CLSACT: (Mode.CLSACT,)}


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
        self.reason = ""
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
        self._hooks = Hooks(self._lib, self._pins.here)
        self._routes = Routes()
        self._fds: dict[str, int] = {}
        self._covered: list[str] = []
        self._returns = not fresh  # rules of a predecessor may be such
        self._forwarding: set[tuple[int, bool]] = set()  # (interface, IPv6) where packets are seen and may be sent on
        try:
            self._load_what_this_kernel_takes()
            self.mode = self._climb(datapath)
        except OSError:
            self.close(keep=not fresh)
            raise
        self._looked_at = time.monotonic()

    # ---- FastPath

    def way(self, host: str) -> Way | None:
        """How packets reach a host, if all of its packets pass where a program hangs and may be forwarded."""
        found = self._routes.way_to(host)
        if found is None or found.local:
            return found
        return found if (found.ifindex, ":" in host) in self._forwarding else None

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
        """Renew the lease; cover interfaces that appeared."""
        self._renew(now)
        if now - self._looked_at >= _LOOK_AROUND_S:
            self._looked_at = now
            self._attach(self.mode)

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

    def _renew(self, now: float) -> None:
        """Put the rules in force until LEASE_S from now."""
        ports = self._place.flow_ports
        port = self._place.public_port.to_bytes(2, "big")
        lease_ns = int((now + LEASE_S) * 1e9)
        self._control.put(_ZERO, CONTROL.pack(lease_ns, port, ports.start, ports.stop - 1, self._returns))

    # ---- opening

    def _load_what_this_kernel_takes(self) -> None:
        """Load all programs; or, for a kernel that is too old for the XDP one, the others. Raises OSError."""
        try:
            self._load(("relay_ingress", "relay_egress", _XDP_PROGRAM))
        except OSError:
            self._load(("relay_ingress", "relay_egress"))

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
            if _XDP_PROGRAM not in programs:
                found.leave_out(_XDP_PROGRAM)
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
        self._renew(time.monotonic())

    def _climb(self, datapath: Datapath) -> Mode:
        """Attach in the first way that works; what hung there in another way goes afterwards. Raises OSError."""
        refused: list[str] = []
        for mode in LADDER[datapath]:
            try:
                attached = self._attach(mode)
            except OSError as error:
                refused.append(f"{mode.value}: {error.strerror}")
                continue
            for name in list(self._hooks.names()):
                if name not in attached:
                    self._hooks.detach(name, interfaces())
            self.reason = "; ".join([f"on {', '.join(self._covered)}", *refused])
            return mode
        for name in list(self._hooks.names()):
            self._hooks.detach(name, interfaces())
        raise OSError(errno.EOPNOTSUPP, "; ".join(refused) or f"datapath {datapath} has no kernel path")

    def _attach(self, mode: Mode) -> set[str]:
        """Attach everywhere; gives the names. Raises OSError, and then some may hang already."""
        wanted = [found for found in interfaces() if self._wants(found)]
        if not wanted:
            raise OSError(errno.ENODEV, "no Ethernet interface with an address")
        program = _INGRESS_PROGRAM.get(mode, _XDP_PROGRAM)
        if program not in self._fds:
            raise OSError(errno.EOPNOTSUPP, "the kernel refuses the XDP program")
        ingress = self._fds[program]
        names = set()
        for interface in wanted:
            names.add(self._hooks.attach(mode, ingress, interface, INGRESS))
            names.add(self._attach_egress(mode, interface))
        self._covered = sorted(interface.name for interface in wanted)
        self._forwarding = {
            (interface.ifindex, six)
            for interface in wanted
            for six in (False, True)
            if _forwards(interface.name, six=six)
        }
        return names

    def _attach_egress(self, mode: Mode, interface: Interface) -> str:
        *first, last = _EGRESS.get(mode, (Mode.TCX, Mode.CLSACT))
        for choice in first:
            try:
                return self._hooks.attach(choice, self._fds["relay_egress"], interface, EGRESS)
            except OSError:
                continue
        return self._hooks.attach(last, self._fds["relay_egress"], interface, EGRESS)

    def _wants(self, interface: Interface) -> bool:
        if self._place.only:
            return interface.name in self._place.only
        return interface.kind == ARPHRD_ETHER and bool(interface.addresses)

    # ---- what others left

    def _sweep(self) -> None:
        """Remove what relays of this node left that did not come back."""
        for directory, control in self._pins.others():
            fd = checked(self._lib.bpf_obj_get(str(control).encode()), f"pinned {control}")
            value = Map(self._lib, fd, 4, CONTROL.size).get(_ZERO)
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


def _forwards(interface: str, *, six: bool) -> bool:
    family = "ipv6" if six else "ipv4"
    try:
        return Path(f"/proc/sys/net/{family}/conf/{interface}/forwarding").read_text("ascii").strip() != "0"
    except OSError:
        return False
