"""A relay process with a fast path between a client and an owner, each in a network namespace of its own.

::

    client 10.0.0.2 ──── out [relay 10.0.0.1 | 10.1.0.1] in ──── 10.1.0.3 owner
    fd00::2                   fd00::1   fd01::1                  fd01::3
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

from tests.support.fastpath_world import PUBLIC
from tests.support.namespaces import connect
from voicefleet_contract.addresses import Address, from_kernel
from voicefleet_contract.hint import Hint, encode_hint, ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, decode_spp, encode_spp
from voicefleet_contract.topology import Endpoint, Member, Pool, Relay, Topology
from voicefleet_dataplane.wire.demux import Kind, classify
from voicefleet_dataplane.wire.stun import build_binding_request, build_binding_success, parse_binding_request

CLUSTER = 9
KEYS = KeyRing({1: b"k" * 32}, signing=1)
INNER_PORT = 3479
RTP = b"\x80\x6f"
PATIENCE_S = 20.0


def eventually(condition, what):
    """Wait for what another process will do."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at, f"never: {what() if callable(what) else what}"
        time.sleep(0.02)
    return found


class Peer:
    """A UDP socket in a namespace."""

    def __init__(self, namespace, host, port=0):
        with namespace.inside():
            self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            self.socket.bind((host, port))
        self.socket.settimeout(PATIENCE_S)
        self.address = from_kernel(self.socket.getsockname())

    def receive(self):
        data, source = self.socket.recvfrom(4096)
        return data, from_kernel(source)

    def waiting(self):
        """Return what has arrived, without waiting."""
        found = []
        while select.select([self.socket], [], [], 0)[0]:
            found.append(self.receive())
        return found

    def send(self, data, to):
        self.socket.sendto(data, to)


class Owner(Peer):
    """A transceiver as a relay sees it: answers checks, under our own address if it understands flow ports."""

    def __init__(self, namespace, host, port, slot, *, understands=True):
        super().__init__(namespace, host, port)
        self.slot, self.understands = slot, understands
        self.bare = None  # where media came from, and goes

    @property
    def ufrag(self):
        return encode_hint(Hint(1, CLUSTER, self.slot, 1, 7), KEYS)

    def build_check(self):
        key = ice_pwd(self.ufrag, 1, KEYS)
        return build_binding_request(os.urandom(12), f"{self.ufrag}:cccc", key.encode())

    def member(self):
        return Member(slot=self.slot, generation=1, address=self.address.host, port=self.address.port)

    def answer_check(self):
        """Take a check from the relay and answer it; gives the client, and the address that the relay announced."""
        data, relay = self.receive()
        client, proxy = decode_spp(data)
        request = parse_binding_request(data[HEADER_BYTES:])
        answer = build_binding_success(request.transaction_id, client, b"k")
        header = encode_spp(client, relay) if self.understands else data[:HEADER_BYTES]
        self.send(header + answer, relay)
        return client, proxy


class KernelRelay:
    """The namespaces, and the relay process in the middle one; started and killed as a test likes."""

    def __init__(self, make, directory, *, bpffs, datapath="Auto", **settings):
        self.client_side, self.node, self.owner_side = make(), make(), make()
        connect(self.node, self.client_side, "out", "c0")
        connect(self.node, self.owner_side, "in", "o0")
        for place, link, number in (
            (self.node, "out", "0"),
            (self.node, "in", "1"),
        ):
            place.ip(f"addr add 10.{number}.0.1/24 dev {link}")
            place.ip(f"addr add fd0{number}::1/64 dev {link} nodad")
        for place, link, number, last in ((self.client_side, "c0", "0", "2"), (self.owner_side, "o0", "1", "3")):
            place.ip(f"addr add 10.{number}.0.{last}/24 dev {link}")
            place.ip(f"addr add fd0{number}::{last}/64 dev {link} nodad")
        self.node.sysctl("net.ipv4.conf.all.forwarding", 1)
        self.node.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.bpffs = bpffs
        self.directory = directory
        self.owners, self.clients = [], []
        self.inner_host = "10.1.0.1"
        self.public_host = "10.0.0.1"  # what IPv4 clients send to
        self.leaving = False
        self.revision = 0
        (directory / "keys.json").write_text(KEYS.to_json())
        self.settings = {
            "cluster_id": CLUSTER,
            "topology": directory / "topology.json",
            "hint_keys_file": directory / "keys.json",
            "public_port": PUBLIC,
            "inner_address": self.inner_host,
            "inner_port": INNER_PORT,
            "leave_grace_s": "100ms",
            "node_name": "node-a",
            "relay_name": "fra",
            "bpffs": bpffs,
            "datapath": datapath,
            **settings,
        }
        self.process = None

    def owner(self, host="10.1.0.3", port=7000, *, at=None, **options):
        owner = Owner(at or self.owner_side, host, port, 5 + len(self.owners), **options)
        self.owners.append(owner)
        self.write_topology()
        return owner

    def client(self, host="10.0.0.2"):
        self.clients.append(Peer(self.client_side, host))
        return self.clients[-1]

    def write_topology(self):
        inner = Endpoint(address=str(self.settings["inner_address"]), port=INNER_PORT)
        relay = Relay(name="fra-node-a", inner=(inner,), leaving=self.leaving)
        members = tuple(owner.member() for owner in self.owners)
        self.revision += 1
        pools = (Pool(name="agents", members=members),)
        text = Topology(cluster=CLUSTER, revision=self.revision, relays=(relay,), pools=pools).dump()
        new = self.directory / "topology.new"
        new.write_text(text)
        new.rename(self.directory / "topology.json")

    def start(self, *before):
        """Start the process; ``before``: words that run it. Waits until it is ready."""
        environment = {f"VOICEFLEET_{name.upper()}": str(value) for name, value in self.settings.items()}
        words = self.node.command(*before, sys.executable, "-m", "voicefleet_dataplane", "relay")
        self.log = self.directory / "relay.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(words, env=os.environ | environment, stdout=log, stderr=log)
        eventually(lambda: self.get("/readyz") is not None, self.log.read_text)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def withdraw(self):
        """Have the topology call the relay leaving, and wait until it has heard."""
        self.leaving = True
        self.write_topology()
        eventually(lambda: self.metrics()["voicefleet_relay_topology_revision"] == self.revision, "the new topology")

    def stop(self):
        self.process.terminate()
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for peer in (*self.owners, *self.clients):
            peer.socket.close()

    def get(self, path):
        """Return a page of the inner listener; None while there is none."""
        assert self.process.poll() is None, self.log.read_text()
        host = str(self.settings["inner_address"])
        host = f"[{host}]" if ":" in host else host
        answer = []

        def ask():
            try:
                with self.node.inside():
                    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                    with opener.open(f"http://{host}:{INNER_PORT}{path}", timeout=5) as page:
                        answer.append(page.read().decode())
            except OSError:
                pass

        thread = threading.Thread(target=ask)  # this thread's namespace stays
        thread.start()
        thread.join()
        return answer[0] if answer else None

    def metrics(self):
        lines = (self.get("/metrics") or "").splitlines()
        return {name: float(value) for name, value in (one.rsplit(" ", 1) for one in lines if not one.startswith("#"))}

    def kernel_packets(self, what):
        return self.metrics()[f'voicefleet_relay_kernel_packets_total{{what="{what}"}}']

    def datapath(self):
        """Return the mode and the reason that the metric tells."""
        (name,) = [name for name in self.metrics() if name.startswith("voicefleet_relay_datapath{")]
        labels = dict(part.split("=", 1) for part in name[name.index("{") + 1 : -1].split(",", 1))
        return json.loads(labels["mode"]), json.loads(labels["reason"])

    def public(self, client):
        return Address("fd00::1" if ":" in client.address.host else self.public_host, PUBLIC)

    def bind(self, client, owner):
        """Make a flow as a client does; gives the address that was announced for its bare media."""
        client.send(owner.build_check(), self.public(client))
        found, announced = owner.answer_check()
        assert found == client.address
        answer, source = client.receive()
        assert (source, classify(answer)) == (self.public(client), Kind.STUN)
        return announced


def number(sequence):
    """A media packet that carries a number."""
    return RTP + sequence.to_bytes(4, "big") + bytes(166)


class Stream:
    """Numbered media from one socket to an address, one each two milliseconds, and what of it arrived at another."""

    def __init__(self, sender, to, receiver):
        self._sender, self._to, self._receiver = sender, to, receiver
        self._stop = threading.Event()
        self.sent = 0
        self.heard = set()
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._hear)]
        for thread in self._threads:
            thread.start()

    def _send(self):
        while not self._stop.wait(0.002):
            self._sender.send(number(self.sent), self._to)
            self.sent += 1

    def _hear(self):
        while not self._stop.is_set() or select.select([self._receiver.socket], [], [], 0.3)[0]:
            if select.select([self._receiver.socket], [], [], 0.1)[0]:
                data, _ = self._receiver.receive()
                if data[:2] == RTP:
                    self.heard.add(int.from_bytes(data[2:6], "big"))

    def end(self):
        """Stop; gives the numbers that did not arrive."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return sorted(set(range(self.sent)) - self.heard)
