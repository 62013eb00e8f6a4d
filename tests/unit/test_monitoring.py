"""Alerts and dashboards speak of metrics that processes really serve, and every alert has a runbook."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from tests.support.transceiver import World
from voicefleet_dataplane.shell.gateway.metrics import GatewayMetrics
from voicefleet_dataplane.shell.transceiver.metrics import TransceiverMetrics
from voicefleet_operator.sessions_api.hub import Hub
from voicefleet_operator.sessions_api.metrics import Metrics
from voicefleet_operator.sessions_api.registry import SessionRegistry

ROOT = Path(__file__).parents[2]
FILES = ROOT / "charts" / "voicefleet" / "files"
ALERTS = [rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
DASHBOARDS = sorted((FILES / "dashboards").glob("*.json"))
# Of Prometheus itself, and of processes whose registry cannot be made without a cluster or a kernel: their source names them.
PROMETHEUS = {"up"}
SOURCES = ("operator/voicefleet_operator", "dataplane/voicefleet_dataplane/shell/relay/metrics.py")


def served() -> set[str]:
    registry = SessionRegistry(None, 7)
    registries = [
        TransceiverMetrics("agents", World().core, lambda: 0, {}, dict).registry,
        GatewayMetrics().registry,
        Metrics(registry, Hub(registry)).registry,
    ]
    return {name for one in registries for name in names_of(one)}


def names_of(registry: CollectorRegistry) -> Iterable[str]:
    for family in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        yield from (family.name + suffix for suffix in suffixes)


def from_source(name: str) -> bool:
    """A name that is put together in the source: its last words after a prefix."""
    bare = re.sub(r"_(total|bucket|count|sum)$", "", name)
    words = {bare, bare.removeprefix("voicefleet_relay_"), bare.removeprefix("voicefleet_operator_")}
    files = [
        path
        for source in SOURCES
        for path in ([ROOT / source] if source.endswith(".py") else (ROOT / source).rglob("*.py"))
    ]
    text = "\n".join(path.read_text() for path in files)
    return any(re.search(rf'["}}]{re.escape(word)}["_]', text) for word in words)


def metrics_in(expression: str) -> set[str]:
    without_labels = re.sub(r"\{[^}]*\}", "", expression)
    without_groups = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", without_labels)
    words = set(re.findall(r"\b[a-z_][a-z0-9_]*\b(?!\s*\()", without_groups))
    return {word for word in words if word.startswith("voicefleet_") or word in PROMETHEUS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_speaks_of_metrics_that_are_served_and_has_a_runbook(rule):
    names = metrics_in(rule["expr"])
    assert names
    known = served()
    unknown = {name for name in names - PROMETHEUS - known if not from_source(name)}
    assert unknown == set()
    assert f"\n## {rule['alert']}\n" in (ROOT / "docs" / "runbooks.md").read_text()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_speaks_of_metrics_that_are_served(path):
    known = served()
    expressions = [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    assert expressions
    for expression in expressions:
        names = metrics_in(expression)
        assert names
        assert {name for name in names - known if not from_source(name)} == set(), expression


def test_a_name_that_nobody_serves_is_noticed():
    assert "voicefleet_relay_nonsense_total" not in served()
    assert not from_source("voicefleet_relay_nonsense_total")


def test_every_runbook_belongs_to_an_alert():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in ALERTS]


def test_metric_labels_are_bounded():
    """No label of a session: a million of them would be a million series."""
    registry = TransceiverMetrics("agents", World().core, lambda: 0, {}, dict).registry
    labels = {label for family in registry.collect() for sample in family.samples for label in sample.labels}
    assert labels <= {"pool", "stage", "le", "reason", "destination", "outcome", "release"}
