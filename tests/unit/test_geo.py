"""Great-circle distances against published ones."""

import pytest

from voicefleet_dataplane.core.gateway.geo import Place, great_circle_km

FRANKFURT, NEW_YORK, SYDNEY = Place(50.11, 8.68), Place(40.71, -74.01), Place(-33.87, 151.21)


@pytest.mark.parametrize(
    "a, b, km",
    [
        (FRANKFURT, NEW_YORK, 6200),
        (FRANKFURT, SYDNEY, 16500),
        (Place(0, 0), Place(0, 90), 10007.5),
        (Place(90, 0), Place(-90, 0), 20015),
    ],
)
def test_distance_agrees_with_the_published_one_within_half_a_percent(a: Place, b: Place, km: float) -> None:
    assert great_circle_km(a, b) == pytest.approx(km, rel=0.005)
    assert great_circle_km(b, a) == pytest.approx(great_circle_km(a, b))


def test_the_date_line_is_no_border() -> None:
    assert great_circle_km(Place(-17, 179.9), Place(-17, -179.9)) < 25


def test_a_place_is_no_distance_from_itself() -> None:
    assert great_circle_km(SYDNEY, SYDNEY) == 0


def test_antipodes_do_not_fall_out_of_the_arcsine() -> None:
    for latitude in range(-89, 90, 7):
        assert great_circle_km(Place(latitude, 13), Place(-latitude, -167)) == pytest.approx(20015, rel=0.001)
