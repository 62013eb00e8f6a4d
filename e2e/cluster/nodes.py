"""The nodes: names, addresses, places on the map; and the same for test clients. Pure data.

Tests take node addresses from here: `ADDRESS["node-a"]`.
"""

from dataclasses import dataclass

HOST_ADDRESS = "10.77.0.1"  # the control plane, and this machine as the nodes see it
API_PORT = 6443
NETWORK = "10.77.0.0/24"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"

HOST_INTERFACE = "vfbr0"
# The bridge stands in a namespace of its own: on a machine with br_netfilter, the FORWARD rules of the machine (Docker's
# drop) would otherwise apply to packets between nodes.
SWITCH_NETNS = "vf-switch"
CLIENT_PREFIX = "vf-client"


@dataclass(frozen=True)
class Node:
    """A node and where in the world it pretends to be."""

    name: str  # also the name of its network namespace
    index: int
    region: str
    zone: str

    @property
    def address(self) -> str:
        return f"10.77.0.{10 + self.index}"

    @property
    def pod_network(self) -> str:
        return f"10.244.{self.index}.0/24"

    @property
    def labels(self) -> dict[str, str]:
        return {"topology.kubernetes.io/region": self.region, "topology.kubernetes.io/zone": self.zone}


NODES = (
    Node("node-a", 1, "eu-central", "eu-central-a"),
    Node("node-b", 2, "us-east", "us-east-a"),
    Node("node-c", 3, "ap-south", "ap-south-a"),
)
ADDRESS = {node.name: node.address for node in NODES}


@dataclass(frozen=True)
class Client:
    """A network namespace on the nodes' network for a test client that wants an address of its own."""

    name: str = CLIENT_PREFIX
    address: str = "10.77.0.200"

    def __post_init__(self) -> None:
        # `down` finds clients by this prefix; an interface name holds 15 bytes, and its host end is "p-" + name.
        if not self.name.startswith(CLIENT_PREFIX) or len(self.name) > 13:
            raise ValueError(
                f"a client's name starts with {CLIENT_PREFIX} and has at most 13 characters: {self.name!r}"
            )
