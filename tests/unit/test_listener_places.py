"""Who has a place at a listener, and who makes room: counted, for any order of comers."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from voicefleet_listener.bounds import Bounds, ConnectionPlace, Places

BOUNDS = Bounds(connections=8, connections_of_address=3)
ADDRESSES = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2", None]  # the last two of one /64


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "enter", "name", "leave"]), st.sampled_from(ADDRESSES), st.integers(0, 7))
    )
)
def test_places_are_bounded_and_only_who_has_most_makes_room(steps):
    places, held = Places(BOUNDS), []

    def counts() -> Counter[str | None]:
        return Counter(place.key for place in held)

    def enter(address: str | None) -> None:
        before, ended = counts(), []
        place = places.enter(address)
        if place is None:
            assert max(before[key] for key in before if key is not None) == BOUNDS.connections_of_address
            return

        def end(one: ConnectionPlace = place) -> None:
            held.remove(one)
            ended.append(one)

        place.end = end
        gone = before - counts()
        for key in gone:
            assert before[key] == max(before.values())
        assert gone.total() == (before.total() == BOUNDS.connections)
        held.append(place)

    for what, address, index in steps:
        if what == "enter":
            enter(address)
        elif held and what == "leave":
            places.leave(held.pop(index % len(held)))
        elif held and address is not None:
            place = held[index % len(held)]
            if place.key is None and not places.name(place, address):
                held.remove(place)
                places.leave(place)
        assert len(places) == len(held) <= BOUNDS.connections
        assert all(count <= BOUNDS.connections_of_address for key, count in counts().items() if key is not None)
    for place in held:
        places.leave(place)
        places.leave(place)  # who was ended says so once more
    assert len(places) == 0


def test_the_oldest_of_the_most_crowded_address_goes():
    places, gone = Places(BOUNDS), []
    for name in ("a0", "b0", "b1", "b2", "c0", "a1", "d0", "e0"):
        place = places.enter(f"192.0.2.{ord(name[0])}")
        place.end = lambda name=name: gone.append(name)
    places.enter("198.51.100.1").end = lambda: gone.append("new")
    assert gone == ["b0"]
    assert places.enter("192.0.2.98") is not None  # b has two again
    assert gone == ["b0", "a0"]
