"""A pool's backend, from the resource to what its pods read."""

from tests.support.fleet_world import CONFIG, pool
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_operator.desired.transceiver import Create
from voicefleet_operator.desired.transceiver_pod import pool_template, transceiver_pod

CREATE = Create("agents", 1, 1, 20_000)
AGENT = {
    "type": "OpenAIRealtime",
    "url": "wss://api.example.com/v1/realtime?model=m",
    "fallbackUrls": ["wss://other.example.com/", "wss://third.example.com/?a=1,2"],
    "secretRef": {"name": "agent-key", "key": "token"},
    "profile": "OpenAIBeta",
    "connectTimeout": "3s",
    "onFailure": "Reconnect",
    "reconnectTimeout": "20s",
}


def pod(**backend):
    return transceiver_pod(CONFIG, "voice", pool(backend=backend), CREATE)


def settings_of(made) -> TransceiverSettings:
    variables = {one["name"]: one.get("value", "10.0.0.1") for one in made["spec"]["containers"][0]["env"]}
    return TransceiverSettings.from_environment(variables)


def test_a_pod_reads_what_the_resource_says():
    settings = settings_of(pod(**AGENT))
    assert settings.backend == "OpenAIRealtime"
    assert settings.backend_url == AGENT["url"]
    assert settings.backend_fallback_urls.split() == AGENT["fallbackUrls"]
    assert settings.backend_profile == "OpenAIBeta"
    assert settings.backend_network == "Public"
    assert (settings.backend_connect_timeout_s, settings.backend_reconnect_s) == (3.0, 20.0)


def test_a_pool_that_hangs_up_does_not_look_for_a_lost_agent():
    assert settings_of(pod(**AGENT | {"onFailure": "HangUp"})).backend_reconnect_s == 0


def test_a_pod_sees_the_one_key_that_it_needs_as_a_file():
    made = pod(**AGENT)
    (volume,) = (one for one in made["spec"]["volumes"] if one["name"] == "backend")
    assert volume["secret"]["secretName"] == "agent-key"
    assert volume["secret"]["items"] == [{"key": "token", "path": "key"}]
    (mount,) = (one for one in made["spec"]["containers"][0]["volumeMounts"] if one["name"] == "backend")
    assert mount["readOnly"]
    assert settings_of(made).backend_key_file == mount["mountPath"] + "/key"
    assert "agent-key" not in str(made["spec"]["containers"][0]["env"])


def test_a_pod_without_an_agent_has_neither_url_nor_key():
    made = pod(type="Echo")
    assert "backend" not in {one["name"] for one in made["spec"]["volumes"]}
    assert settings_of(made).backend == "Echo"


def test_another_backend_replaces_the_pods():
    assert pool_template(CONFIG, pool(backend=AGENT)) != pool_template(
        CONFIG, pool(backend=AGENT | {"url": "wss://x/"})
    )
