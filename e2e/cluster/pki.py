"""Certificates and kubeconfigs, made anew for every cluster, by the openssl program. Keys stay in the state directory."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.nodes import API_PORT, API_SERVICE_ADDRESS, HOST_ADDRESS, NODES
from e2e.cluster.steps import run, together

VALID_DAYS = 30
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
API_URL = f"https://{HOST_ADDRESS}:{API_PORT}"


@dataclass(frozen=True)
class Identity:
    """Whom a certificate names."""

    name: str
    subject: str
    names: str  # subjectAltName


IDENTITIES = (
    Identity(
        "apiserver",
        "/CN=kube-apiserver",
        f"IP:{HOST_ADDRESS},IP:{API_SERVICE_ADDRESS},DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
        "DNS:kubernetes.default.svc.cluster.local",
    ),
    Identity("admin", "/O=system:masters/CN=admin", "DNS:admin"),
    Identity("front-proxy", "/CN=front-proxy", "DNS:front-proxy"),
    Identity("kube-controller-manager", "/CN=system:kube-controller-manager", "DNS:kube-controller-manager"),
    Identity("kube-scheduler", "/CN=system:kube-scheduler", "DNS:kube-scheduler"),
    Identity("kube-proxy", "/CN=system:kube-proxy", "DNS:kube-proxy"),
    *(Identity(n.name, f"/O=system:nodes/CN=system:node:{n.name}", f"DNS:{n.name},IP:{n.address}") for n in NODES),
)
# Who speaks to the API server as a client, from a kubeconfig.
KUBECONFIGS = tuple(i.name for i in IDENTITIES if i.name not in {"apiserver", "front-proxy"})


def certificate_command(folder: Path, identity: Identity) -> list[str]:
    return [
        *("openssl", "req", "-x509", "-config", str(folder / "openssl.cnf"), *KEY, "-days", str(VALID_DAYS)),
        *("-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-subj", identity.subject),
        *("-keyout", str(folder / f"{identity.name}.key"), "-out", str(folder / f"{identity.name}.crt")),
        *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName={identity.names}"),
        *("-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=serverAuth,clientAuth"),
    ]


def make_pki(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "openssl.cnf"
    config.write_text("[req]\ndistinguished_name=dn\n[dn]\n")
    run([
        *("openssl", "req", "-x509", "-config", config, *KEY, "-days", str(VALID_DAYS), "-subj", "/CN=voicefleet local cluster"),
        *("-keyout", folder / "ca.key", "-out", folder / "ca.crt"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    ])  # fmt: skip
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "service-accounts.key"])
    run(["openssl", "ec", "-in", folder / "service-accounts.key", "-pubout", "-out", folder / "service-accounts.pub"])
    together(*(lambda i=identity: run(certificate_command(folder, i)) for identity in IDENTITIES))


def kubeconfig(ca: bytes, certificate: bytes, key: bytes) -> str:
    """JSON is YAML; kubectl and every client library read it."""

    def inline(data: bytes) -> str:
        return base64.b64encode(data).decode()

    cluster = {"server": API_URL, "certificate-authority-data": inline(ca)}
    user = {"client-certificate-data": inline(certificate), "client-key-data": inline(key)}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "voicefleet", "cluster": cluster}],
            "users": [{"name": "voicefleet", "user": user}],
            "contexts": [{"name": "voicefleet", "context": {"cluster": "voicefleet", "user": "voicefleet"}}],
            "current-context": "voicefleet",
        },
        indent=1,
    )


def write_kubeconfigs(folder: Path) -> None:
    ca = (folder / "ca.crt").read_bytes()
    for name in KUBECONFIGS:
        path = folder / f"{name}.conf"
        path.write_text(kubeconfig(ca, (folder / f"{name}.crt").read_bytes(), (folder / f"{name}.key").read_bytes()))
