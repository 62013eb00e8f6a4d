"""Who we are in DTLS, and how a peer proves to be whom its offer named.

Owns the certificate of the process, the OpenSSL contexts made from it (0.6 ms each: made once), and the comparison
of a peer's certificate with offered fingerprints (RFC 8122 section 5).
Does not own the handshake (core/call/dtls.py), nor randomness and the clock: key, serial number and time are arguments.
"""

import datetime as dt
import hashlib
import hmac
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from voicefleet_dataplane.core.call.srtp import PROFILES, SrtpProfile
from voicefleet_dataplane.wire.sdp.model import Fingerprint

_DTLS_1_2 = 0xFEFD

# Forward secrecy and authenticated encryption only. ECDSA first: browsers and we have P-256 certificates; an RSA
# certificate on the other side is still fine.
_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:"
    b"ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305"
)

_HASHES = {"sha-512": hashlib.sha512, "sha-384": hashlib.sha384, "sha-256": hashlib.sha256}  # strongest first
_COOKIE_BYTES = 16


class DtlsIdentity:
    """A self-signed certificate with its key, and the context that every handshake of the process uses."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        profiles: Sequence[SrtpProfile] = PROFILES,
    ) -> None:
        self.certificate = certificate
        self.profiles = tuple(profiles)
        self.fingerprint = Fingerprint("sha-256", certificate.fingerprint(hashes.SHA256()))
        self._context = _build_context(key, certificate, self.profiles)
        secret = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._cookie_key = hmac.digest(secret, b"voicefleet dtls cookie", "sha256")

    def cookie_for(self, fingerprints: Iterable[Fingerprint]) -> bytes:
        """What a client shows to prove that it gets our packets (RFC 6347 section 4.2.1): of the one whom its offer names, and of no
        use to anybody else. Nothing is kept for it, and it does not change while the process lives.
        """
        named = b"".join(fingerprint.digest for fingerprint in fingerprints)
        return hmac.digest(self._cookie_key, named, "sha256")[:_COOKIE_BYTES]

    def build_connection(self, *, we_are_client: bool, mtu_bytes: int, cookie: bytes = b"") -> SSL.Connection:
        """A fresh handshake over memory buffers. A server's takes a ClientHello with this cookie, by `DTLSv1_listen`."""
        connection = SSL.Connection(self._context, None)
        connection.set_ciphertext_mtu(mtu_bytes)
        connection.set_app_data(cookie)
        if we_are_client:
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        return connection


def build_certificate(
    key: ec.EllipticCurvePrivateKey, serial_number: int, now: dt.datetime, days: int = 30
) -> x509.Certificate:
    """A minimal self-signed certificate: each of its bytes counts against three times the bytes received."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "voicefleet")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial_number)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )


def matches_fingerprint(certificate: bytes, fingerprints: Iterable[Fingerprint]) -> bool:
    """RFC 8122: of the hash functions offered the strongest one decides, and any of its values may match. DER."""
    offered = list(fingerprints)
    for algorithm, function in _HASHES.items():
        digests = [fingerprint.digest for fingerprint in offered if fingerprint.algorithm == algorithm]
        if digests:
            return function(certificate).digest() in digests
    return False


def _build_context(
    key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, profiles: Sequence[SrtpProfile]
) -> SSL.Context:
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_max_proto_version(_DTLS_1_2)
    # No ticket (nothing resumes), no renegotiation (it would change keys under SRTP), the MTU is ours to state.
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_QUERY_MTU)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS)
    # OpenSSL must ask for the certificate and check that the peer holds its key; whether it is the right one is
    # decided by its fingerprint after the handshake. Deciding here would let a forged Certificate message, which is
    # not encrypted in 1.2, end a call before its signature has been looked at.
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _accept_for_now)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.set_tlsext_use_srtp(b":".join(profile.name.encode() for profile in profiles))
    context.set_cookie_generate_callback(lambda connection: connection.get_app_data())
    context.set_cookie_verify_callback(lambda connection, cookie: cookie == connection.get_app_data())
    return context


def _accept_for_now(connection: SSL.Connection, certificate: object, error: int, depth: int, ok: int) -> bool:
    return True
