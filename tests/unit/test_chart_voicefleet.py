"""The chart agrees with the code that reads what it writes. (That its templates render is checked with helm, in e2e.)"""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from voicefleet_contract.names import EXTERNAL_METRICS_API_SERVICE, SESSIONS_API_SERVICE
from voicefleet_contract.settings import GatewaySettings, OperatorSettings, SessionsApiSettings
from voicefleet_operator.cluster.api import _KINDS
from voicefleet_operator.cluster.credentials import _SECRETS
from voicefleet_operator.desired.config import CONFIG_KEY, FleetConfig
from voicefleet_operator.desired.objects import LABEL_FLEET

CHART = Path(__file__).parents[2] / "charts" / "voicefleet"
TEMPLATES = CHART / "templates"


def values() -> dict[str, Any]:
    return yaml.safe_load((CHART / "values.yaml").read_text())


def validate(changed: dict[str, Any]) -> None:
    jsonschema.validate(changed, json.loads((CHART / "values.schema.json").read_text()))


def with_value(path: str, value: Any) -> dict[str, Any]:
    changed = values()
    *parents, last = path.split(".")
    here = changed
    for parent in parents:
        here = here[parent]
    here[last] = value
    return changed


def test_the_default_values_fit_their_schema():
    validate(values())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cluster.id", 70000),
        ("cluster.id", "one"),
        ("gateway.latitude", 91),
        ("gateway.auth.allowAnonymousCalls", True),
        ("images.pullPolicy", "Sometimes"),
        ("operator.replicas", 0),
        ("gateway.pooll", "agents"),
        ("gateway.proxyProtocolFrom", "my-load-balancer"),
        ("gateway.maxUnprovedConnections", 0),
    ],
)
def test_a_wrong_or_misspelt_value_is_refused(path, value):
    with pytest.raises(jsonschema.ValidationError):
        validate(with_value(path, value))


def test_the_crds_are_those_of_the_top_level_folder():
    assert (CHART / "crds").resolve() == CHART.parents[1] / "crds"


def fields_of(model: Any, found: set[str]) -> set[str]:
    schema = model.model_json_schema(by_alias=True)
    for part in (schema, *schema.get("$defs", {}).values()):
        found |= set(part.get("properties", {}))
    return found


def test_every_field_of_the_fleet_config_that_the_chart_writes_is_one_that_the_operator_reads():
    text = (TEMPLATES / "fleet-config.yaml").read_text()
    written = set(re.findall(r'"(\w+)"\s+(?:\(|\.Values)', text)) | set(re.findall(r'set \$\w+\.\w+ "(\w+)"', text))
    assert {"cluster", "dataplane", "httpsSecret", "nodePort"} <= written
    assert written <= fields_of(FleetConfig, set())
    assert f"{CONFIG_KEY}:" in text
    assert f"{LABEL_FLEET}: config" in text


def test_a_gateway_has_a_memory_limit_and_the_bounds_that_the_chart_says():
    gateway = values()["gateway"]
    assert gateway["resources"]["limits"]["memory"] == "512Mi"
    settings = GatewaySettings(cluster_id=1)
    assert gateway["maxUnprovedConnections"] == settings.max_unproved_connections
    assert gateway["maxUnprovedConnectionsPerClient"] == settings.max_unproved_connections_per_client


def test_a_network_that_is_none_is_told_before_a_gateway_is_made():
    for field in ("proxyProtocolFrom", "trustedForwarders"):
        with pytest.raises(ValueError, match=rf"(?s)gateway.{field}.*10\.0\.0\.0/33.*write networks, for example"):
            FleetConfig.model_validate({"cluster": {"id": 1}, "gateway": {field: "10.0.0.0/33"}})


def test_the_operators_variables_are_settings_that_it_has():
    text = (TEMPLATES / "operator.yaml").read_text()
    known = {f"VOICEFLEET_{name.upper()}" for name in OperatorSettings.model_fields}
    assert set(re.findall(r"name: (VOICEFLEET_\w+)", text)) <= known


def roles() -> dict[str, list[dict[str, Any]]]:
    lines = [
        line for line in (TEMPLATES / "rbac.yaml").read_text().splitlines() if "{{" not in line or " name: " in line
    ]
    text = re.sub(r"\{\{.*?\}\}", "X", "\n".join(lines))
    documents = [document for document in yaml.safe_load_all(text) if document]
    return {
        f"{document['kind']}/{document['metadata']['name']}": document["rules"]
        for document in documents
        if "rules" in document
    }


def test_the_operator_may_touch_exactly_the_secrets_that_it_makes():
    rules = [rule for rule in roles()["Role/voicefleet-operator"] if rule["resources"] == ["secrets"]]
    named = [rule for rule in rules if "resourceNames" in rule]
    assert {name for rule in named for name in rule["resourceNames"]} == set(_SECRETS)
    assert [rule["verbs"] for rule in rules if "resourceNames" not in rule] == [["create"]]


SESSIONS_API_ONLY = {"Namespace", "SubjectAccessReview"}  # of the sessions API's own ClusterRole


def test_the_operator_may_touch_every_kind_that_it_speaks_of_and_outside_its_namespace_reads_nodes_and_pods():
    inside = {r for rule in roles()["Role/voicefleet-operator"] for r in rule["resources"]}
    outside = roles()["ClusterRole/voicefleet-operator-X"]
    elsewhere = {"Node", "APIService", *SESSIONS_API_ONLY}
    assert {plural for kind, (_, plural) in _KINDS.items() if kind not in elsewhere} <= inside
    assert outside == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["apiregistration.k8s.io"],
            "resources": ["apiservices"],
            "resourceNames": [SESSIONS_API_SERVICE, EXTERNAL_METRICS_API_SERVICE],
            "verbs": ["get", "patch"],
        },
    ]


def test_the_right_to_read_every_pod_comes_and_goes_with_the_setting_that_uses_it():
    text = (TEMPLATES / "rbac.yaml").read_text()
    assert re.search(r"if \.Values\.operator\.seeForeignPods \}\}\s+- apiGroups: \[\"\"\]\s+resources: \[pods\]", text)
    assert (
        "VOICEFLEET_SEE_FOREIGN_PODS, value: {{ .Values.operator.seeForeignPods"
        in (TEMPLATES / "operator.yaml").read_text()
    )


def test_the_sessions_api_gets_only_variables_that_it_knows():
    text = (TEMPLATES / "sessions-api.yaml").read_text()
    known = {f"VOICEFLEET_{name.upper()}" for name in SessionsApiSettings.model_fields}
    assert set(re.findall(r"name: (VOICEFLEET_\w+)", text)) <= known


def test_dataplane_roles_may_read_the_topology_and_a_relay_whether_it_is_deleted_and_nothing_else():
    assert roles()["Role/voicefleet-relay"] == [
        {"apiGroups": ["voicefleet.dev"], "resources": ["voicerelays"], "verbs": ["get"]}
    ]
    assert roles()["Role/voicefleet-topology-reader"] == [
        {"apiGroups": ["voicefleet.dev"], "resources": ["topologyslices"], "verbs": ["get", "list", "watch"]}
    ]


@pytest.mark.parametrize("path", sorted((CHART / "templates").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_pod_carries_the_charts_version(path: Path):
    """Redis would restart with each release of the chart, and with it the flow cache: e2e/test_versions.py saw it."""
    templates = re.findall(r"\n  template:\n    metadata:\n((?:      .*\n)+?)    spec:", path.read_text())
    assert len(templates) == path.read_text().count("\n  template:\n")
    for metadata in templates:
        assert '"voicefleet.podLabels"' in metadata
        assert '"voicefleet.labels"' not in metadata
        assert ".Chart" not in metadata
