"""OpenSSL's connection over memory buffers: what it has written, what it has read, what ails it.

Owns: these three questions. Does not own: the handshake (core/call/dtls.py).
"""

from OpenSSL import SSL

_READ_BYTES = 1 << 16


def take_written(connection: SSL.Connection) -> bytes:
    """Return what it wants to send: a run of whole records."""
    written = bytearray()
    while True:
        try:
            written += connection.bio_read(_READ_BYTES)
        except SSL.Error:
            return bytes(written)


def take_read(connection: SSL.Connection) -> tuple[list[bytes], bool]:
    """Return the application data that has come, and whether the peer has closed."""
    messages: list[bytes] = []
    while True:
        try:
            messages.append(connection.recv(_READ_BYTES))
        except SSL.WantReadError:
            return messages, False
        except SSL.ZeroReturnError:
            return messages, True
        except SSL.Error:
            return messages, bool(connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN)


def text_of(error: SSL.Error) -> str:
    """Return OpenSSL's word for what went wrong."""
    found = error.args[0] if error.args else None
    return str(found[-1][-1]) if isinstance(found, list) and found else "handshake error"
