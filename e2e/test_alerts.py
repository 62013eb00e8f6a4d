"""A real Prometheus scrapes the fleet as the chart's PodMonitors say, and its alerts fire when a relay goes away."""

import asyncio
import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from e2e.fleet import NAMESPACE, RELAY_LABEL, ROOT, Fleet
from e2e.kube import eventually
from e2e.talk import holding

PORT = 19_090
API = f"http://127.0.0.1:{PORT}/api/v1"


def rendered(fleet: Fleet) -> list[Any]:
    """The chart's monitoring objects, as Helm writes them."""
    options = [f"monitoring.{name}=true" for name in ("podMonitors", "alerts", "dashboards")]
    text = fleet.helm(
        "template", "voicefleet", str(ROOT / "charts" / "voicefleet"), "--namespace", NAMESPACE,
        "--set", ",".join(options), "--show-only", "templates/monitoring.yaml",
    )  # fmt: skip
    return [document for document in yaml.safe_load_all(text) if document]


def scrape_config(fleet: Fleet, monitor: Any, directory: Path) -> dict[str, Any]:
    """What the Prometheus operator would make of a PodMonitor: here with the pods of this moment."""
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    selector = ",".join(f"{key}={value}" for key, value in monitor["spec"]["selector"]["matchLabels"].items())
    component = monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
    targets = []
    for pod in fleet.kube.pods(selector):
        ports = [port for c in pod["spec"]["containers"] for port in c["ports"] if port["name"] == endpoint["port"]]
        labels = {"component": component, "pod": pod["metadata"]["name"], "node": pod["spec"]["nodeName"]}
        targets.append({"targets": [f"{pod['status']['podIP']}:{ports[0]['containerPort']}"], "labels": labels})
    config: dict[str, Any] = {"job_name": monitor["metadata"]["name"], "static_configs": targets}
    if "tlsConfig" in endpoint:
        tls = endpoint["tlsConfig"]
        names = {"ca_file": tls["ca"], "cert_file": tls["cert"], "key_file": {"secret": tls["keySecret"]}}
        config["scheme"] = endpoint["scheme"]
        config["tls_config"] = {"server_name": tls["serverName"]}
        for field, reference in names.items():
            path = directory / reference["secret"]["key"]
            path.write_bytes(fleet.kube.secret(reference["secret"]["name"])[reference["secret"]["key"]])
            config["tls_config"][field] = str(path)
    return config


@contextlib.contextmanager
def prometheus(fleet: Fleet) -> Iterator[None]:
    """Debian's Prometheus on this machine, until the end of the story."""
    objects = rendered(fleet)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        [rules] = [one["spec"] for one in objects if one["kind"] == "PrometheusRule"]
        (directory / "alerts.yaml").write_text(yaml.safe_dump(rules))
        subprocess.run(["promtool", "check", "rules", str(directory / "alerts.yaml")], check=True)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [scrape_config(fleet, one, directory) for one in objects if one["kind"] == "PodMonitor"],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        argv = [
            *("prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"),
            *(f"--web.listen-address=127.0.0.1:{PORT}", "--log.level=warn"),
        ]
        with subprocess.Popen(argv) as process:
            try:
                yield
            finally:
                process.terminate()


def ask(what: str) -> Any:
    return httpx.get(f"{API}/{what}", trust_env=False, timeout=5).json()["data"]


def value(query: str) -> float | None:
    found = httpx.get(f"{API}/query", params={"query": query}, trust_env=False, timeout=5).json()["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def firing() -> set[str]:
    return {alert["labels"]["alertname"] for alert in ask("alerts")["alerts"] if alert["state"] == "firing"}


async def test_prometheus_reads_every_process_and_an_alert_fires_when_a_relay_goes(fleet: Fleet) -> None:
    with prometheus(fleet):

        def all_up() -> bool:
            targets = ask("targets")["activeTargets"]
            assert {target["labels"]["component"] for target in targets} == {
                "relay", "transceiver", "gateway", "operator", "sessions",
            }  # fmt: skip
            return all(target["health"] == "up" for target in targets)

        await asyncio.to_thread(eventually, "every process is scraped", all_up, 60.0)
        async with holding(fleet, 1):
            await asyncio.to_thread(
                eventually,
                "the call is counted",
                lambda: value('sum(voicefleet_transceiver_sessions{pool="agents"})'),
                30.0,
            )
            await asyncio.to_thread(
                eventually, "the pool is counted", lambda: value('max(voicefleet_pool_sessions{pool="agents"})'), 30.0
            )
        assert "VoicefleetRelayDown" not in firing()
        node = fleet.relays()[0]["spec"]["nodeName"]
        fleet.kube.run("label", "node", node, f"{RELAY_LABEL}-", namespaced=False)
        try:
            await asyncio.to_thread(eventually, "an alert for it", lambda: "VoicefleetRelayDown" in firing(), 90.0)
        finally:
            fleet.kube.run("label", "node", node, f"{RELAY_LABEL}=true", "--overwrite", namespaced=False)
        await asyncio.to_thread(eventually, "no alert any more", lambda: "VoicefleetRelayDown" not in firing(), 90.0)
    fleet.wait_ready()


def test_the_monitoring_certificate_opens_metrics_and_nothing_else(fleet: Fleet) -> None:
    from e2e.talk import control

    pod = fleet.transceivers()[0]
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        control(fleet, pod, "/v1/status", certificate="monitoring")


def test_dashboards_come_as_grafana_reads_them(fleet: Fleet) -> None:
    [found] = [one for one in rendered(fleet) if one["kind"] == "ConfigMap"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {json.loads(text)["title"] for text in found["data"].values()} == {"voicefleet: fleet", "voicefleet: relays"}
