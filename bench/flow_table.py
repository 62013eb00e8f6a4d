"""What a relay's flow table costs: bytes a flow, and how long the garbage collector would stop the packets for it.

    python -m bench.flow_table --flows 1000000            the table alone
    python -m bench.flow_table --flows 1000000 --kernel   beside a kernel path, in a network namespace (root)

Flows are bound as packets bind them, and then have counted what a call has after a minute: small numbers cost Python nothing,
and would flatter the result.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import netns
from voicefleet_contract.addresses import Address
from voicefleet_contract.hint import Hint, encode_hint, ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, encode_spp
from voicefleet_contract.topology import Member, Pool, Topology, TopologyIndex
from voicefleet_dataplane.core.relay.batches import NAME_BYTES, SLOT_BYTES, Batch, Inward, Outward
from voicefleet_dataplane.core.relay.bypass import FlowPorts
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.fastpath.kernel import KernelFastPath, Place
from voicefleet_dataplane.fastpath.loader import Libbpf
from voicefleet_dataplane.fastpath.maps import ENDS, RULE, Map
from voicefleet_dataplane.shell.relay.kernel_path import KernelPath
from voicefleet_dataplane.wire.sockaddr import IPV4_FAMILY, build_sockaddr
from voicefleet_dataplane.wire.stun import build_binding_request, build_binding_success

_COUNT, _OWNERS = 64, 100
_MEDIA = b"\x80\x6f" + bytes(160)
_PACKETS, _BYTES = 3_000, 500_000  # of a call, each way, after a minute
_CARRIED, _CARRIED_AT = struct.Struct("=QQQ"), RULE.size - 24  # packets, bytes, when: the end of a rule
_PUBLIC, _INNER = Address(netns.RELAY_PUBLIC_HOST, 3478), Address(netns.RELAY_INNER_HOST, 3479)


class _Kernel(NamedTuple):
    engine: KernelFastPath
    rules: Map  # the same map once more, for what no relay does

    def memory_bytes(self) -> int:
        lines = Path(f"/proc/self/fdinfo/{self.rules.fd}").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("memlock"))


def measure(flows: int, kernel: _Kernel | None = None) -> dict[str, float]:
    """Fill a table as packets do: a check, its answer, some media each way, in batches."""
    keys = KeyRing({1: b"k" * 32}, signing=1)
    relay = Relay(_INNER, keys, max_flows=flows, idle_s=1e9)
    members = tuple(Member(slot=n, generation=1, address=netns.OWNER_HOST, port=10_000 + n) for n in range(_OWNERS))
    relay.set_topology(TopologyIndex(Topology(cluster=1, pools=(Pool(name="a", members=members),))))
    if kernel is not None:
        path = KernelPath(relay, kernel.engine, _PUBLIC, FlowPorts(range(10_000, 65_536)))
        relay.bypass = path
    views = [memoryview(bytearray(_COUNT * size)) for size in (SLOT_BYTES, NAME_BYTES, NAME_BYTES)]
    batch = Batch(*views, memoryview(bytearray(_COUNT * 8)).cast("Q"))
    inward, outward = (kind(relay, batch, IPV4_FAMILY, IPV4_FAMILY) for kind in (Inward, Outward))
    gc.collect()
    before_kb, started = _resident_kb(), time.process_time()
    making_s = 0.0
    for first in range(0, flows, _COUNT):
        count = min(_COUNT, flows - first)
        making = time.process_time()
        clients = [Address(f"100.{n >> 16 & 63}.{n >> 8 & 255}.{n & 255}", 1024 + n % 60_000)
                   for n in range(first, first + count)]  # fmt: skip
        sources = [build_sockaddr(client, IPV4_FAMILY) for client in clients]
        checks = [_check(keys, n) for n in range(first, first + count)]
        making_s += time.process_time() - making
        for packets in (checks, [_MEDIA] * count):
            _fill(batch, packets, sources, HEADER_BYTES)
            assert not inward.run([len(one) for one in packets], float(first))
        owners = [bytes(batch.targets[n * NAME_BYTES : n * NAME_BYTES + 16]) for n in range(count)]
        for payload in (build_binding_success(b"t" * 12, clients[0], b"k"), _MEDIA):
            packets = [encode_spp(client, _INNER) + payload for client in clients]
            _fill(batch, packets, owners, 0)
            assert not outward.run([len(one) for one in packets], float(first))
    spent = time.process_time() - started - making_s
    for number, flow in enumerate(relay.flows):  # numbers of its own for each, as calls have
        flow.packets_in, flow.packets_out = _PACKETS + number, _PACKETS + 2 * number
        flow.bytes_in, flow.bytes_out = _BYTES + number, _BYTES + 2 * number
    found = {"bytes_per_flow": (_resident_kb() - before_kb) * 1024 / flows, "setups_per_s": flows / spent}
    assert len(relay.flows) == flows
    started = time.process_time()
    gc.collect()
    found["full_collection_ms"] = 1e3 * (time.process_time() - started)
    if kernel is not None:
        assert len(path) == 2 * flows
        found["kernel_bytes_per_flow"] = kernel.memory_bytes() / flows
        gc.disable()  # as in a relay (shell/relay/pressure.py)
        found["sweep_ms"] = 1e3 * _sweep(kernel, path, relay)
    return found


@contextlib.contextmanager
def kernel_path(flows: int) -> Iterator[_Kernel]:
    """A fast path with room for so many flows, in a namespace of its own, with a way to every client."""
    bpffs = tempfile.mkdtemp(prefix="vfbpf")
    subprocess.run(["mount", "-t", "bpf", "bpffs", bpffs], check=True)
    try:
        with netns.Namespaces("vff") as namespaces:
            namespaces.run(namespaces.relay, *f"ip route add 100.0.0.0/8 via {netns.CLIENT_HOST}".split())
            with namespaces.entered(namespaces.relay):
                place = Place("bench", "flows", _PUBLIC.port, range(10_000, 65_536), flows, Path(bpffs))
                engine = KernelFastPath(place, "Auto")
                lib = Libbpf()
                rules = lib.bpf_obj_get(str(place.pins.here / "rules").encode())
                try:
                    yield _Kernel(engine, Map(lib, rules, ENDS.size, RULE.size))
                finally:
                    os.close(rules)
                    engine.close(keep=False)
    finally:
        subprocess.run(["umount", bpffs], check=True)
        Path(bpffs).rmdir()


def _sweep(kernel: _Kernel, path: KernelPath, relay: Relay) -> float:
    """Give every rule something that it has carried; then have all of it accounted for. Gives the CPU seconds that took."""
    for keys, values in kernel.rules.batches():
        for index, key in enumerate(keys):
            rule = values[index * RULE.size : (index + 1) * RULE.size]
            kernel.rules.put(key, rule[:_CARRIED_AT] + _CARRIED.pack(_PACKETS + index, _BYTES + index, 1))
    before, started = relay.outward.packets, time.process_time()
    while relay.flows.evidence_until == float("inf"):  # until a sweep has ended
        asyncio.run(path.tend(time.monotonic()))
    assert relay.outward.packets - before > _PACKETS * len(relay.flows)
    return time.process_time() - started


def _check(keys: KeyRing, number: int) -> bytes:
    ufrag = encode_hint(Hint(1, 1, number % _OWNERS, 1, number), keys)
    return build_binding_request(b"t" * 12, f"{ufrag}:cccc", ice_pwd(ufrag, 1, keys).encode())


def _fill(batch: Batch, packets: list[bytes], names: list[bytes], at: int) -> None:
    for index, (packet, name) in enumerate(zip(packets, names, strict=True)):
        start = index * SLOT_BYTES + at
        batch.slots[start : start + len(packet)] = packet
        batch.names[index * NAME_BYTES : index * NAME_BYTES + len(name)] = name


def _resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def main() -> None:
    """Measure, and write one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=100_000)
    parser.add_argument("--kernel", action="store_true")
    options = parser.parse_args()
    with kernel_path(options.flows) if options.kernel else contextlib.nullcontext() as kernel:
        print(json.dumps(measure(options.flows, kernel)))


if __name__ == "__main__":
    main()
