"""The fleet as the API server shows it: resources, pods, topology, and sessions where the registry can be read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from voicefleet_contract import names
from voicefleet_contract.topology import TopologyError, TopologyIndex, TopologySlice, join
from voicefleet_dataplane.plugin.kubectl import Kubectl, KubectlError, Object

_OURS = f"{names.LABEL_PART_OF}=voicefleet"


@dataclass(frozen=True, slots=True)
class FleetView:
    """What was read, at one time. ``topology_problem`` and ``sessions_problem`` say why a part is missing."""

    relays: Sequence[Object]
    pools: Sequence[Object]
    pods: Sequence[Object]
    topology: TopologyIndex | None
    topology_problem: str
    sessions: Sequence[Object]
    sessions_problem: str

    def pod(self, name: str) -> Object | None:
        """Return a pod by name."""
        return next((pod for pod in self.pods if pod["metadata"]["name"] == name), None)

    def pool(self, name: str) -> Object | None:
        """Return a Transceiver by name."""
        return next((pool for pool in self.pools if pool["metadata"]["name"] == name), None)


def read_fleet(kubectl: Kubectl, *, sessions: bool = True) -> FleetView:
    """Read it. Raises KubectlError when the resources cannot be read; what is only missing is said in the view."""
    found: list[Object] = []
    sessions_problem = ""
    if sessions:
        try:
            found = kubectl.items("voicesessions.sessions.voicefleet.dev", "--chunk-size=500")
        except KubectlError as error:
            sessions_problem = str(error).splitlines()[-1]
    topology, problem = None, ""
    try:
        slices = kubectl.items("topologyslices.voicefleet.dev")
        topology = TopologyIndex(join(TopologySlice.load(json.dumps(one["spec"])) for one in slices))
    except (KubectlError, TopologyError) as error:
        problem = str(error).splitlines()[-1]
    return FleetView(
        kubectl.items("voicerelays.voicefleet.dev"),
        kubectl.items("transceivers.voicefleet.dev"),
        kubectl.items("pods", "-l", _OURS),
        topology,
        problem,
        found,
        sessions_problem,
    )


def condition(resource: Object, kind: str) -> Object:
    """Return a condition of a resource; an empty one where it has none."""
    conditions: list[Object] = resource.get("status", {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == kind), {})


def is_ready(pod: Object) -> bool:
    """Tell whether a pod's Ready condition is true."""
    return condition(pod, "Ready").get("status") == "True"
