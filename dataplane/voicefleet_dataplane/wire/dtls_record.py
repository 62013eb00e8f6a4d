"""DTLS 1.2 records as far as they can be judged from outside (RFC 6347 section 4.1, 4.2.2).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  content type |            version            |     epoch     :
    :               |            sequence number (48)               :
    :                               |            length             |
    |  fragment: in epoch 0 handshake messages, each with a header:
    |  type (8) | length (24) | message seq (16) | fragment offset (24) | fragment length (24)

Owns cutting datagrams into records, and a filter that keeps what no honest peer sends away from OpenSSL, for which a
malformed plaintext message is fatal. Does not own any decryption or state: epoch 1 is opaque here.
"""

from collections.abc import Iterator

RECORD_HEADER_BYTES = 13
_HANDSHAKE_HEADER_BYTES = 12
_LARGEST_RECORD_BYTES = 16_384 + 2_048
_LARGEST_MESSAGE_BYTES = 16_384  # a chain of certificates fits; anything longer is there to fill our memory

CHANGE_CIPHER_SPEC = 20
ALERT = 21
HANDSHAKE = 22

CLIENT_HELLO = 1

# What each side may send in clear: ClientHello, Certificate, ClientKeyExchange, CertificateVerify ...
_FROM_CLIENT = frozenset((1, 11, 16, 15))
# ... and ServerHello, HelloVerifyRequest, Certificate, ServerKeyExchange, CertificateRequest, ServerHelloDone,
# CertificateStatus.
_FROM_SERVER = frozenset((2, 3, 11, 12, 13, 14, 22))


def parse_records(datagram: bytes) -> list[bytes] | None:
    """The records of a datagram, or None unless they fill it exactly."""
    records: list[bytes] = []
    offset = 0
    while offset < len(datagram):
        if len(datagram) - offset < RECORD_HEADER_BYTES:
            return None
        length = datagram[offset + 11] << 8 | datagram[offset + 12]
        end = offset + RECORD_HEADER_BYTES + length
        if end > len(datagram) or length > _LARGEST_RECORD_BYTES or datagram[offset + 1] != 0xFE:
            return None
        records.append(datagram[offset:end])
        offset = end
    return records


def record_epoch(record: bytes) -> int:
    """The epoch: 0 in clear, 1 under the keys of the handshake."""
    return record[3] << 8 | record[4]


def is_plausible_in_clear(record: bytes, *, from_client: bool) -> bool:
    """Whether a peer in that role may send this record before keys are in use.

    Alerts in clear are not taken: anybody could forge one (RFC 6347 section 4.1.2.7). A peer that gives up is found
    out by the setup limit instead.
    """
    content = record[0]
    if content == CHANGE_CIPHER_SPEC:
        return record[RECORD_HEADER_BYTES:] == b"\x01"
    if content != HANDSHAKE:
        return False
    allowed = _FROM_CLIENT if from_client else _FROM_SERVER
    offset = RECORD_HEADER_BYTES
    if offset == len(record):
        return False
    while offset < len(record):
        if len(record) - offset < _HANDSHAKE_HEADER_BYTES:
            return False
        length = int.from_bytes(record[offset + 1 : offset + 4])
        fragment_offset = int.from_bytes(record[offset + 6 : offset + 9])
        fragment = int.from_bytes(record[offset + 9 : offset + 12])
        if record[offset] not in allowed or length > _LARGEST_MESSAGE_BYTES or fragment_offset + fragment > length:
            return False
        offset += _HANDSHAKE_HEADER_BYTES + fragment
    return offset == len(record)


def client_hello_random(record: bytes) -> bytes | None:
    """The random of a ClientHello whose beginning this record in clear carries; it tells two handshakes apart."""
    start = RECORD_HEADER_BYTES
    body = start + _HANDSHAKE_HEADER_BYTES
    if record[0] != HANDSHAKE or record_epoch(record) != 0 or len(record) < body + 34 or record[start] != CLIENT_HELLO:
        return None
    if int.from_bytes(record[start + 6 : start + 9]) != 0:
        return None
    return record[body + 2 : body + 34]


def pack_datagrams(records: bytes, mtu_bytes: int) -> Iterator[bytes]:
    """Cut what OpenSSL wrote, a run of whole records, into datagrams that fit the path."""
    start = offset = 0
    while offset < len(records):
        end = offset + RECORD_HEADER_BYTES + (records[offset + 11] << 8 | records[offset + 12])
        if end - start > mtu_bytes and offset > start:
            yield records[start:offset]
            start = offset
        offset = end
    if offset > start:
        yield records[start:offset]
