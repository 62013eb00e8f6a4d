"""Key epochs: several master secrets, one of which signs.

A rotation publishes a new epoch, waits until every process acknowledges it, signs with it, and retires the old one
after the longest session and a margin. So verification looks an epoch up; only signing has a favourite.

Owns: the file format of the Secrets, and the derivation of purpose keys. Does not own: who makes or rotates them.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

from voicefleet_contract.outside import decode_base64, parse_integer, parse_json

MAX_EPOCH = 31  # 5 bits in the hint
SECRET_BYTES = 32
_MAX_FILE_BYTES = 64 * 1024


class KeyRingError(ValueError):
    """The key file is not what it must be; the text names the field, never a secret."""


class KeyRing:
    """Master secrets by epoch, and the epoch that signs.

    ``purpose_key`` results are derived once: a relay asks for two of them per first packet.
    """

    def __init__(self, epochs: Mapping[int, bytes], signing: int) -> None:
        if signing not in epochs:
            raise KeyRingError(f"signing epoch {signing} is not among the epochs {sorted(epochs)}")
        for epoch, secret in epochs.items():
            if not 0 <= epoch <= MAX_EPOCH:
                raise KeyRingError(f"key epoch {epoch} is outside 0–{MAX_EPOCH}")
            if len(secret) != SECRET_BYTES:
                raise KeyRingError(f"secret of epoch {epoch} has {len(secret)} bytes, not {SECRET_BYTES}")
        self._secrets = dict(epochs)
        self.signing = signing
        self._derived: dict[tuple[int, bytes], bytes] = {}

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs that verify, ascending."""
        return tuple(sorted(self._secrets))

    def purpose_key(self, epoch: int, purpose: bytes) -> bytes | None:
        """Return the 32-byte key for one purpose (HKDF-Expand of one block, RFC 5869 §2.3), or None: no such epoch."""
        known = self._derived.get((epoch, purpose))
        if known is None:
            secret = self._secrets.get(epoch)
            if secret is None:
                return None
            known = hmac.digest(secret, purpose + b"\x01", hashlib.sha256)
            self._derived[epoch, purpose] = known
        return known

    def with_epochs(self, secrets: Mapping[int, bytes], signing: int) -> "KeyRing":
        """Return a ring of just these epochs: those that this one has keep their secrets, others get the given ones."""
        return KeyRing({epoch: self._secrets.get(epoch, secret) for epoch, secret in secrets.items()}, signing)

    @classmethod
    def parse(cls, text: str | bytes) -> "KeyRing":
        """Read ``{"signing": 1, "epochs": {"1": "<base64 of 32 bytes>"}}``. Raises KeyRingError."""
        try:
            document = parse_json(text, _MAX_FILE_BYTES)
            epochs = {
                parse_integer(k, MAX_EPOCH): decode_base64(v, _MAX_FILE_BYTES) for k, v in document["epochs"].items()
            }
            return cls(epochs, document["signing"])
        except KeyRingError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise KeyRingError(f"key file is not a key ring: {type(error).__name__}") from None

    def to_json(self) -> str:
        """Write the file format that `parse` reads."""
        epochs = {str(k): base64.b64encode(v).decode() for k, v in sorted(self._secrets.items())}
        return json.dumps({"signing": self.signing, "epochs": epochs})

    def __repr__(self) -> str:
        return f"KeyRing(epochs={self.epochs}, signing={self.signing})"  # never a secret in a log
