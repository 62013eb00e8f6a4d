"""A relay node with its fast path loaded, and two links whose neighbours are known: for programs run frame by frame."""

import contextlib
import time

from tests.support.bpf_test_run import run_program
from tests.support.frames import HERE, ends
from tests.support.namespaces import connect
from voicefleet_dataplane.fastpath.kernel import KernelFastPath, Place
from voicefleet_dataplane.fastpath.maps import How, Rule, Xdp
from voicefleet_dataplane.fastpath.netlink import interfaces

PUBLIC = 3478
FLOW_PORTS = range(20_000, 30_000)
CLIENT, NEIGHBOUR, RELAY = ("10.0.0.2", 5000), ("10.0.0.4", 5000), ("10.0.0.1", PUBLIC)
INNER, OWNER, LOCAL = ("10.1.0.1", 20_000), ("10.1.0.3", 7000), ("10.0.0.1", 7100)
CLIENT6, RELAY6 = ("fd00::2", 5000), ("fd00::1", PUBLIC)
INNER6, OWNER6 = ("fd01::1", 20_000), ("fd01::3", 7000)
LOST, NOWHERE = ("10.0.0.5", 5000), ("192.0.2.9", 7000)
ONE_ARM = ("10.0.0.3", 7000)

RULES = [
    Rule(ends(CLIENT, RELAY), ends(INNER, OWNER), How.FORWARD, (5, 1)),
    Rule(ends(OWNER, INNER), ends(RELAY, CLIENT), How.FORWARD, (5, 1)),
    Rule(ends(CLIENT6, RELAY6), ends(INNER6, OWNER6), How.FORWARD, (5, 1)),
    Rule(ends(OWNER6, INNER6), ends(RELAY6, CLIENT6), How.FORWARD, (5, 1)),
    Rule(ends(NEIGHBOUR, RELAY), ends(NEIGHBOUR, LOCAL), How.DELIVER, (6, 1)),
    Rule(ends(LOCAL, NEIGHBOUR), ends(RELAY, NEIGHBOUR), How.RETURN, (6, 1)),
    Rule(ends(LOST, RELAY), ends(INNER, NOWHERE), How.FORWARD, (7, 1)),
    Rule(ends(("10.0.0.6", 5000), RELAY), ends(("10.0.0.1", 20_001), ONE_ARM), How.FORWARD, (8, 1)),
]


def relay_node(make, mtu=1500):
    """Return a namespace with links ``out`` and ``in``."""
    node, beyond = make(), make()
    connect(node, beyond, "out", "o0")
    connect(node, beyond, "in", "i0")
    for link, four, six in (("out", "10.0.0.1/24", "fd00::1/64"), ("in", "10.1.0.1/24", "fd01::1/64")):
        node.ip(f"addr add {four} dev {link}")
        node.ip(f"addr add {six} dev {link} nodad")
        node.ip(f"link set {link} mtu {mtu} address {HERE.hex(':')}")
    for link, host in (
        *(("out", f"10.0.0.{last}") for last in (2, 3, 4, 5, 6)),
        *(("in", f"10.1.0.{last}") for last in (3,)),
        ("out", "fd00::2"),
        ("in", "fd01::3"),
    ):
        node.ip(f"neigh add {host} dev {link} lladdr 02:00:00:00:00:99 nud permanent")
    node.sysctl("net.ipv4.conf.all.forwarding", 1)
    node.sysctl("net.ipv6.conf.all.forwarding", 1)
    return node


def place(bpffs, **fields):
    """Return where the fast path of a test works."""
    return Place(
        **(
            {
                "node": "n.1",
                "relay": "fra",
                "public_port": PUBLIC,
                "flow_ports": FLOW_PORTS,
                "max_flows": 1000,
                "bpffs": bpffs,
            }
            | fields
        )
    )


class Programs:
    """A loaded fast path whose programs run on frames that a test gives."""

    def __init__(self, engine):
        self.engine = engine
        self.ifindex = {interface.name: interface.ifindex for interface in interfaces()}

    def tell_xdp(self, xdp):
        """Have relay_xdp forward, or pass everything on."""
        self.engine._xdp = xdp
        self.engine._renew(time.monotonic())

    def run(self, kind, frame, *, egress=False, link="out", repeat=1):
        """Return the verdict, the frame from its type on, and the counters that moved."""
        name = "relay_xdp" if kind == "xdp" else "relay_egress" if egress else "relay_ingress"
        before = self.engine.counters()
        verdict, out, _ = run_program(self.engine._lib, self.engine._fds[name], kind, frame, self.ifindex[link], repeat)
        after = self.engine.counters()
        return verdict, out[12:], {name: after[name] - before[name] for name in after if after[name] != before[name]}


@contextlib.contextmanager
def loaded(make, bpffs, rules=(), mtu=1500, datapath="TCX"):
    """Load the fast path in a relay node; this thread is inside meanwhile."""
    node = relay_node(make, mtu)
    if datapath.startswith("XDP"):
        node.run("ethtool", "-K", "out", "gro", "on")
    with node.inside():
        engine = KernelFastPath(place(bpffs), datapath)
        try:
            for rule in rules:
                engine.put(rule)
            programs = Programs(engine)
            if datapath == "TCX":
                programs.tell_xdp(Xdp.ALONE)  # nothing to TC, and what there is to say about relay_xdp
            yield programs
        finally:
            engine.close(keep=False)
