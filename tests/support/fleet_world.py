"""A Kubernetes of records, for plans to be carried out in: it schedules, starts, breaks and removes pods.

It enforces what a real one would: a pod's name is free, two pods with one host port never share a node, a generation
never comes twice. It holds no opinion about what a plan should say.

Other people live in it too: `claim` is a pod of theirs that declares a host port, ``processes`` are ports on nodes that
something holds of which Kubernetes knows nothing.
"""

from dataclasses import replace

from voicefleet_contract.drain import parse_drain
from voicefleet_contract.resources import TransceiverSpec, VoiceRelaySpec
from voicefleet_operator.cluster.observe import observe_avoided
from voicefleet_operator.desired.config import Cluster, Dataplane, FleetConfig, Gateway
from voicefleet_operator.desired.objects import ANNOTATION_CAPACITY, ANNOTATION_DIGEST
from voicefleet_operator.desired.plan import Plan, plan
from voicefleet_operator.desired.pool.drain import draining_pods
from voicefleet_operator.desired.state import (
    Applied,
    Component,
    Drained,
    Fleet,
    ForeignPod,
    Node,
    Place,
    Pod,
    PoolResource,
    PortRefusal,
    RelayResource,
)

CONFIG = FleetConfig(
    cluster=Cluster(id=7, name="test"), dataplane=Dataplane(image="voicefleet:1"), gateway=Gateway(enabled=False)
)


def nodes(count: int) -> dict[str, Node]:
    return {
        f"node-{i}": Node(
            f"node-{i}", {"zone": "a"}, f"10.0.{i // 250}.{i % 250 + 1}", f"203.0.{113 + i // 250}.{i % 250 + 1}"
        )
        for i in range(count)
    }


def pool(name: str = "agents", generation: int = 1, **spec) -> PoolResource:
    spec = {"replicas": 3, "ports": {"min": 20000, "max": 20019}, **spec}
    return PoolResource(name, f"uid-{name}", generation, TransceiverSpec.model_validate(spec))


def relay(name: str = "fra", **spec) -> RelayResource:
    spec = {"location": {"region": "eu", "latitude": 50.1, "longitude": 8.7}, **spec}
    return RelayResource(name, f"uid-{name}", 1, VoiceRelaySpec.model_validate(spec))


def empty_fleet(node_count: int = 3, **fields) -> Fleet:
    return Fleet("voice", CONFIG, "voicefleet-fleet", "uid-config", nodes=nodes(node_count), **fields)


class World:
    """A fleet in time. ``sessions`` are by pod name.

    Images in ``bad_images`` start nothing; those in ``dying_images`` start, are ready, and die after so many seconds.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.now = fleet, 1_000.0
        self.bad_images: set[str] = set()
        self.dying_images: dict[str, float] = {}
        self.processes: set[Place] = set()
        self.refused: dict[int, float] = {}  # when a pod left because its number was taken: a test's own notes
        self.images: dict[str, str] = {}
        self.sessions: dict[str, int] = {}
        self.deaf: set[str] = set()  # pods whose control API does not answer
        self.told: set[str] = set()  # pods that know that they drain, and refuse calls
        self.pairs: set[tuple[int, int]] = set()  # every (slot, generation) that ever was a pod
        self.deleted: list[str] = []
        self._uid = 0

    # What the API server does with a plan

    def carry_out(self, todo: Plan) -> None:
        fleet = self.fleet
        if todo.ledger is not None:
            fleet = replace(fleet, ledger=todo.ledger)
        if todo.quarantine is not None:
            fleet = replace(fleet, quarantine=todo.quarantine)
        pods = dict(fleet.pods)
        for manifest in todo.create_pods:
            pod = self._made(manifest)
            assert pod.name not in pods, f"{pod.name} exists"
            entry = fleet.ledger.entries[pod.slot]
            assert (entry.pool, entry.generation) == (pod.resource, pod.generation), "created before it was claimed"
            assert (pod.slot, pod.generation) not in self.pairs, "a generation came twice"
            self.pairs.add((pod.slot, pod.generation))
            pods[pod.name] = pod
        for fence in todo.fences:
            pods[fence.pod] = replace(pods[fence.pod], draining_since=self.now)
        for mark in todo.marks:
            pods[mark.pod] = replace(pods[mark.pod], idle=mark.idle)
        for judgement in todo.judgements:
            pods[judgement.pod] = replace(pods[judgement.pod], verdict=judgement.verdict)
        for delete in todo.deletes:
            pods[delete.pod] = replace(pods[delete.pod], deleting=True)
            self.deleted.append(delete.pod)
        applied = {key: value for key, value in fleet.applied.items() if key not in todo.prune}
        for manifest in todo.apply:
            kind, name = manifest["kind"], manifest["metadata"]["name"]
            applied[kind, name] = Applied(kind, name, manifest["metadata"]["annotations"][ANNOTATION_DIGEST])
        slices = {name: part for name, part in {**fleet.slices, **todo.slices}.items() if name not in todo.stale_slices}
        relays, pools = dict(fleet.relays), dict(fleet.pools)
        for name, replicas in todo.scales.items():
            spec = pools[name].spec.model_copy(update={"replicas": replicas})
            pools[name] = replace(pools[name], spec=spec, generation=pools[name].generation + 1)
        for change in todo.statuses:
            kept = relays if change.kind == "VoiceRelay" else pools
            kept[change.name] = replace(kept[change.name], status=change.status)
        self.fleet = replace(fleet, pods=pods, applied=applied, slices=slices, relays=relays, pools=pools)

    def _made(self, manifest) -> Pod:
        labels = manifest["metadata"]["labels"]
        self._uid += 1
        name = manifest["metadata"]["name"]
        self.images[name] = manifest["spec"]["containers"][0]["image"]
        return Pod(
            name=name,
            uid=f"u{self._uid}",
            component=Component.TRANSCEIVER,
            resource=labels["voicefleet.dev/pool"],
            slot=int(labels["voicefleet.dev/slot"]),
            generation=int(labels["voicefleet.dev/generation"]),
            port=int(labels["voicefleet.dev/port"]),
            capacity=int(manifest["metadata"]["annotations"][ANNOTATION_CAPACITY]),
            template=manifest["metadata"]["annotations"][ANNOTATION_DIGEST],
            avoids=observe_avoided(manifest["spec"]),
            created_at=self.now,
        )

    # What scheduler and kubelets do

    def schedule(self) -> None:
        pods = dict(self.fleet.pods)
        for name in sorted(pods):
            pod = pods[name]
            if pod.node or pod.deleting or pod.finished:
                continue
            held = {(other.node, other.port) for other in pods.values() if other.node}
            held |= {(foreign.node, port) for foreign in self.fleet.foreign.values() for port in foreign.ports}
            allowed = [
                name
                for name, node in sorted(self.fleet.nodes.items())
                if node.leaving != "cordoned" and name not in pod.avoids
            ]
            free = [node for node in allowed if (node, pod.port) not in held]
            counts = {node: sum(other.node == node for other in pods.values()) for node in free}
            if free:
                node = min(free, key=lambda node: (counts[node], node))
                pods[name] = replace(
                    pod, node=node, host_ip=self.fleet.nodes[node].internal, trouble="", port_refused=None
                )
            else:
                refused = PortRefusal.SCHEDULER if allowed else None
                pods[name] = replace(pod, trouble="Unschedulable", port_refused=refused)
        self.fleet = replace(self.fleet, pods=pods)

    def run_kubelets(self) -> None:
        """Start what can start; end what is being deleted; let draining transceivers say how many sessions they have."""
        pods, drained = {}, dict(self.fleet.drained)
        for name, seen in self.fleet.pods.items():
            pod = seen
            if pod.deleting and (pod.gone_at is None or self.now >= pod.gone_at or not self.sessions.get(name)):
                self.sessions.pop(name, None)
                continue
            if pod.deleting:
                self.told.add(name)  # SIGTERM
            if pod.node and not pod.finished:
                pod = self._started(pod)
            pods[name] = pod
        for pod, hang_up_at in draining_pods(replace(self.fleet, pods=pods)):
            if pod.name in self.deaf:
                continue
            self.told.add(pod.name)
            if self.now >= hang_up_at:
                self.sessions.pop(pod.name, None)
            drained[pod.uid] = Drained("draining", self.sessions.get(pod.name, 0))
        self.fleet = replace(self.fleet, pods=pods, drained=drained)

    def _started(self, pod: Pod) -> Pod:
        image = self.images.get(pod.name, "")
        if image in self.bad_images:
            return replace(pod, running=False, ready=False, trouble="ImagePullBackOff")
        if not pod.running and Place(pod.node, pod.port) in self.processes:
            return replace(pod, ran=True, port_refused=PortRefusal.NODE, restarts=pod.restarts + 1)
        if pod.running and image in self.dying_images and self.now >= pod.ready_since + self.dying_images[image]:
            return replace(pod, running=False, ready=False, trouble="CrashLoopBackOff", restarts=pod.restarts + 1)
        if pod.ready:
            return pod
        return replace(pod, running=True, ran=True, ready=True, ready_since=self.now, trouble="", port_refused=None)

    def claim(self, name: str, node: str, port: int) -> None:
        """Let somebody's pod with a host port come to a node, if the scheduler finds the port free there."""
        if all((pod.node, pod.port) != (node, port) for pod in self.fleet.pods.values()):
            foreign = ForeignPod(f"other/{name}", node, frozenset({port}))
            self.fleet = replace(self.fleet, foreign={**self.fleet.foreign, foreign.name: foreign})

    # Time

    def step(self) -> Plan:
        """Do one plan, then let the rest of the world move a second."""
        todo = plan(self.fleet, self.now)
        self.carry_out(todo)
        self.schedule()
        self.run_kubelets()
        self.now += 1
        return todo

    def settle(self, limit: int = 200) -> None:
        """Step until a plan has nothing to do, and nothing waits for a time."""
        for _ in range(limit):
            before = self.fleet
            todo = self.step()
            if todo.quiet and self.fleet == before and todo.look_again_at is None:
                return
        raise AssertionError(f"not settled after {limit} steps: {todo}")

    def change_pool(self, name: str = "agents", **spec) -> None:
        """Change a Transceiver's spec (fields as in YAML)."""
        old = self.fleet.pools[name]
        document = {**old.spec.model_dump(by_alias=True, mode="json", exclude_none=True), **spec}
        new = replace(old, spec=TransceiverSpec.model_validate(document), generation=old.generation + 1)
        self.fleet = replace(self.fleet, pools={**self.fleet.pools, name: new})

    # What people do

    def annotate_pod(self, name: str, value: str = "true") -> None:
        self._change("pods", name, drain=parse_drain(value))

    def annotate_node(self, name: str, value: str = "true") -> None:
        self._change("nodes", name, drain=parse_drain(value))

    def annotate_pool(self, value: str = "true", name: str = "agents") -> None:
        self._change("pools", name, drain=parse_drain(value))

    def cordon(self, name: str, *, leaving: str = "cordoned") -> None:
        self._change("nodes", name, leaving=leaving)

    def uncordon(self, name: str) -> None:
        self._change("nodes", name, leaving="")

    def delete_pod(self, name: str, grace_s: float) -> None:
        """Somebody else than the operator deletes a pod: an eviction, a person."""
        self._change("pods", name, deleting=True, gone_at=self.now + grace_s)

    def _change(self, kind: str, name: str, **fields) -> None:
        objects = getattr(self.fleet, kind)
        self.fleet = replace(self.fleet, **{kind: {**objects, name: replace(objects[name], **fields)}})

    def serving(self, name: str = "agents") -> list[Pod]:
        pods = self.fleet.pods_of(Component.TRANSCEIVER, name)
        return [pod for pod in pods if pod.ready and not pod.leaving]
