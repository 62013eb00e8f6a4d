"""kubectl, as a platform engineer uses it: the stories see only what a user sees.

Owns: running kubectl and reading its JSON. Waiting is `kubectl wait` or a poll with a stated bound, never a sleep of
guessed length.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx

from e2e.cluster.api_client import ApiClient

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
T = TypeVar("T")
POLL_S = 0.2


class KubeError(RuntimeError):
    """kubectl said no; the text is what it said."""


class Kube:
    """kubectl bound to one cluster and one namespace."""

    def __init__(self, command: Sequence[str], namespace: str, api: ApiClient | None = None) -> None:
        """``api``: the same cluster without kubectl in between, to read from. Stories look ten times a second."""
        self.namespace = namespace
        self._base = list(command)  # kubectl, and which cluster
        self._api = api
        self._paths: dict[str, tuple[str, bool]] = {}  # what kubectl calls a kind → path, namespaced

    def run(self, *words: str, stdin: str | None = None, namespaced: bool = True) -> str:
        """Run kubectl and return what it printed. Raises KubeError."""
        done = subprocess.run(
            self.argv(*words, namespaced=namespaced),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode != 0:
            raise KubeError(f"kubectl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def argv(self, *words: str, namespaced: bool = True) -> list[str]:
        """Return the command line, for whoever wants to run it beside himself."""
        return [*self._base, *(["-n", self.namespace] if namespaced else []), *words]

    def fails(self, *words: str, stdin: str | None = None) -> str:
        """Return what kubectl says when it fails; success is an error."""
        try:
            said = self.run(*words, stdin=stdin)
        except KubeError as error:
            return str(error)
        raise AssertionError(f"kubectl {' '.join(words)} had to fail and said: {said}")

    def get(self, kind: str, name: str = "", selector: str = "") -> Any:
        """Return one object, or the list of items."""
        if self._api is None:
            words = ["get", kind, *([name] if name else []), *(["-l", selector] if selector else []), "-o", "json"]
            found = json.loads(self.run(*words))
        else:
            found = self._read(self._api, self._path(self._api, kind, name, selector))
        return found if name else found["items"]

    def _path(self, api: ApiClient, kind: str, name: str, selector: str) -> str:
        if kind not in self._paths:
            for document in ("/api", "/apis"):
                for group in self._read(api, document, DISCOVERY)["items"]:
                    self._learn(group)
        if kind not in self._paths:
            raise KubeError(f"the server doesn't have a resource type {kind}")
        base, is_namespaced = self._paths[kind]
        path = base.replace("NAMESPACE", self.namespace) if is_namespaced else base
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        return f"{path}{'/' + name if name else ''}{query}"

    def _learn(self, group: Any) -> None:
        """Note the paths of a group's resources, of its preferred version, under each of their names."""
        name = group["metadata"].get("name", "")
        for version in group["versions"]:
            base = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
            for resource in version.get("resources", ()):
                is_namespaced = resource["scope"] == "Namespaced"
                path = f"{base}/{'namespaces/NAMESPACE/' if is_namespaced else ''}{resource['resource']}"
                for one in (resource["resource"], resource["singularResource"], *resource.get("shortNames", ())):
                    self._paths.setdefault(one, (path, is_namespaced))

    def _read(self, api: ApiClient, path: str, accept: str = "application/json") -> Any:
        status, said = api.request("GET", path, accept=accept)
        if status != 200:
            reason, message = (said.get("reason"), said.get("message")) if isinstance(said, dict) else (status, said)
            raise KubeError(f"GET {path}: ({reason}) {message}")
        return said

    def apply(self, manifest: str) -> str:
        """Apply a manifest (server side), also over fields that a scaler wrote."""
        return self.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest)

    def refused(self, manifest: str) -> str:
        """Return the message with which the API server refuses a manifest; a manifest it takes is an error."""
        return self.fails("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=manifest)

    def pods(self, selector: str) -> list[Any]:
        """Return the pods of a selector that are not being deleted."""
        return [pod for pod in self.get("pods", selector=selector) if "deletionTimestamp" not in pod["metadata"]]

    def secret(self, name: str) -> Mapping[str, bytes]:
        """Return a Secret's data, decoded."""
        import base64

        return {key: base64.b64decode(value) for key, value in self.get("secret", name)["data"].items()}


def eventually(what: str, look: Callable[[], T | None], within_s: float = 60.0) -> T:
    """Poll until ``look`` returns something true; its last refusal is in the error."""
    deadline = time.monotonic() + within_s
    problem: object = None
    while True:
        try:
            if found := look():
                return found
            problem = found
        except (KubeError, AssertionError, OSError, httpx.TransportError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within_s:.0f} s; last: {problem!r}")
        time.sleep(POLL_S)


def ready(pod: Any) -> bool:
    """Tell whether a pod's Ready condition is true."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
