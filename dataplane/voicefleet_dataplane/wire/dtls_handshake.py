"""Handshake messages of DTLS 1.2 in clear, as far as they are read outside OpenSSL (RFC 6347 section 4.2, RFC 5246 section 7.4, RFC 8422).

    message    type (8) | length (24) | message seq (16) | fragment offset (24) | fragment length (24) | body
    ClientHello          version (16) | random (32 bytes) | session id (1 + …) | cookie (1 + …) | …
    HelloVerifyRequest   version (16) | cookie (1 + …)
    ServerHello          version (16) | random (32 bytes) | …
    Certificate          length (24) of the chain | length (24) of the first certificate | DER | …
    ServerKeyExchange    3 = named curve | curve (16) | point (1 + …) | signature scheme (16) | signature (2 + …)
    CertificateVerify    signature scheme (16) | signature (2 + …)

Owns: these bytes. Does not own: which message is believed (core/call/dtls_flight.py), anything encrypted. What does not have the
form gives None.
"""

from dataclasses import dataclass

from voicefleet_dataplane.wire.dtls_record import HANDSHAKE, RECORD_HEADER_BYTES

SERVER_HELLO = 2
HELLO_VERIFY_REQUEST = 3
CERTIFICATE = 11
SERVER_KEY_EXCHANGE = 12
CERTIFICATE_REQUEST = 13
SERVER_HELLO_DONE = 14
CERTIFICATE_VERIFY = 15
CLIENT_KEY_EXCHANGE = 16

MESSAGE_HEADER_BYTES = 12
_DTLS_1_0, _DTLS_1_2 = b"\xfe\xff", b"\xfe\xfd"
_RANDOM = slice(2, 34)
_NAMED_CURVE = 3


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a message, or all of it."""

    kind: int
    length: int  # of the whole body
    sequence: int
    offset: int
    data: bytes

    @property
    def is_whole(self) -> bool:
        """Say whether nothing is missing."""
        return len(self.data) == self.length


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message."""

    kind: int
    sequence: int
    body: bytes

    def encode(self) -> bytes:
        """Return it as one fragment: what is hashed into the transcript (RFC 6347 section 4.2.6)."""
        length = len(self.body).to_bytes(3)
        return bytes((self.kind,)) + length + self.sequence.to_bytes(2) + bytes(3) + length + self.body

    def to_record(self, record_sequence: int) -> bytes:
        """Return it as a record of its own in epoch 0."""
        return _record(_DTLS_1_2, record_sequence, self.encode())


def parse_fragments(record: bytes) -> list[Fragment]:
    """The fragments of a record that `is_plausible_in_clear` has found well-formed."""
    found = []
    offset = RECORD_HEADER_BYTES
    while offset < len(record):
        body = offset + MESSAGE_HEADER_BYTES
        end = body + int.from_bytes(record[offset + 9 : offset + 12])
        found.append(
            Fragment(
                kind=record[offset],
                length=int.from_bytes(record[offset + 1 : offset + 4]),
                sequence=int.from_bytes(record[offset + 4 : offset + 6]),
                offset=int.from_bytes(record[offset + 6 : offset + 9]),
                data=record[body:end],
            )
        )
        offset = end
    return found


def record_sequence(record: bytes) -> int:
    """The sequence number of a record within its epoch."""
    return int.from_bytes(record[5:11])


def hello_random(body: bytes) -> bytes | None:
    """The random of a ClientHello or a ServerHello."""
    return body[_RANDOM] if len(body) >= _RANDOM.stop else None


def client_hello_cookie(body: bytes) -> bytes | None:
    """The cookie of a ClientHello: empty in a client's first one."""
    at = _RANDOM.stop
    session_id = _prefixed(body, at, 1)
    return None if session_id is None else _prefixed(body, at + 1 + len(session_id), 1)


def verify_request_cookie(body: bytes) -> bytes | None:
    """The cookie of a HelloVerifyRequest."""
    return _prefixed(body, 2, 1)


def build_hello_verify_request(cookie: bytes, hello_record_sequence: int) -> bytes:
    """The record that asks for a hello with this cookie; its number is that of the hello's record (RFC 6347 section 4.2.1)."""
    body = _DTLS_1_0 + bytes((len(cookie),)) + cookie
    return _record(_DTLS_1_0, hello_record_sequence, Message(HELLO_VERIFY_REQUEST, 0, body).encode())


def first_certificate(body: bytes) -> bytes | None:
    """The peer's own certificate, DER, of a Certificate message."""
    return _prefixed(body, 3, 3) or None


def split_key_exchange(body: bytes) -> tuple[bytes, int, bytes] | None:
    """What a ServerKeyExchange signs beside the randoms, the scheme, the signature."""
    if len(body) < 4 or body[0] != _NAMED_CURVE:
        return None
    point = _prefixed(body, 3, 1)
    if not point:
        return None
    signed = body[: 4 + len(point)]
    rest = split_signature(body[len(signed) :])
    return None if rest is None else (signed, *rest)


def split_signature(body: bytes) -> tuple[int, bytes] | None:
    """Scheme and signature: a CertificateVerify, the end of a ServerKeyExchange."""
    signature = _prefixed(body, 2, 2)
    if not signature or len(body) != 4 + len(signature):
        return None
    return int.from_bytes(body[:2]), signature


def _prefixed(body: bytes, at: int, length_bytes: int) -> bytes | None:
    start = at + length_bytes
    if len(body) < start:
        return None
    end = start + int.from_bytes(body[at:start])
    return body[start:end] if end <= len(body) else None


def _record(version: bytes, sequence: int, payload: bytes) -> bytes:
    return bytes((HANDSHAKE,)) + version + bytes(2) + sequence.to_bytes(6) + len(payload).to_bytes(2) + payload
