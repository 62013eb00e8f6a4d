"""Throw-away keys and certificates for a fleet on loopback (`voicefleet dev`, tests): what the operator makes in a cluster.

One directory holds what a pod would find mounted::

    DIR/hint-keys/keys.json   DIR/call-keys/keys.json   DIR/api-keys/dev
    DIR/{relay,transceiver,gateway,operator}/{tls.crt,tls.key,ca.crt}
    DIR/https/{tls.crt,tls.key}

Owns: making them, readable by their owner only. Does not own: rotation, or anything that should outlive the process.
"""

import datetime as dt
import ipaddress
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from voicefleet_contract import names
from voicefleet_contract.keys import SECRET_BYTES, KeyRing

ROLES = ("relay", "transceiver", "gateway", "operator")
_LIFE = dt.timedelta(days=7)
_SKEW = dt.timedelta(minutes=5)


def write_dev_secrets(directory: Path, api_key: str, hosts: tuple[str, ...] = ("127.0.0.1", "::1")) -> None:
    """Write every file that the roles need. ``hosts`` are the addresses that the HTTPS certificate is good for."""
    for name in ("hint-keys", "call-keys"):
        ring = KeyRing({1: secrets.token_bytes(SECRET_BYTES)}, signing=1)
        _write(directory / name / names.KEYS_FILE, ring.to_json().encode())
    _write(directory / "api-keys" / "dev", api_key.encode())
    authority = InnerAuthority("voicefleet dev inner CA")
    for role in ROLES:
        authority.issue(directory / role, names.inner_dns_name(role))
    # A CA of its own signs what callers see: nothing from outside may stand in for a role inside.
    InnerAuthority("voicefleet dev HTTPS CA").issue(directory / "https", "localhost", hosts)


class InnerAuthority:
    """A certificate authority that lives as long as this object: its key is never written."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate = (
            _builder(subject, subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, directory: Path, dns_name: str, addresses: tuple[str, ...] = ()) -> None:
        """Write ``tls.crt``, ``tls.key`` and ``ca.crt`` of a certificate for a name, as client and as server."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative: list[x509.GeneralName] = [x509.DNSName(dns_name)]
        alternative += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, dns_name)])
        issuer_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(subject, self.certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(issuer_key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        _write(directory / names.TLS_CERT_FILE, certificate.public_bytes(encoding))
        _write(directory / names.TLS_KEY_FILE, private)
        _write(directory / names.TLS_CA_FILE, self.certificate.public_bytes(encoding))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFE)
    )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(content)
