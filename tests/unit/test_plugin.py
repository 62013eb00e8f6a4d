"""`kubectl voicefleet`: what it says of a fleet that it was shown."""

import json

import pytest
from typer.testing import CliRunner

from tests.support.session_records import make_record
from voicefleet_contract.hint import Hint, encode_hint
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.topology import Endpoint, Member, MemberState, Pool, Relay, RelayState, Topology, TopologyIndex
from voicefleet_dataplane.core.gateway.geo import Place
from voicefleet_dataplane.plugin.app import app
from voicefleet_dataplane.plugin.fleet import FleetView
from voicefleet_dataplane.plugin.kubectl import Kubectl, KubectlError
from voicefleet_dataplane.plugin.placement import explain_placement
from voicefleet_dataplane.plugin.plan_scale import NoSuchPool, moved_share, plan_scale
from voicefleet_dataplane.plugin.status import report
from voicefleet_dataplane.plugin.trace import NotAName, trace
from voicefleet_operator.sessions_api.resource import voice_session

KEYS = KeyRing({1: b"k" * 32}, 1)


def member(slot: int, state: MemberState = MemberState.ACTIVE) -> Member:
    return Member(
        slot=slot,
        generation=0,
        name=f"agents-{slot}-0",
        node="node-a",
        address="10.0.0.1",
        port=20_000 + slot,
        state=state,
    )


def relay(name: str, region: str, latitude: float, state: RelayState = RelayState.ACTIVE) -> Relay:
    return Relay(
        name=name, relay=name, node="node-a", region=region, latitude=latitude, longitude=8.0, state=state,
        advertise=(Endpoint(address="203.0.113.1", port=3478),), inner=(Endpoint(address="10.0.0.1", port=3479),),
    )  # fmt: skip


def resource(kind: str, name: str, spec: dict, *conditions: tuple[str, str]) -> dict:
    said = [{"type": t, "status": s, "reason": "Because", "message": "of this"} for t, s in conditions]
    status = {"observedGeneration": 1, "readyReplicas": 3, "ports": "3/10", "conditions": said}
    return {"kind": kind, "metadata": {"name": name, "generation": 1}, "spec": spec, "status": status}


def pod(name: str, *, ready: bool = True, waiting: str = "") -> dict:
    state = {"waiting": {"reason": waiting, "message": "back-off"}} if waiting else {"running": {}}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": name, "labels": {}},
        "status": {"conditions": conditions, "containerStatuses": [{"state": state, "restartCount": 0}]},
    }


def fleet(*, sessions: int = 6, pods: list[dict] | None = None, **changes: object) -> FleetView:
    records = [make_record(number % 3, number, relay="fra") for number in range(sessions)]
    topology = Topology(
        cluster=7,
        relays=(relay("fra", "eu", 50.0), relay("nyc", "us", -20.0), relay("old", "eu", 51.0, RelayState.DRAINING)),
        pools=(Pool(name="agents", members=(*map(member, range(3)), member(9, MemberState.DRAINING))),),
    )
    values = {
        "relays": [resource("VoiceRelay", "fra", {"location": {"region": "eu"}}, ("Ready", "True"))],
        "pools": [
            resource(
                "Transceiver", "agents",
                {"replicas": 3, "capacity": {"sessions": 2}, "ports": {"min": 20000, "max": 20009}}, ("Ready", "True"),
            )
        ],
        "pods": pods if pods is not None else [pod(f"agents-{slot}-0") for slot in range(3)],
        "topology": TopologyIndex(topology),
        "topology_problem": "",
        "sessions": [voice_session(record, "voice", 1) for record in records],
        "sessions_problem": "",
    }  # fmt: skip
    return FleetView(**(values | changes))


def test_a_healthy_fleet_has_no_problem_and_a_row_for_each_resource():
    found = report(fleet())
    assert found.problems == []
    assert [row["relay"] for row in found.relays] == ["fra"]
    assert found.pools[0] | {"sessions": 6, "capacity": 6, "used": "100 %"} == found.pools[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pools": [resource("Transceiver", "agents", {"ports": {}}, ("PortsAllocated", "False"))]}, "PortsAllocated=False Because: of this"),
        ({"pools": [resource("Transceiver", "agents", {"ports": {}}, ("Stalled", "True"))]}, "Stalled=True"),
        ({"pods": [pod("agents-0-0", waiting="ImagePullBackOff")]}, "agents-0-0: ImagePullBackOff: back-off"),
        ({"topology": None, "topology_problem": "no slice"}, "no slice"),
        ({"pools": [], "relays": []}, "kubectl apply -f examples/fleet.yaml"),
    ],
)  # fmt: skip
def test_a_problem_is_said_in_its_own_words(changes, words):
    assert any(words in problem for problem in report(fleet(**changes)).problems)


def test_a_registry_that_is_away_is_a_note_and_no_problem():
    found = report(fleet(sessions=0, sessions_problem="the registry does not answer"))
    assert found.healthy
    assert any("registry does not answer" in note for note in found.notes)


def test_a_call_is_followed_to_its_node():
    record = make_record(1, 4, relay="fra")
    hops = trace(fleet(), record.call_id)
    assert [(hop.what, hop.mark) for hop in hops] == [
        ("call id", "ok"), ("session", "ok"), ("client", "ok"), ("relay", "ok"), ("owner", "ok"), ("node", "ok"),
    ]  # fmt: skip
    assert "203.0.113.1:3478" in hops[3].says
    assert "agents-1-0" in hops[4].says


def test_a_ufrag_leads_to_its_owner_though_it_names_no_call():
    ufrag = encode_hint(Hint(1, 7, 1, 0, 99), KEYS)
    marks = {hop.what: hop.mark for hop in trace(fleet(), f"{ufrag}:client")}
    assert (marks["owner"], marks["session"], marks["relay"]) == ("ok", "?", "?")


@pytest.mark.parametrize(
    ("call_id", "pods", "hop"),
    [
        (make_record(5, 1).call_id, None, "owner"),
        (make_record(1, 4).call_id, [], "owner"),
        (make_record(1, 4).call_id, [pod("agents-1-0", ready=False)], "owner"),
        (make_record(1, 4, cluster=8).call_id, None, "cluster"),
    ],
)
def test_what_contradicts_a_call_is_marked(call_id, pods, hop):
    assert {found.what: found.mark for found in trace(fleet(pods=pods), call_id)}[hop] == "no"


def test_what_names_nothing_is_refused():
    with pytest.raises(NotAName, match="neither a call id"):
        trace(fleet(), "nonsense")


def test_scaling_up_says_what_moves_and_what_it_needs():
    planned = plan_scale(fleet(), "agents", 4)
    assert (planned.now, planned.adds, planned.drains) == (3, (3,), ())
    assert 0.1 < planned.moved_share < 0.45
    assert (planned.ports_free, planned.ports_needed, planned.problems) == (7, 1, ())


def test_scaling_down_drains_the_emptiest_and_says_whether_the_rest_fits():
    planned = plan_scale(fleet(sessions=4), "agents", 2)  # slots hold 2, 1, 1
    assert planned.drains == ((2, "agents-2-0", 1),)
    assert planned.waiting_sessions == 1
    assert planned.problems == ()
    assert plan_scale(fleet(sessions=6), "agents", 2).problems


def test_nothing_moves_when_nothing_changes_and_everything_when_all_leave():
    weights = dict.fromkeys(range(5), 100)
    assert moved_share(weights, weights) == 0.0
    assert moved_share(weights, {}) == 1.0


def test_a_range_that_is_too_small_and_a_pool_that_is_not_there_are_said():
    assert any("widen spec.ports" in problem for problem in plan_scale(fleet(), "agents", 30).problems)
    with pytest.raises(NoSuchPool, match="agents"):
        plan_scale(fleet(), "agent", 3)


def test_placement_is_explained_relay_by_relay_and_member_by_member():
    rows = explain_placement(fleet(), "agents", Place(49.0, 8.0), "")
    assert [row["who"] for row in rows if row["step"].startswith("ingress")] == ["fra", "nyc"]
    assert next(row["why"] for row in rows if row["who"] == "old") == "it is draining"
    assert {row["who"] for row in rows if row["step"].startswith("owner")} == {f"agents-{slot}-0" for slot in range(3)}


class TestCommand:
    """The command line, over a kubectl that is a function."""

    @pytest.fixture
    def asked(self, monkeypatch):
        calls = []

        def run(self, *words):
            calls.append((self.namespace, *words))
            if words[0] == "annotate":
                return f"{words[1]} annotated\n"
            if "voicesessions" in words[1]:
                raise KubectlError("the server is currently unable to handle the request")
            return json.dumps({"items": []})

        monkeypatch.setattr(Kubectl, "run", run)
        return calls

    def test_status_of_an_empty_namespace_says_what_to_do_and_exits_1(self, asked):
        done = CliRunner().invoke(app, ["-n", "voice", "status"])
        assert done.exit_code == 1
        assert "kubectl apply -f examples/fleet.yaml" in done.output
        assert {call[0] for call in asked} == {"voice"}

    @pytest.mark.parametrize("form", ["json", "yaml"])
    def test_status_speaks_to_programs(self, asked, form):
        done = CliRunner().invoke(app, ["status", "-o", form])
        assert '"problems":' in done.output

    def test_a_drain_is_an_annotation_and_undrain_takes_it_away(self, asked):
        runner = CliRunner()
        runner.invoke(app, ["drain", "node/node-a", "--policy", "HangUp", "--deadline", "10m"])
        runner.invoke(app, ["undrain", "pool/agents"])
        assert asked == [
            ("", "annotate", "node/node-a", "voicefleet.dev/drain=HangUp 10m", "--overwrite"),
            ("", "annotate", "transceiver/agents", "voicefleet.dev/drain-"),
        ]

    @pytest.mark.parametrize(
        "words",
        [
            ["drain", "node-a"],
            ["drain", "service/x"],
            ["drain", "pod/x", "--deadline", "ten"],
            ["plan", "scale", "agents", "-1"],
        ],
    )
    def test_wrong_words_are_refused_before_anything_is_asked(self, asked, words):
        assert CliRunner().invoke(app, words).exit_code == 2
        assert asked == []
