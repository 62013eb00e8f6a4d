"""A pool's backend, from the resource to what its pods read."""

from tests.support.fleet_world import CONFIG, pool
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_operator.desired.config import PipelineImage
from voicefleet_operator.desired.pool.pod import pool_template, transceiver_pod
from voicefleet_operator.desired.pool.steps import Create

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
    "warmConnections": 3,
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
    assert settings.backend_warm_connections == 3


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


PIPELINE = {
    "type": "Pipeline",
    "url": "https://brain.example.com/v1/chat/completions",
    "pipeline": {
        "voiceActivity": {"engine": "WebRTC"},
        "speechToText": {"timeout": "4s"},
        "text": {"model": "tiny", "timeout": "8s"},
        "textToSpeech": {"engine": "EspeakNG", "voice": "de"},
        "processes": 2,
        "utterancesPerProcess": 3,
        "onFailure": "HangUp",
    },
}


def test_a_pipelines_stages_reach_its_pods():
    settings = settings_of(pod(**PIPELINE))
    assert (settings.backend, settings.backend_url) == ("Pipeline", PIPELINE["url"])
    assert (settings.pipeline_voice_activity, settings.pipeline_speech_to_text) == ("WebRTC", "PocketSphinx")
    assert (settings.pipeline_text, settings.pipeline_text_model) == ("Hook", "tiny")
    assert (settings.pipeline_text_to_speech, settings.pipeline_voice) == ("EspeakNG", "de")
    assert (settings.pipeline_speech_to_text_timeout_s, settings.pipeline_text_timeout_s) == (4.0, 8.0)
    assert (settings.pipeline_processes, settings.pipeline_utterances) == (2, 3)
    assert settings.pipeline_hang_up_on_failure


def test_a_pipeline_asks_for_what_its_engines_take_and_gets_the_image_that_has_them():
    config = CONFIG.model_copy(update={"pipeline": PipelineImage(image="engines:1")})
    (container,) = transceiver_pod(config, "voice", pool(backend=PIPELINE), CREATE)["spec"]["containers"]
    assert container["image"] == "engines:1"
    assert container["resources"]["requests"] == {"cpu": "1100m", "memory": "1152Mi"}
    (container,) = transceiver_pod(config, "voice", pool(backend=AGENT), CREATE)["spec"]["containers"]
    assert container["image"] == CONFIG.dataplane.image
    own = pool(backend=PIPELINE, image="mine:2")
    (container,) = transceiver_pod(config, "voice", own, CREATE)["spec"]["containers"]
    assert container["image"] == "mine:2"


def test_another_image_of_engines_replaces_the_pods_of_pipelines_and_no_others():
    config = CONFIG.model_copy(update={"pipeline": PipelineImage(image="engines:1")})
    assert pool_template(config, pool(backend=PIPELINE)) != pool_template(CONFIG, pool(backend=PIPELINE))
    assert pool_template(config, pool(backend=AGENT)) == pool_template(CONFIG, pool(backend=AGENT))
