"""The processes of a control plane without nodes: start, kill, freeze, restart, and etcd as it was.

It is no daemon. It ends with whoever started it, also with one that was killed, and leaves nothing behind.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from e2e.bare import programs as command
from e2e.bare.programs import ADMIN, GROUPS, Place
from e2e.cluster.api_client import ApiClient
from e2e.cluster.daemons import ENVIRONMENT
from e2e.cluster.pki import KEY
from e2e.cluster.steps import ClusterError, run, wait_until

_STARTS_WITHIN_S = 120.0
_ENDS_WITHIN_S = 10.0
_ETCD, _APISERVER, _CONTROLLERS, _SCHEDULER = "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"
# It reads until we say that all is well, or can say nothing any more: then whoever works in our directory goes, and it too.
_AFTER_US = """\
read -r word
[ "$word" = well ] && exit
for one in /proc/[0-9]*; do [ "$(readlink "$one/cwd")" = "$0" ] && kill -9 "${one#/proc/}"; done
rm -rf "$0"
"""


class BareControlPlane:
    """Start it with ``with``: etcd and kube-apiserver, and what more is asked for.

    ``programs`` is the folder with Kubernetes' programs, ``apiserver`` one of another version. ``controllers`` says that
    kube-controller-manager will be started: then pods need their service account, as everywhere. ``audit``: writes go to `audit_log`.
    """

    def __init__(
        self, programs: Path, *, apiserver: Path | None = None, controllers: bool = False, audit: bool = False
    ) -> None:
        self._programs, self._apiserver = programs, apiserver or programs / _APISERVER
        self._controllers, self._audit = controllers, audit
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        directory = Path(tempfile.mkdtemp(prefix="voicefleet-bare-"))
        # Three ports at once: one that is free twice would be given twice.
        ports = free_ports(3)
        self.place = Place(directory, self._programs, self._apiserver, *ports)
        self._tokens = {user: secrets.token_hex(16) for user in GROUPS}
        self.api = ApiClient("127.0.0.1", self.place.port, self._tls, self._tokens[ADMIN])
        self._after_us = subprocess.Popen(
            ["/bin/sh", "-c", _AFTER_US, directory], stdin=subprocess.PIPE, start_new_session=True, cwd="/"
        )
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
    def directory(self) -> Path:
        return self.place.directory

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.place.port}"

    @property
    def ca(self) -> Path:
        """The API server's own certificate: it signed it itself."""
        return self.place.ca

    @property
    def audit_log(self) -> Path:
        """One JSON event a line."""
        return self.place.audit_log

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    def _start(self) -> None:
        place = self.place
        lines = (f"{token},{user},{user},{GROUPS[user]}" for user, token in self._tokens.items())
        place.tokens.write_text("\n".join(lines) + "\n")
        place.audit_policy.write_text(command.audit_policy())
        place.audit_log.touch()
        run(["openssl", "genrsa", "-out", place.signing_key, "2048"])
        run(["openssl", "rsa", "-in", place.signing_key, "-pubout", "-out", place.signing_key.with_suffix(".pub")])
        run([
            *("openssl", "req", "-x509", *KEY, "-subj", "/CN=front-proxy", "-addext", "extendedKeyUsage=clientAuth"),
            *("-out", place.front_proxy, "-keyout", place.front_proxy.with_suffix(".key")),
        ])  # fmt: skip
        for user in GROUPS:
            self.write_kubeconfig(place.kubeconfig(user), self._tokens[user])
        self.spawn(_ETCD, command.etcd(place))
        self.spawn(_APISERVER, command.kube_apiserver(place, audit=self._audit, controllers=self._controllers))
        self.wait_answers()

    def wait_answers(self) -> None:
        """Wait until the API server is ready. Raises ClusterError with its log."""

        def answers() -> bool:
            if self._running[_APISERVER].poll() is not None:
                raise ClusterError("kube-apiserver has ended", self.log(_APISERVER))
            return self.ca.is_file() and self.request("GET", "/readyz")[0] == 200

        wait_until("the API server", answers, within_s=_STARTS_WITHIN_S, log=self.log(_APISERVER))

    def start_scheduler(self) -> None:
        self.spawn(_SCHEDULER, command.kube_scheduler(self.place))

    def start_controllers(self) -> None:
        """Start kube-controller-manager. What CRDs define before it collects its garbage from the first moment on."""
        self.spawn(_CONTROLLERS, command.kube_controller_manager(self.place))

    def spawn(self, name: str, argv: Sequence[str]) -> None:
        """Start a program that ends with this control plane."""
        with self.log(name).open("ab") as log:  # a session of its own: Ctrl-C is for us, and we end them in order
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=ENVIRONMENT,
                cwd=self.directory,
                start_new_session=True,
            )
        self._commands[name], self._running[name] = list(argv), process

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def send(self, name: str, number: signal.Signals) -> None:
        """SIGSTOP freezes a program, SIGCONT lets it go on."""
        self._running[name].send_signal(number)

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one program and wait for it. SIGTERM lets it say good-bye, which takes some of them long."""
        process = self._running.pop(name)
        process.send_signal(number)
        try:
            process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def start_again(self, name: str) -> None:
        """Start a program that was ended, as it was."""
        self.spawn(name, self._commands[name])

    def restart_apiserver(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the API server and start another one on the same port, with the same certificate."""
        self.end(_APISERVER, number)
        self.start_again(_APISERVER)
        self.wait_answers()

    def snapshot(self, name: str) -> None:
        """Keep what etcd holds. It is away for that moment, and the API server waits for it."""
        self.end(_ETCD)
        shutil.copytree(self.place.etcd_data, self.directory / f"snapshot-{name}")
        self.start_again(_ETCD)
        self.wait_answers()

    def restore(self, name: str) -> None:
        """Put back what etcd held, and start the whole control plane anew, as etcd's manual says: revisions go back.

        Clients that watch, the operator among them, are left as they are: they have to notice.
        """
        running = list(self._running)
        for one in reversed(running):
            self.end(one)
        shutil.rmtree(self.place.etcd_data)
        shutil.copytree(self.directory / f"snapshot-{name}", self.place.etcd_data)
        for one in running:
            self.start_again(one)
        self.wait_answers()

    def stop(self, *, keep_logs: bool = False) -> None:
        """End everything, the last started first."""
        self.api.close()
        for name in reversed(list(self._running)):
            self.end(name)
        self._after_us.communicate(b"well\n")
        if not keep_logs:
            shutil.rmtree(self.directory, ignore_errors=True)

    def write_kubeconfig(self, path: Path, token: str, url: str = "", namespace: str = "default") -> None:
        """Write a kubeconfig; ``url`` when something stands between its user and the API server."""
        cluster: dict[str, Any] = {"server": url or self.url}
        if cluster["server"].startswith("https"):
            cluster["certificate-authority"] = str(self.ca)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bare", "cluster": cluster}],
            "users": [{"name": "one", "user": {"token": token}}],
            "contexts": [{"name": "bare", "context": {"cluster": "bare", "user": "one", "namespace": namespace}}],
            "current-context": "bare",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))

    def token_of(self, namespace: str, account: str) -> str:
        """A token of a service account, as kubelets ask for one. Raises ClusterError."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        status, said = self.request("POST", path, {"spec": {"expirationSeconds": 86400}})
        if status != 201:
            raise ClusterError(f"no token for {namespace}/{account}: {status} {said}")
        return str(said["status"]["token"])

    def request(self, verb: str, path: str, body: Any = None, content: str = "application/json") -> tuple[int, Any]:
        """Ask as the administrator; (0, why) when there is no answer."""
        return self.api.request(verb, path, body, content)

    def watch(self, path: str) -> Iterator[dict[str, Any]]:
        """All objects under a path, then every change, until the control plane ends."""
        return self.api.watch(path, lambda: bool(self._running))

    @property
    def kubectl(self) -> tuple[str, ...]:
        """Kubectl as the administrator."""
        cache = f"--cache-dir={self.directory / 'kubectl'}"
        return (str(self._programs / "kubectl"), "--kubeconfig", str(self.place.kubeconfig(ADMIN)), cache)

    def apply(self, manifest: str) -> str:
        """`kubectl apply --server-side` as the administrator."""
        argv = [*self.kubectl, "apply", "--server-side", "--force-conflicts", "-f", "-"]
        return run(argv, stdin=manifest, env=os.environ | {"NO_PROXY": "*"})


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody has at this moment."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def free_port() -> int:
    [port] = free_ports(1)
    return port
