"""Making the Secrets that `desired.credentials` finds due. Nothing of them is ever logged.

Secrets are read when the operator starts and once an hour, not watched: a watch would hold every Secret of the namespace in
memory and in the operator's rights.
"""

import base64
import datetime as dt
import hashlib
import logging
import secrets
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from voicefleet_contract import names
from voicefleet_contract.keys import SECRET_BYTES, KeyRing
from voicefleet_contract.outside import decode_base64
from voicefleet_operator.cluster.api import KubeApi, KubeError, Object
from voicefleet_operator.desired.keys.credentials import CA_LIFE_S, CERTIFICATE_LIFE_S, ROLES, Due, Held, Work, due
from voicefleet_operator.desired.objects import MANAGED_BY

log = logging.getLogger("voicefleet.operator")

_SECRETS = (
    names.SECRET_HINT_KEYS,
    names.SECRET_CALL_KEYS,
    names.SECRET_INNER_CA,
    *(names.tls_secret(role) for role in ROLES),
)
_MAX_SECRET_BYTES = 1 << 20  # Kubernetes' own bound
_BACKDATED = dt.timedelta(minutes=5)  # clocks of nodes differ a little


class _Authority:
    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.bundle = certificate  # newest first; the one before it is still believed
        self.certificate = x509.load_pem_x509_certificates(certificate)[0]
        self.key = serialization.load_pem_private_key(key, None)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


async def ensure_credentials(api: KubeApi, now: float) -> dict[str, bytes]:
    """Make what is missing or due; return the operator's own certificate files. Raises KubeError."""
    found = {name: body for name in _SECRETS if (body := await api.get("Secret", name)) is not None}
    held = {name: _held(name, _data(body)) for name, body in found.items()}
    work = due(held, now)
    authority = _authority(found.get(names.SECRET_INNER_CA))
    for item in work:
        old = found.get(item.secret)
        data, authority = _make(item, authority, now, api.namespace)
        found[item.secret] = await _write(api, item, old, data, authority)
        log.info("secret %s: made (%s)", item.secret, item.why)
    return _data(found[names.tls_secret("operator")])


async def vouch_for_sessions_api(api: KubeApi, told: Mapping[str, str]) -> dict[str, str]:
    """Put the inner CA into our APIServices where it is not yet; return what stands in each now. Raises KubeError."""
    stands = {}
    for name in (names.SESSIONS_API_SERVICE, names.EXTERNAL_METRICS_API_SERVICE):
        service = await api.get("APIService", name)
        if service is None or (service["spec"].get("service") or {}).get("namespace") != api.namespace:
            continue  # this release has none, or the cluster's is another release's
        held = str(service["spec"].get("caBundle", ""))
        if not held or held != told.get(name):
            secret = await api.get("Secret", names.SECRET_INNER_CA)
            bundle = str((secret or {}).get("data", {}).get(names.TLS_CERT_FILE, ""))
            if bundle and bundle != held:
                await api.merge("APIService", name, {"spec": {"caBundle": bundle}})
                log.info("APIService %s: CA bundle written", name)
            held = bundle
        stands[name] = held
    return stands


def _data(body: Object) -> dict[str, bytes]:
    return {key: decode_base64(value, _MAX_SECRET_BYTES) for key, value in (body.get("data") or {}).items()}


def _held(name: str, data: dict[str, bytes]) -> Held:
    if names.TLS_CERT_FILE not in data:
        return Held()
    certificate = x509.load_pem_x509_certificates(data[names.TLS_CERT_FILE])[0]
    ours = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
    issuer = ours if name == names.SECRET_INNER_CA else data.get("issuer", b"").decode()
    return Held(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp(), issuer)


def _authority(body: Object | None) -> _Authority | None:
    if body is None:
        return None
    data = _data(body)
    return _Authority(data[names.TLS_CERT_FILE], data[names.TLS_KEY_FILE])


def _make(
    item: Due, authority: _Authority | None, now: float, namespace: str
) -> tuple[dict[str, bytes], _Authority | None]:
    if item.work is Work.KEY_RING:
        ring = KeyRing({1: secrets.token_bytes(SECRET_BYTES)}, signing=1)
        return {names.KEYS_FILE: ring.to_json().encode()}, authority
    if item.work is Work.CA:
        made = _new_authority(now, authority)
        key = made.key.private_bytes(*_KEY_FORMAT)
        return {names.TLS_CERT_FILE: made.bundle, names.TLS_KEY_FILE: key}, made
    if authority is None:
        raise ValueError("a certificate is due before there is a CA")
    # kube-apiserver reaches the sessions API by its Service's name.
    also = (f"{names.SESSIONS_SERVICE}.{namespace}.svc",) if item.role == "sessions" else ()
    certificate, key = issue(authority, item.role, now, also)
    return {
        names.TLS_CERT_FILE: certificate,
        names.TLS_KEY_FILE: key,
        names.TLS_CA_FILE: authority.bundle,
        "issuer": authority.fingerprint.encode(),
    }, authority


async def _write(
    api: KubeApi, item: Due, old: Object | None, data: dict[str, bytes], authority: _Authority | None
) -> Object:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    if old is not None:  # fenced: of two operators one gives way
        return await api.replace("Secret", {**old, "data": encoded})
    labels = {names.LABEL_PART_OF: "voicefleet", names.LABEL_MANAGED_BY: MANAGED_BY}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": item.secret, "labels": labels},
        "data": encoded,
    }
    try:
        return await api.create("Secret", body)
    except KubeError as error:
        existing = await api.get("Secret", item.secret) if error.status == 409 else None
        if existing is None:
            raise
        return existing


_KEY_FORMAT = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, life_s: float
) -> x509.CertificateBuilder:
    start = dt.datetime.fromtimestamp(now, dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _BACKDATED)
        .not_valid_after(start + dt.timedelta(seconds=life_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _new_authority(now: float, old: _Authority | None) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "voicefleet inner CA")])
    certificate = (
        _builder("voicefleet inner CA", subject, key, now, CA_LIFE_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    bundle = certificate.public_bytes(serialization.Encoding.PEM)
    if old is not None:  # certificates that it signed are believed until each process has a new one
        bundle += old.certificate.public_bytes(serialization.Encoding.PEM)
    return _Authority(bundle, key.private_bytes(*_KEY_FORMAT))


def issue(authority: _Authority, role: str, now: float, also: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
    """Return a role's certificate and key in PEM: good for both ends of the inner mutual TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    dns_name = names.inner_dns_name(role)
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    signing_key = authority.key
    if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
        raise TypeError("the inner CA's key is not an EC key")
    certificate = (
        _builder(dns_name, authority.certificate.subject, key, now, CERTIFICATE_LIFE_S)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in (dns_name, *also)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(*_KEY_FORMAT)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
