"""What a process of the version before or after ours writes is read: numbers one apart, fields that we do not know."""

import json
from pathlib import Path

import pytest

from voicefleet_contract import http_api, registry, topology
from voicefleet_contract.hint import VERSION as HINT_VERSION
from voicefleet_contract.topology import Member, MemberState, Pool, Relay, Topology, TopologyIndex, TopologySlice, join
from voicefleet_operator.cluster.observe import observe_pool, observe_relay, observe_slice
from voicefleet_operator.handlers.store import FleetStore

ROOT = Path(__file__).parents[2]
MEMBER = {"slot": 1, "generation": 2, "address": "10.0.0.1", "port": 20001}
SLICE = {"cluster": 7, "pool": {"name": "agents", "ring_epoch": 3, "members": [MEMBER]}}
BEAT = {"slot": 1, "generation": 2, "pool": "agents", "state": "active", "sessions": 3, "capacity": 9, "at": 1.0}


def from_another_version(document: dict, version: int) -> str:
    """The same with another version and with fields of the future everywhere."""

    def grown(value):
        if isinstance(value, dict):
            return {**{key: grown(item) for key, item in value.items()}, "of_the_future": {"x": 1}}
        return [grown(item) for item in value] if isinstance(value, list) else value

    return json.dumps({**grown(document), "version": version})


@pytest.mark.parametrize("version", [topology.VERSION - 1, topology.VERSION + 1])
def test_a_slice_of_the_version_before_or_after_is_read(version: int):
    part = TopologySlice.load(from_another_version(SLICE, version))
    index = TopologyIndex(join([part, TopologySlice(cluster=7, relays=(Relay(name="fra-a"),))]))
    assert index.active("agents")[1].port == 20001
    observed = observe_slice(
        {"metadata": {"name": "pool-agents-0"}, "spec": json.loads(from_another_version(SLICE, version))}
    )
    assert observed.pool is not None and observed.pool.members[0].slot == 1


def test_slices_that_carry_their_own_ring_epochs_and_slices_that_all_carry_the_pools_mean_the_same():
    """The operator before this one wrote the pool's epoch into every slice."""
    members = [Member.model_validate({**MEMBER, "slot": slot}) for slot in (1, 300)]

    def joined(*epochs: int) -> Topology:
        parts = zip(epochs, members, strict=True)
        return join([TopologySlice(cluster=7, pool=Pool(name="p", ring_epoch=e, members=(m,))) for e, m in parts])

    assert joined(9, 9) == joined(9, 4) == joined(2, 9)


def test_a_member_that_is_out_or_on_probation_is_told_in_words_that_the_version_before_knows():
    out = Member.model_validate({**MEMBER, "state": "starting", "gray": True})
    known = json.loads(out.model_dump_json())
    known.pop("gray")  # what a reader without the field sees
    assert Member.model_validate(known).state is MemberState.STARTING
    assert {state.value for state in MemberState} == {"starting", "active", "draining", "gone"}, (
        "a new state makes readers of the version before refuse whole slices: release a reader first"
    )


@pytest.mark.parametrize("version", [registry.VERSION - 1, registry.VERSION + 1])
def test_records_of_the_version_before_or_after_are_read(version: int):
    beat = registry.Heartbeat.model_validate_json(json.dumps({**BEAT, "version": version, "of_the_future": {"x": 1}}))
    assert (beat.sessions, beat.media_up, beat.media_failed) == (3, 0, 0)  # it counts no media: it is never judged
    said = {"process": "agents-1-2", "topology_revision": 5, "ring_epochs": {"agents": 3}, "at": 1.0}
    text = json.dumps({**said, "version": version, "of_the_future": {"x": 1}})
    assert registry.Acknowledgement.model_validate_json(text).ring_epochs == {"agents": 3}


def test_the_control_api_takes_fields_that_it_does_not_know():
    candidate = {"address": "192.0.2.1", "port": 3478}
    request = {"request_id": "a" * 32, "offer": "v=0", "candidates": [candidate], "region": "", "relay": ""}
    assert http_api.CreateSession.model_validate({**request, "of_the_future": 1}).offer == "v=0"


def test_resources_of_a_newer_crd_are_read():
    metadata = {"name": "x", "uid": "u", "generation": 1}
    ports = {"min": 20000, "max": 20099, "ofTheFuture": 1}
    assert observe_pool({"metadata": metadata, "spec": {"ports": ports, "ofTheFuture": {}}}).spec.ports.size == 100
    location = {"region": "eu", "latitude": 1, "longitude": 2, "ofTheFuture": 1}
    assert observe_relay({"metadata": metadata, "spec": {"location": location}}).spec.location.region == "eu"


def test_settings_of_a_later_chart_are_named_and_left_out(caplog):
    """Else an operator that is rolled back would stand still beside the chart that came with the next one."""
    gateway = {"pool": "agents", "ofTheFuture": True}
    written = {"cluster": {"id": 7}, "dataplane": {"image": "x"}, "gateway": gateway, "ofTheFuture": {"a": 1}}
    made = FleetStore("voice", "voicefleet-fleet")
    metadata = {"name": "voicefleet-fleet", "uid": "c", "resourceVersion": "1"}
    made.take("ConfigMap", {"metadata": metadata, "data": {"fleet.json": json.dumps(written)}})
    assert made.config_problem == ""
    fleet = made.fleet()
    assert fleet is not None and fleet.config.gateway.pool == "agents"
    assert "gateway.ofTheFuture, ofTheFuture: not known to release" in caplog.text


def test_a_hint_has_room_for_versions_to_come():
    assert 0 <= HINT_VERSION < 7


def test_every_process_says_which_release_it_is_of(capsys, monkeypatch):
    from typer.testing import CliRunner

    from voicefleet_contract.release import release
    from voicefleet_dataplane.cli import app
    from voicefleet_operator.__main__ import main as operator
    from voicefleet_operator.handlers.metrics import LoopMetrics
    from voicefleet_operator.sessions_api.__main__ import main as sessions_api

    assert CliRunner().invoke(app, ["--version"]).output == f"voicefleet {release()}\n"
    monkeypatch.setattr("sys.argv", ["x", "--version"])
    operator()
    sessions_api()
    assert capsys.readouterr().out == f"voicefleet-operator {release()}\nvoicefleet-sessions-api {release()}\n"
    assert f'voicefleet_build_info{{release="{release()}"}} 1.0' in LoopMetrics().write()[0].decode()
    chart = (ROOT / "charts" / "voicefleet" / "Chart.yaml").read_text()
    assert f'appVersion: "{release()}"' in chart
