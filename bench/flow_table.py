"""What a relay's flow table costs: bytes a flow, and how long the garbage collector would stop the packets for it.

python -m bench.flow_table --flows 1000000
"""

import argparse
import gc
import json
import time
from pathlib import Path

from voicefleet_contract.addresses import Address
from voicefleet_contract.hint import Hint, encode_hint, ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES
from voicefleet_contract.topology import Member, Pool, Topology, TopologyIndex
from voicefleet_dataplane.core.batches import NAME_BYTES, SLOT_BYTES, Batch, Inward, Outward
from voicefleet_dataplane.core.relay import Relay
from voicefleet_dataplane.wire.sockaddr import IPV4_FAMILY, build_sockaddr
from voicefleet_dataplane.wire.stun import build_binding_request

_COUNT, _OWNERS = 64, 100
_MEDIA = b"\x80\x6f" + bytes(160)


def measure(flows: int) -> dict[str, float]:
    """Fill a table as packets do: a check, some media each way, in batches."""
    keys = KeyRing({1: b"k" * 32}, signing=1)
    relay = Relay(Address("10.0.0.1", 3479), keys, max_flows=flows, idle_s=1e9)
    members = tuple(Member(slot=n, generation=1, address=f"10.0.1.{n}", port=20_000) for n in range(_OWNERS))
    relay.set_topology(TopologyIndex(Topology(cluster=1, pools=(Pool(name="a", members=members),))))
    views = [memoryview(bytearray(_COUNT * size)) for size in (SLOT_BYTES, NAME_BYTES, NAME_BYTES)]
    batch = Batch(*views, memoryview(bytearray(_COUNT * 8)).cast("Q"))
    inward, outward = (kind(relay, batch, IPV4_FAMILY, IPV4_FAMILY) for kind in (Inward, Outward))
    gc.collect()
    before_kb, started = _resident_kb(), time.process_time()
    making_s = 0.0
    for first in range(0, flows, _COUNT):
        count = min(_COUNT, flows - first)
        making = time.process_time()
        sources = [build_sockaddr(Address(f"100.{n >> 16 & 63}.{n >> 8 & 255}.{n & 255}", 1024 + n % 60_000), 2)
                   for n in range(first, first + count)]  # fmt: skip
        checks = [_check(keys, n) for n in range(first, first + count)]
        making_s += time.process_time() - making
        for packets in (checks, [_MEDIA] * count):
            _fill(batch, packets, sources, HEADER_BYTES)
            assert not inward.run([len(one) for one in packets], float(first))
        headers = [bytes(batch.slots[n * SLOT_BYTES : n * SLOT_BYTES + HEADER_BYTES]) for n in range(count)]
        owners = [bytes(batch.targets[n * NAME_BYTES : n * NAME_BYTES + 16]) for n in range(count)]
        _fill(batch, [header + _MEDIA for header in headers], owners, 0)
        assert not outward.run([HEADER_BYTES + len(_MEDIA)] * count, float(first))
    spent = time.process_time() - started - making_s
    grown_kb = _resident_kb() - before_kb
    started = time.process_time()
    gc.collect()
    pause_s = time.process_time() - started
    assert len(relay.flows) == flows
    return {
        "bytes_per_flow": grown_kb * 1024 / flows,
        "setups_per_s": flows / spent,
        "full_collection_ms": pause_s * 1e3,
    }


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=100_000)
    print(json.dumps(measure(parser.parse_args().flows)))
