"""The signature that a DTLS peer makes with the key of its certificate (RFC 5246 section 7.4.1.4.1, RFC 8446 section 4.2.3 for the names).

Owns: which schemes we know, and whether a signature is right. Does not own: what is signed (core/call/dtls_flight.py).
SHA-1 and MD5 are not among them, nor does OpenSSL take them at its security level.
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

_ECDSA = {0x0403: hashes.SHA256(), 0x0503: hashes.SHA384(), 0x0603: hashes.SHA512()}
_PKCS1 = {0x0401: hashes.SHA256(), 0x0501: hashes.SHA384(), 0x0601: hashes.SHA512()}
_PSS = {
    0x0804: hashes.SHA256(),
    0x0805: hashes.SHA384(),
    0x0806: hashes.SHA512(),
    0x0809: hashes.SHA256(),
    0x080A: hashes.SHA384(),
    0x080B: hashes.SHA512(),
}
_ED25519, _ED448 = 0x0807, 0x0808


def is_signed_by(certificate: bytes, scheme: int, signature: bytes, signed: bytes) -> bool:
    """Say whether the key of a certificate (DER, from anybody) made a signature. About 0.1 ms."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        if isinstance(key, ec.EllipticCurvePublicKey) and scheme in _ECDSA:
            key.verify(signature, signed, ec.ECDSA(_ECDSA[scheme]))
        elif isinstance(key, rsa.RSAPublicKey) and scheme in _PKCS1:
            key.verify(signature, signed, padding.PKCS1v15(), _PKCS1[scheme])
        elif isinstance(key, rsa.RSAPublicKey) and scheme in _PSS:
            function = _PSS[scheme]
            key.verify(signature, signed, padding.PSS(padding.MGF1(function), function.digest_size), function)
        elif (isinstance(key, ed25519.Ed25519PublicKey) and scheme == _ED25519) or (
            isinstance(key, ed448.Ed448PublicKey) and scheme == _ED448
        ):
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True
