"""Which Secrets are missing or due for renewal. Pure: it decides, `cluster.credentials` makes them.

Keys are made once and kept: they outlive an uninstalled chart, since running calls carry them. Certificates are renewed
at two thirds of their life; pods see the new files without a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from voicefleet_contract import names

CA_LIFE_S = 10 * 365 * 86_400.0
CERTIFICATE_LIFE_S = 90 * 86_400.0
ROLES = ("relay", "transceiver", "gateway", "operator", "sessions", "monitoring")


class Work(StrEnum):
    """What to make."""

    KEY_RING = "key ring"
    CA = "inner CA"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True)
class Held:
    """What a Secret that exists says: nothing secret. ``issuer`` is the fingerprint of the CA that signed it."""

    not_before: float = 0.0
    not_after: float = float("inf")
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """A Secret to write, and why (the reason is logged)."""

    work: Work
    secret: str
    role: str = ""
    why: str = ""


def due(held: Mapping[str, Held], now: float) -> list[Due]:
    """Return what to make, CA first. Another CA makes every certificate due."""
    work = [
        Due(Work.KEY_RING, secret, why="missing")
        for secret in (names.SECRET_HINT_KEYS, names.SECRET_CALL_KEYS)
        if secret not in held
    ]
    authority = held.get(names.SECRET_INNER_CA)
    if authority is None or now >= _renewal(authority):
        work.append(Due(Work.CA, names.SECRET_INNER_CA, why="missing" if authority is None else "near its end"))
        return [*work, *(Due(Work.CERTIFICATE, names.tls_secret(role), role, "new CA") for role in ROLES)]
    for role in ROLES:
        secret = names.tls_secret(role)
        certificate = held.get(secret)
        if certificate is None:
            work.append(Due(Work.CERTIFICATE, secret, role, "missing"))
        elif certificate.issuer != authority.issuer:
            work.append(Due(Work.CERTIFICATE, secret, role, "signed by another CA"))
        elif now >= _renewal(certificate):
            work.append(Due(Work.CERTIFICATE, secret, role, "near its end"))
    return work


def _renewal(held: Held) -> float:
    return held.not_before + (held.not_after - held.not_before) * 2 / 3
