"""Bearer keys of callers: which tenant a key belongs to.

Keys are kept as SHA-256 digests, and a presented key is compared with each of them in constant time, so that neither
the time of a comparison nor a memory dump of the table gives a key away.

Owns: parsing the Authorization header and matching. Does not own: where keys come from (shell reads a mounted Secret).
"""

import hashlib
import hmac
from collections.abc import Mapping

MIN_KEY_CHARS = 16
_SCHEME = "bearer "


class ApiKeyError(ValueError):
    """A key file cannot be used; the text names the file, never the key."""


class ApiKeys:
    """Tenants by key. ``keys`` maps a tenant (the file's name) to its key; surrounding white space does not count."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._digests: dict[str, bytes] = {}
        for tenant, key in keys.items():
            stripped = key.strip()
            if len(stripped) < MIN_KEY_CHARS:
                raise ApiKeyError(f"API key {tenant!r} has fewer than {MIN_KEY_CHARS} characters")
            self._digests[tenant] = _digest(stripped)

    def tenant(self, authorization: str | None) -> str | None:
        """Return whose key the ``Authorization: Bearer KEY`` header holds; None for a missing or unknown one."""
        token = bearer_token(authorization)
        if token is None:
            return None
        presented = _digest(token)
        found = None
        for tenant, digest in self._digests.items():  # all of them: where it stands in the table stays hidden too
            if hmac.compare_digest(presented, digest):
                found = tenant
        return found

    def __contains__(self, tenant: str) -> bool:
        """Whether a tenant has a key: one whose key was taken away has none, and what was made with it opens nothing."""
        return tenant in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._digests)} keys)"


def bearer_token(authorization: str | None) -> str | None:
    """Return KEY of ``Authorization: Bearer KEY``."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
