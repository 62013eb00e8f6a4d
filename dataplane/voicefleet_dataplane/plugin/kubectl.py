"""Running kubectl: the program that ran us, with the caller's context, login and namespace.

A plug-in that brought its own client would bring its own idea of kubeconfigs, exec plug-ins and proxies.
"""

import subprocess
from dataclasses import dataclass
from typing import Any

from voicefleet_contract.outside import parse_json

Object = dict[str, Any]


class KubectlError(Exception):
    """kubectl said no; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the flags that we were given."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    def get(self, kind: str, name: str = "", *flags: str) -> Object:
        """Return an object, or a list. Raises KubectlError."""
        text = self.run("get", kind, *([name] if name else []), *flags, "-o", "json")
        found: Object = parse_json(text, len(text))
        return found

    def items(self, kind: str, *flags: str) -> list[Object]:
        """Return the items of a list. Raises KubectlError."""
        found: list[Object] = self.get(kind, "", *flags)["items"]
        return found

    def run(self, *words: str) -> str:
        """Run it; return what it printed. Raises KubectlError."""
        flags = [
            *(["--kubeconfig", self.kubeconfig] if self.kubeconfig else []),
            *(["--context", self.context] if self.context else []),
            *(["--namespace", self.namespace] if self.namespace else []),
        ]
        try:
            done = subprocess.run(["kubectl", *flags, *words], capture_output=True, text=True, check=False, timeout=60)
        except FileNotFoundError:
            raise KubectlError("kubectl is not on PATH") from None
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl {' '.join(words)}: no answer within a minute") from None
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip() or f"kubectl {' '.join(words)} ended with {done.returncode}")
        return done.stdout
