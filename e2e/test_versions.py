"""The fleet goes to the release before this one and comes back, part by part, in another order each way, under calls.

    back:   pool ─▶ operator, chart and CRDs ─▶ gateway ─▶ relays
    forth:  relays and gateway ─▶ operator, chart and CRDs ─▶ pool

So each part meets each other part one release apart, in both directions. Packets are counted by sequence number; after each
step new calls are placed through whatever mixture then stands, every process acknowledges the ring, and the calls that were in
progress all the while lose nothing (over a relay's restart: as much as any restart may cost).

Where the history is not there (a shallow clone), the other release is this checkout under another number: previous.py.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import previous
from e2e.fleet import POOL, ROOT, Fleet
from e2e.kube import eventually, ready
from e2e.talk import Marks, control, holding, place_calls
from voicefleet_contract import names
from voicefleet_contract.release import release
from voicefleet_dataplane.shell.client.packet_caller import Caller

RELAY_RESTART_MAY_LOSE = 3  # of each call, as in test_relay_kernel_path
PAUSED = f"{names.GROUP}/paused"


@dataclass
class Mixture:
    """What stands now: which release each part is of."""

    fleet: Fleet
    operator: str = ""
    dataplane: str = ""
    tree: Path = ROOT
    lost: dict[str, int] = field(default_factory=dict)  # step → the most that one call lost

    def upgrade(self, **parts: str) -> None:
        """Helm upgrade (and CRDs) to a mixture; the chart is of the operator's release.

        The values are those that both charts know: another value would be another setting, and move pods for itself.
        """
        self.operator, self.dataplane = parts.get("operator", self.operator), parts.get("dataplane", self.dataplane)
        self.tree = previous.tree() if self.operator == "previous" else ROOT
        images = {role: self.image(role, part) for role, part in self.parts().items()}
        schema = json.loads((previous.tree() / "charts" / "voicefleet" / "values.schema.json").read_text())
        values = known(self.fleet.values, schema)
        self.fleet.upgrade(values | {"images": values["images"] | images}, self.tree)

    def parts(self) -> dict[str, str]:
        return {"operator": self.operator, "dataplane": self.dataplane}

    def image(self, role: str, part: str) -> str:
        return self.fleet.site.image(f"{role}_previous" if part == "previous" else role)


def known(values: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the values that a chart's schema refuses."""
    fields: Mapping[str, Any] = schema.get("properties", {})
    if schema.get("additionalProperties") is not False:
        return dict(values)
    return {
        key: known(value, fields[key]) if isinstance(value, dict) else value
        for key, value in values.items()
        if key in fields
    }


@pytest.fixture
def mixture(fleet: Fleet) -> Iterator[Mixture]:
    fleet.change({"rollout": {"minReady": "1s", "maxSurge": 3}, "drain": {"deadline": "15m"}})
    made = Mixture(fleet)
    made.upgrade()
    eventually("settled", lambda: settled(fleet, fleet.site.image("dataplane")), within_s=150)
    yield made
    pause(fleet, "transceiver", POOL, on=False)
    pause(fleet, "voicerelay", "fra", on=False)
    fleet.upgrade(fleet.values)
    fleet.change({"image": None})
    fleet.kube.run("rollout", "status", "deployment", "voicefleet-operator", "--timeout=100s")
    eventually("as it was", lambda: settled(fleet, fleet.site.image("dataplane")), within_s=150)
    fleet.change({"rollout": {"minReady": "10s", "maxSurge": 1}, "drain": {"deadline": "60s"}})


@pytest.mark.timeout(900)  # seven steps, of which each waits for pods: two minutes on cores that nobody else uses
async def test_part_by_part_to_the_release_before_and_back_in_another_order_and_no_call_notices(
    fleet: Fleet, mixture: Mixture
) -> None:
    async with holding(fleet, 4) as ours:
        await step(mixture, "pool back", ours, lambda: pool(fleet, mixture.image("dataplane", "previous")))
        assert release() not in releases(fleet), "the pool is of the release before"
        async with holding(fleet, 3) as theirs:  # owned by the release before, through everything that follows
            both = [*ours, *theirs]
            await step(mixture, "operator back", both, lambda: operator(mixture, "previous"), dataplane_stays=True)
            pause(fleet, "transceiver", POOL)
            pause(fleet, "voicerelay", "fra")
            await step(mixture, "gateway back", both, lambda: dataplane(mixture, "previous", relays=False))
            await step(mixture, "relays back", both, lambda: relays(mixture, "previous"), RELAY_RESTART_MAY_LOSE)
            print(f"all of release {previous.RELEASE}")
            both_ways = [*both]
            await step(
                mixture, "relays, gateway forth", both_ways, lambda: dataplane(mixture, ""), RELAY_RESTART_MAY_LOSE
            )
            await step(mixture, "operator forth", both_ways, lambda: operator(mixture, ""), dataplane_stays=True)
            pause(fleet, "transceiver", POOL, on=False)
            await step(mixture, "pool forth", both_ways, lambda: pool(fleet, None))
            assert releases(fleet) == {release()}
    print("lost of one call at most:", json.dumps(mixture.lost))


async def step(
    mixture: Mixture,
    what: str,
    callers: list[Caller],
    change: Callable[[], None],
    may_lose: int = 0,
    *,
    dataplane_stays: bool = False,
) -> None:
    """Change one part under calls; then everything must speak with everything."""
    fleet, marks, began = mixture.fleet, Marks(callers), time.monotonic()
    before = identities(fleet) if dataplane_stays else {}
    await asyncio.to_thread(change)
    await marks.settle()
    lost = mixture.lost[what] = max(marks.lost())
    assert lost <= may_lose, f"{what}: {marks.lost()}"
    if dataplane_stays:
        assert identities(fleet) == before, f"{what}: a pod of the dataplane changed"
    await asyncio.to_thread(eventually, f"{what}: the ring is everywhere", lambda: converged(fleet), 60.0)
    each, new = await asyncio.to_thread(place_calls, fleet, 3, 1.0)
    assert new["audio_ok"] == 3, f"{what}: {each}"
    print(f"{what}: {time.monotonic() - began:.0f} s, {lost} packets lost of one call at most", flush=True)


def pool(fleet: Fleet, image: str | None) -> None:
    fleet.change({"image": image})
    wanted = image or fleet.site.image("dataplane")
    eventually(f"the pool of {wanted}", lambda: rolled_out(fleet) and images_of(fleet, "transceiver") == {wanted}, 90)


def operator(mixture: Mixture, part: str) -> None:
    mixture.upgrade(operator=part)
    fleet, wanted = mixture.fleet, mixture.image("operator", part)
    fleet.kube.run("rollout", "status", "deployment", "voicefleet-operator", "--timeout=100s")
    eventually("the other operator leads", lambda: leads(fleet, wanted), 60)


def dataplane(mixture: Mixture, part: str, *, relays: bool = True) -> None:
    mixture.upgrade(dataplane=part)
    fleet, wanted = mixture.fleet, mixture.image("dataplane", part)
    eventually("other gateways", lambda: images_of(fleet, "gateway") == {wanted}, 90)
    if relays:
        eventually("other relays", lambda: images_of(fleet, "relay") == {wanted} and len(fleet.relays()) == 2, 90)


def relays(mixture: Mixture, part: str) -> None:
    fleet, wanted = mixture.fleet, mixture.image("dataplane", part)
    pause(fleet, "voicerelay", "fra", on=False)
    eventually("other relays", lambda: images_of(fleet, "relay") == {wanted} and len(fleet.relays()) == 2, 90)


def pause(fleet: Fleet, kind: str, name: str, *, on: bool = True) -> None:
    """Hold one resource back: the operator changes nothing of it."""
    fleet.kube.run("annotate", kind, name, f"{PAUSED}=true" if on else f"{PAUSED}-", "--overwrite")


def images_of(fleet: Fleet, component: str) -> set[str]:
    """The images of a component's pods that take calls; an empty name stands for one that does not."""
    pods = fleet.kube.pods(f"app.kubernetes.io/component={component}")
    stay = [pod for pod in pods if "voicefleet.dev/draining-since" not in pod["metadata"].get("annotations", {})]
    return {pod["spec"]["containers"][0]["image"] if ready(pod) else "" for pod in stay}


def releases(fleet: Fleet) -> set[str]:
    """What the transceivers that take calls say of themselves."""
    stay = [
        pod for pod in fleet.transceivers() if "voicefleet.dev/draining-since" not in pod["metadata"]["annotations"]
    ]
    return {control(fleet, pod, "/v1/status").get("release", "") for pod in stay}


def rolled_out(fleet: Fleet) -> bool:
    found = fleet.kube.get("transceiver", POOL)
    status = found.get("status", {})
    conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
    seen = status.get("observedGeneration") == found["metadata"]["generation"]
    return bool(seen and status["updatedReplicas"] == 3 and conditions["Reconciling"] == "False")


def converged(fleet: Fleet) -> bool:
    return fleet.condition("transceiver", POOL, "RingConverged")


def settled(fleet: Fleet, image: str) -> bool:
    parts = ("transceiver", "relay", "gateway")
    return rolled_out(fleet) and all(images_of(fleet, part) == {image} for part in parts)


def identities(fleet: Fleet) -> dict[str, Any]:
    """Which pods of the dataplane there are and how often they started. Those that end by themselves may be gone."""
    pods = fleet.kube.pods("app.kubernetes.io/component in (relay,transceiver,gateway)")
    return {
        pod["metadata"]["uid"]: [container["restartCount"] for container in pod["status"]["containerStatuses"]]
        for pod in pods
        if "voicefleet.dev/draining-since" not in pod["metadata"].get("annotations", {})
    }


def leads(fleet: Fleet, image: str) -> bool:
    holder = fleet.kube.get("lease", "voicefleet-operator")["spec"]["holderIdentity"]
    pods = {pod["metadata"]["name"]: pod for pod in fleet.kube.pods("app.kubernetes.io/component=operator")}
    leader = pods.get(holder)
    return leader is not None and leader["spec"]["containers"][0]["image"] == image and ready(leader)
