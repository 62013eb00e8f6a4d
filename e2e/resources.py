"""What a fleet's objects say of it, read with kubectl: the same on the cluster and on a control plane without nodes."""

import json
from collections.abc import Mapping
from typing import Any

from e2e.kube import Kube, eventually, ready
from voicefleet_contract import names

POOL = "agents"


class Resources:
    """One namespace's fleet."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube

    def transceivers(self) -> list[Any]:
        """The transceiver pods that are ready."""
        return [pod for pod in self.kube.pods("app.kubernetes.io/component=transceiver") if ready(pod)]

    def relays(self) -> list[Any]:
        """The relay pods that are ready."""
        return [pod for pod in self.kube.pods("app.kubernetes.io/component=relay") if ready(pod)]

    def owner_of(self, slot: int) -> Any:
        """The transceiver pod of a slot."""
        [pod] = [pod for pod in self.transceivers() if pod["metadata"]["labels"][names.LABEL_SLOT] == str(slot)]
        return pod

    def condition(self, kind: str, name: str, wanted: str = "Ready") -> bool:
        """Tell whether a condition of a resource is true for its present generation."""
        return self.status_condition(kind, name, wanted)[0] == "True"

    def status_condition(self, kind: str, name: str, wanted: str) -> tuple[str, str, str]:
        """Return a condition's status, reason and message, of the present generation; empty ones while there is none."""
        found = self.kube.get(kind, name)
        for c in found.get("status", {}).get("conditions", ()):
            if c["type"] == wanted and c.get("observedGeneration") == found["metadata"]["generation"]:
                return c["status"], c["reason"], c["message"]
        return "", "", ""

    def await_condition(
        self,
        name: str,
        wanted: str,
        status: str,
        reason: str,
        *words: str,
        kind: str = "transceiver",
        within_s: float = 30,
    ) -> str:
        """Wait until a condition says this, with these words in its message; gives the message.

        What pods show the operator says a little later: whoever has just seen the pods has to wait for its words.
        """

        def said() -> str:
            found = self.status_condition(kind, name, wanted)
            assert found[:2] == (status, reason), found
            assert all(word in found[2] for word in words), found
            return found[2] or reason

        return eventually(f"{wanted} is {status}: {reason}", said, within_s)

    def change(self, patch: Mapping[str, Any]) -> None:
        """Change the pool's spec, as `kubectl patch` does."""
        self.kube.run("patch", "transceiver", POOL, "--type=merge", "--patch", json.dumps({"spec": patch}))
