"""What the fleet view shows, in which order, and to whom."""

import json
from pathlib import Path

import pytest
import redis

from tests.support.gateway_world import AUTHORISED, KEY, fleet
from voicefleet_contract.registry import Heartbeat, heartbeat_key
from voicefleet_contract.topology import Endpoint, Member, MemberState, Pool, Relay, RelayState, Topology
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.core.gateway.fleet_view import MOST_SHOWN, fleet_view
from voicefleet_dataplane.shell.gateway.api.fleet import FLEET_PATH

KEY_NAME = "dev"


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    return directory


def member(slot: int, **fields) -> Member:
    return Member(
        slot=slot, generation=1, name=f"agents-{slot}", node="n", address="10.0.0.1", port=20_000 + slot, **fields
    )


def beat(slot: int, sessions: int, **fields) -> Heartbeat:
    known = {"generation": 1, "pool": "agents", "state": "active", "capacity": 50, "at": 0.0}
    return Heartbeat(slot=slot, sessions=sessions, **(known | fields))


def topology(*members: Member, relays: tuple[Relay, ...] = ()) -> Topology:
    return Topology(cluster=7, revision=3, relays=relays, pools=(Pool(name="agents", members=members),))


def test_problems_come_first_and_what_is_gone_is_not_there() -> None:
    members = (
        member(1), member(2, state=MemberState.DRAINING), member(3, gray=True), member(4), member(5, state=MemberState.GONE),
    )  # fmt: skip
    beats = {(slot, 1): beat(slot, slot) for slot in (1, 2, 3)}
    (pool,) = fleet_view(topology(*members), beats)["pools"]
    assert [one["slot"] for one in pool["members"]] == [2, 3, 4, 1]  # 4 is silent
    assert (pool["sessions"], pool["capacity"], pool["count"]) == (6, 150, 4)
    assert pool["members"][2]["sessions"] is None


def test_capacity_is_that_of_members_that_take_calls() -> None:
    members = (member(1), member(2, state=MemberState.DRAINING))
    beats = {(1, 1): beat(1, 10), (2, 1): beat(2, 30, state="draining")}
    (pool,) = fleet_view(topology(*members), beats)["pools"]
    assert (pool["sessions"], pool["capacity"]) == (40, 50)


def test_a_large_fleet_is_shown_in_part_and_counted_whole() -> None:
    relays = tuple(
        Relay(
            name=f"r{number:04}", relay="fra", region="eu", advertise=(Endpoint(address="192.0.2.1", port=3478),),
            inner=(Endpoint(address="10.0.0.1", port=3479),),
            state=RelayState.ACTIVE if number else RelayState.DRAINING,
        )
        for number in range(300)
    )  # fmt: skip
    shown = fleet_view(topology(*map(member, range(1000)), relays=relays[::-1]), {})
    assert shown["relays"]["count"] == 300
    assert len(shown["relays"]["shown"]) == MOST_SHOWN
    assert shown["relays"]["shown"][0]["name"] == "r0000"
    assert shown["pools"][0]["count"] == 1000
    assert len(shown["pools"][0]["members"]) == MOST_SHOWN
    assert shown["pools"][0]["sessions"] is None  # unknown is not none


class FakeRegistry:
    """Answers GETs from a dict, or fails."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values, self.asked, self.fails = values, 0, False

    async def execute(self, commands):
        self.asked += 1
        if self.fails:
            raise redis.ConnectionError
        return [self.values.get(key) for _, key in commands]


async def test_only_named_keys_see_it_and_many_looks_are_one_reading(secrets_dir: Path) -> None:
    registry = FakeRegistry({heartbeat_key(7, 1, 1): beat(1, 5).model_dump_json(), heartbeat_key(7, 2, 1): "{not ours"})
    async with fleet(secrets_dir, registry=registry, fleet_view_keys=KEY_NAME) as f:
        assert (await f.http.get(FLEET_PATH, headers=AUTHORISED)).json()["error"]["code"] == "no_topology"
        f.publish(member(1), member(2))
        for _ in range(3):
            response = await f.http.get(FLEET_PATH, headers=AUTHORISED)
            assert response.status_code == 200
            assert [pool["sessions"] for pool in response.json()["pools"]] == [5, None]
        assert registry.asked == 1
        assert (await f.http.get(FLEET_PATH)).status_code == 401
    async with fleet(secrets_dir, fleet_view_keys="another") as f:
        f.publish(member(1))
        response = await f.http.get(FLEET_PATH, headers=AUTHORISED)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "fleet_view_not_allowed")


@pytest.mark.parametrize("away", [True, False])
async def test_without_loads_the_fleet_is_shown_and_says_why(secrets_dir: Path, away: bool) -> None:
    registry = FakeRegistry({})
    registry.fails = True
    async with fleet(secrets_dir, registry=registry if away else None, fleet_view_keys=KEY_NAME) as f:
        f.publish(member(1))
        shown = (await f.http.get(FLEET_PATH, headers=AUTHORISED)).json()
        assert ("does not answer" if away else "no registry") in shown["registry"]
        assert shown["pools"][0]["members"][0]["sessions"] is None


async def test_the_page_is_whole_cached_and_lets_nobody_elses_script_in(secrets_dir: Path) -> None:
    async with fleet(secrets_dir) as f:
        page = await f.http.get("/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        for name, kind in (("page.css", "text/css"), ("main.js", "text/javascript"), ("call.js", "text/javascript")):
            file = await f.http.get(f"/page/{name}")
            assert (file.status_code, file.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
            again = await f.http.get(f"/page/{name}", headers={"If-None-Match": file.headers["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
        for nothing in ("/page/__init__.py", "/page/..%2Fcli.py", "/page/"):
            assert (await f.http.get(nothing)).status_code == 404
    async with fleet(secrets_dir, page=False) as f:
        assert (await f.http.get("/")).status_code == 404


def test_the_view_is_json() -> None:
    json.dumps(fleet_view(topology(member(1)), {(1, 1): beat(1, 1)}))
