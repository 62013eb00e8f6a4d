"""A control plane without nodes, on loopback, in a directory of its own: etcd and kube-apiserver, the scheduler on request.

For what needs a real API server and nothing that runs pods: faults put between it and the operator, API servers of other
versions, benches over KWOK's nodes. It is no daemon: it ends with whoever started it, and leaves nothing behind.

Identities are tokens: `admin` may do everything, others are bound by RBAC as on a real cluster.
"""

import http.client
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from e2e.cluster.steps import ClusterError, run, wait_until

_STARTS_WITHIN_S = 120.0
NAMESPACE = "voice"
OPERATOR_USER = f"system:serviceaccount:{NAMESPACE}:voicefleet-operator"  # whom the chart's own rules bind


class BareControlPlane:
    """Start it with ``with``. ``programs`` is the folder with etcd and kube-apiserver."""

    def __init__(
        self, programs: Path, *, apiserver: Path | None = None, scheduler: bool = False, audit_user: str = ""
    ) -> None:
        """``apiserver``: one of another version. ``audit_user``: whose writes go to `audit_log`."""
        self._programs, self._apiserver = programs, apiserver or programs / "kube-apiserver"
        self._with_scheduler, self._audit_user = scheduler, audit_user
        self.directory = Path()
        self.port = 0
        self._tokens: dict[str, str] = {}
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="voicefleet-bare-"))
        try:
            self._start()
        except BaseException:
            self.stop(keep_logs=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(keep_logs=error is not None)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The API server's own certificate: it signed it itself."""
        return self.directory / "apiserver.crt"

    @property
    def audit_log(self) -> Path:
        """One JSON event a line."""
        return self.directory / "audit.log"

    def _audit_flags(self) -> list[str]:
        if not self._audit_user:
            return []
        rule = {"level": "Metadata", "users": [self._audit_user], "verbs": ["create", "update", "patch", "delete"]}
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [rule, {"level": "None"}],
        }
        path = self.directory / "audit-policy.yaml"
        path.write_text(json.dumps(policy))
        self.audit_log.touch()
        return [f"--audit-policy-file={path}", f"--audit-log-path={self.audit_log}"]

    def _start(self) -> None:
        here, client, peer = self.directory, free_port(), free_port()
        self.port = free_port()
        self._tokens = {name: secrets.token_hex(16) for name in ("admin", "operator")}
        (here / "tokens.csv").write_text(
            f"{self._tokens['admin']},admin,admin,system:masters\n"
            f"{self._tokens['operator']},{OPERATOR_USER},operator,system:serviceaccounts\n"
        )
        run(["openssl", "genrsa", "-out", here / "service-accounts.key", "2048"])
        run(["openssl", "rsa", "-in", here / "service-accounts.key", "-pubout", "-out", here / "service-accounts.pub"])
        self.spawn(
            "etcd",
            [
                *(
                    str(self._programs / "etcd"),
                    "--data-dir",
                    str(here / "etcd"),
                    "--unsafe-no-fsync",
                    "--log-level=warn",
                ),
                "--quota-backend-bytes=8589934592",
                *(
                    f"--listen-client-urls=http://127.0.0.1:{client}",
                    f"--advertise-client-urls=http://127.0.0.1:{client}",
                ),
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
            ],
        )
        apiserver = self.spawn(
            "kube-apiserver",
            [
                str(self._apiserver),
                f"--etcd-servers=http://127.0.0.1:{client}",
                *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}"),
                f"--cert-dir={here}",
                *("--authorization-mode=RBAC", f"--token-auth-file={here / 'tokens.csv'}", "--anonymous-auth=false"),
                f"--service-account-key-file={here / 'service-accounts.pub'}",
                f"--service-account-signing-key-file={here / 'service-accounts.key'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                *("--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true", "--profiling=false"),
                # No controller makes service accounts here, or takes the taint from a node that got ready.
                "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
                "--event-ttl=10m",
                *self._audit_flags(),
            ],
        )

        def answers() -> bool:
            if apiserver.poll() is not None:
                raise ClusterError("kube-apiserver has ended", self.log("kube-apiserver"))
            return self.ca.is_file() and self.request("GET", "/readyz")[0] == 200

        wait_until("the API server", answers, within_s=_STARTS_WITHIN_S, log=self.log("kube-apiserver"))
        if self._with_scheduler:
            path = self.write_kubeconfig("admin")
            argv = [str(self._programs / "kube-scheduler"), f"--kubeconfig={path}", "--leader-elect=false"]
            self.spawn(
                "kube-scheduler",
                [*argv, "--secure-port=0", "--profiling=false", "--kube-api-qps=500", "--kube-api-burst=1000"],
            )

    def spawn(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program that ends with this control plane."""
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory)
        self._running.append(process)
        return process

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def stop(self, *, keep_logs: bool = False) -> None:
        """End everything, the last started first."""
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        if not keep_logs:
            shutil.rmtree(self.directory, ignore_errors=True)

    def write_kubeconfig(self, user: str, url: str = "") -> Path:
        """Write a kubeconfig for a user; ``url`` when something stands in between."""
        cluster: dict[str, Any] = {"server": url or self.url}
        if cluster["server"].startswith("https"):
            cluster["certificate-authority"] = str(self.ca)
        path = self.directory / f"{user}{'-between' if url else ''}.conf"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bare", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": "bare", "context": {"cluster": "bare", "user": user, "namespace": NAMESPACE}}],
            "current-context": "bare",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))
        return path

    def request(self, verb: str, path: str, body: Any = None, content: str = "application/json") -> tuple[int, Any]:
        """Ask as the administrator; (0, why) when there is no answer."""
        tls = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls, timeout=30)
        headers = {"Authorization": f"Bearer {self._tokens['admin']}", "Content-Type": content}
        try:
            connection.request(verb, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()
        return answer.status, json.loads(raw) if raw[:1] == b"{" else raw.decode(errors="replace")

    def watch(self, path: str) -> Iterator[dict[str, Any]]:
        """All objects under a path, then every change, until the control plane ends."""
        tls = ssl.create_default_context(cafile=str(self.ca))
        headers = {"Authorization": f"Bearer {self._tokens['admin']}"}
        while self._running:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls, timeout=600)
            try:
                connection.request("GET", f"{path}?watch=true", headers=headers)
                answer = connection.getresponse()
                if answer.status != 200:  # a resource that was defined a moment ago
                    time.sleep(0.2)
                    continue
                for line in answer:
                    yield json.loads(line)
            except (OSError, http.client.HTTPException, ValueError):
                continue
            finally:
                connection.close()

    def apply(self, manifest: str) -> str:
        """`kubectl apply --server-side` as the administrator; what names no namespace goes to ours."""
        argv = [self._programs / "kubectl", "--kubeconfig", self.write_kubeconfig("admin")]
        argv += ["apply", "--server-side", "--force-conflicts", "-f", "-"]
        return run(argv, stdin=manifest, env=os.environ | {"NO_PROXY": "*"})


def free_port() -> int:
    """A TCP port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
