"""A small stand-in for kubelets: it says what they would say of nodes and pods. **Nothing runs**: no image, no process, no packet.

What it does as kubelets do: nodes are Ready and renew their Leases; a pod that was bound to a node goes from Pending over Running to
Ready; a deleted pod's containers end, at once or with their grace, and then the pod is taken away (finalizers keep it, as they do
everywhere). What is to go wrong a story says with a `Fate`: an image that is not there, a process that ends with a code, a node that
falls silent.

What it cannot show: that a process of ours does any of this. It makes no probe, mounts no Secret, and has an administrator's rights.
"""

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from e2e.bare.plane import BareControlPlane
from e2e.bare.pod_life import RUNS, Fate, Gone, Later, Object, Say, next_word
from e2e.cluster.api_client import MERGE

STRATEGIC = "application/strategic-merge-patch+json"
NO_IMAGE = Fate(waiting="ErrImageNeverPull", message="the image is not there and its pull policy is Never")
CRASHES = Fate(exit_code=1)
PORT_TAKEN = Fate(exit_code=98)
TAKES_ITS_GRACE = Fate(stays=True)
_LEASE_S = 2.0
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
# A pod's fate, or None: the rule does not know this pod.
Rule = Callable[[Object], Fate | None]


class Kubelets:
    """Start it with ``with``, on a control plane that runs; nodes are added by `add_node`."""

    def __init__(self, plane: BareControlPlane) -> None:
        self._plane = plane
        # Loopback: whoever asks a pod asks this machine, where nobody listens unless a story does.
        self._network = f"127.{random.randrange(64, 128)}.{random.randrange(256)}"
        self._addresses: dict[str, str] = {}  # by node
        self._lost: set[str] = set()
        self._rules: list[Rule] = []
        self._pods: dict[str, Object] = {}  # by uid, those that stand on a node
        self._later: dict[str, float] = {}  # uid → when to look again
        self._news: queue.Queue[Object | None] = queue.Queue()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        for work in (self._listen, self._work):
            threading.Thread(target=work, name=f"kubelets{work.__name__}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._news.put(None)

    def add_node(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Register a node, Ready; gives its address."""
        address = f"{self._network}.{len(self._addresses) + 1}"
        room = {"cpu": "64", "memory": "256Gi", "pods": "250"}
        node = {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
            "status": {
                "allocatable": room,
                "capacity": room,
                "conditions": _ready(),
                "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            },
        }
        status, said = self._plane.request("POST", "/api/v1/nodes", node)
        assert status == 201, said
        self._addresses[name] = address
        self._news.put(None)
        return address

    def lose(self, node: str) -> None:
        """Let a node fall silent, with its pods. The control plane notices within seconds."""
        self._lost.add(node)

    def find(self, node: str) -> None:
        """Let a lost node speak again."""
        self._lost.discard(node)
        self._news.put(None)

    @contextlib.contextmanager
    def fate(self, rule: Rule) -> Iterator[None]:
        """Let a rule decide about the pods that it knows, also about those that run already. The youngest rule has the say."""
        self._rules.append(rule)
        self._news.put(None)
        try:
            yield
        finally:
            self._rules.remove(rule)
            self._news.put(None)

    def _listen(self) -> None:
        for event in self._plane.watch("/api/v1/pods"):
            if self._ended.is_set():
                return
            self._news.put(event)

    def _work(self) -> None:
        """Look at what changed; at everything when a rule or a node did."""
        renew_at = 0.0
        while not self._ended.is_set():
            now = time.time()
            if now >= renew_at:
                renew_at = now + _LEASE_S
                self._renew_leases()
            uids = self._hear(min([renew_at, *self._later.values()]) - now)
            uids |= {uid for uid, at in self._later.items() if at <= time.time()}
            for uid in uids:
                self._look(uid)

    def _hear(self, within_s: float) -> set[str]:
        """Wait for news and take all that there is; gives the pods that are to be looked at."""
        uids: set[str] = set()
        with contextlib.suppress(queue.Empty):
            event = self._news.get(timeout=max(0.0, within_s))
            while True:
                uids |= set(self._pods) if event is None else self._take(event)
                event = self._news.get_nowait()
        return uids

    def _take(self, event: Object) -> set[str]:
        pod = event["object"]
        uid = pod.get("metadata", {}).get("uid", "")
        if event["type"] == "DELETED":
            self._forget(uid)
        elif event["type"] in ("ADDED", "MODIFIED") and pod["spec"].get("nodeName") in self._addresses:
            self._pods[uid] = pod
            return {uid}
        return set()

    def _look(self, uid: str) -> None:
        self._later.pop(uid, None)
        pod = self._pods.get(uid)
        if pod is None or pod["spec"]["nodeName"] in self._lost:
            return
        word = next_word(pod, self._fate_of(pod), self._addresses[pod["spec"]["nodeName"]], time.time())
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        status = 200
        if isinstance(word, Say):
            status, _ = self._plane.request("PATCH", f"{path}/status", {"status": word.status}, STRATEGIC)
        elif isinstance(word, Gone):
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
            status, _ = self._plane.request("DELETE", path, options)
        elif isinstance(word, Later):
            self._later[uid] = word.at
        if status == 404:
            self._forget(uid)
        elif status == 0:  # the API server is away
            self._later[uid] = time.time() + 0.2

    def _forget(self, uid: str) -> None:
        self._pods.pop(uid, None)
        self._later.pop(uid, None)

    def _fate_of(self, pod: Object) -> Fate:
        told = (rule(pod) for rule in reversed(self._rules.copy()))
        return next((fate for fate in told if fate is not None), RUNS)

    def _renew_leases(self) -> None:
        for name in self._addresses.keys() - self._lost:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}
            if self._plane.request("PATCH", f"{_LEASES}/{name}", {"spec": spec}, MERGE)[0] == 404:
                self._plane.request("POST", _LEASES, {"metadata": {"name": name}, "spec": spec})
            # Writes nothing unless the control plane had lost faith in it.
            self._plane.request(
                "PATCH", f"/api/v1/nodes/{name}/status", {"status": {"conditions": _ready()}}, STRATEGIC
            )


def _ready() -> list[dict[str, Any]]:
    return [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "said by a stand-in for kubelets"}]
