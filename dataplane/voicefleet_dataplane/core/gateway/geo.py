"""Distances on the Earth, for choosing an ingress.

Owns: the great-circle formula. Does not own: where a client or a relay is, nor which relays may be chosen (placement).
"""

from math import asin, cos, radians, sin, sqrt
from typing import NamedTuple

_EARTH_RADIUS_KM = 6371.0088  # mean radius (IUGG): the error of the sphere, 0.5 %, is far below that of any IP database


class Place(NamedTuple):
    """Degrees, north and east positive."""

    latitude: float
    longitude: float


def great_circle_km(a: Place, b: Place) -> float:
    """Return the shortest way over the surface. Haversine: exact for near points too, where the cosine rule is not."""
    d_latitude, d_longitude = radians(b.latitude - a.latitude), radians(b.longitude - a.longitude)
    half_chord_squared = (
        sin(d_latitude / 2) ** 2 + cos(radians(a.latitude)) * cos(radians(b.latitude)) * sin(d_longitude / 2) ** 2
    )
    # Rounding may push antipodes a hair past 1, where asin has no value.
    return 2 * _EARTH_RADIUS_KM * asin(sqrt(min(1.0, half_chord_squared)))
