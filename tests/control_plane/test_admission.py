"""What the API server refuses of our resources, with the field and the fix, and what it takes: CRDs and CEL alone."""

from typing import Any

import pytest

from e2e.bare.plane import BareControlPlane

PORTS = {"min": 20000, "max": 20010}
MEDIA_STREAM = {
    "type": "MediaStream",
    "url": "ws://agent.voice.svc:9000/",
    "network": "Private",
    "secretRef": {"name": "agent", "key": "token"},
}
PIPELINE = {
    "type": "Pipeline",
    "url": "http://hook.voice.svc:8000/v1/chat/completions",
    "network": "Private",
    "secretRef": {"name": "hook", "key": "token"},
    "pipeline": {"text": {"timeout": "5s"}},
}
RELAY = {
    "location": {"region": "eu-central", "latitude": 50.11, "longitude": 8.68},
    "port": 3478,
    "advertise": {"from": "NodeInternalIP"},
    "placement": {"nodeSelector": {"voicefleet.dev/relay": "true"}},
}


def applied(plane: BareControlPlane, kind: str, spec: dict[str, Any]) -> tuple[int, str]:
    """Status and words of the API server, which keeps nothing."""
    body = {"apiVersion": "voicefleet.dev/v1alpha1", "kind": kind, "metadata": {"name": "one"}, "spec": spec}
    path = f"/apis/voicefleet.dev/v1alpha1/namespaces/default/{kind.lower()}s?dryRun=All"
    status, said = plane.request("POST", path, body)
    return status, said.get("message", "")


def refused(plane: BareControlPlane, kind: str, spec: dict[str, Any]) -> str:
    status, said = applied(plane, kind, spec)
    assert status == 422, said
    return said


def pool_of(backend: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A pool whose backend has other fields; None: it lacks one."""
    return {"ports": PORTS, "backend": {key: value for key, value in (backend | changes).items() if value is not None}}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"ports": {"min": 20000, "max": 19000}}, "spec.ports: min must not exceed max"),
        ({"ports": {"min": 20, "max": 10}}, "spec.ports: numbers from 1024 to 65535"),
        ({"ports": PORTS, "backend": {"type": "MediaStream"}}, "spec.backend.url: every type but Echo needs it"),
        ({"ports": PORTS, "backend": {"type": "Parrot"}}, 'supported values: "Echo"'),
        ({}, "spec.ports: Required value"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_field_and_the_fix(
    plane: BareControlPlane, spec: dict[str, Any], says: str
) -> None:
    assert says in refused(plane, "Transceiver", spec)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": None, "secretRef": None}, "spec.backend.url: every type but Echo needs it"),
        ({"type": "Echo"}, "spec.backend.url: every type but Echo needs it, Echo takes none"),
        ({"url": "https://agent.example.com/"}, "spec.backend.url: a WebSocket URL"),
        ({"url": "wss://user:secret@agent.example.com/"}, "spec.backend.url: a WebSocket URL without user name"),
        ({"network": None, "secretRef": None}, "spec.backend.network: the host of url is a Service of this cluster"),
        (
            {"network": None, "url": "ws://agent.example.com/"},
            "spec.backend.url: the key of secretRef would travel in the clear",
        ),
        (
            {"network": None, "secretRef": None, "url": "ws://agent:9000/"},
            "spec.backend.network: the host of url is a Service",
        ),
        ({"profile": "vLLM"}, "spec.backend.profile: only OpenAIRealtime has dialects"),
        ({"network": "Loopback"}, "Unsupported value"),
        ({"connectTimeout": "1h"}, "spec.backend.connectTimeout: a duration from 100ms to 60s"),
        ({"reconnectTimeout": "soon"}, "spec.backend.reconnectTimeout: a duration"),
        ({"fallbackUrls": ["ftp://x/"]}, "a WebSocket URL"),
    ],
)
def test_of_an_agents_address_it_names_the_field_and_the_fix(
    plane: BareControlPlane, changes: dict[str, Any], said: str
) -> None:
    assert said in refused(plane, "Transceiver", pool_of(MEDIA_STREAM, changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": None, "secretRef": None}, "a Pipeline needs it for its text handler Hook"),
        ({"url": "ftp://hook/"}, "a Pipeline takes an HTTP URL too"),
        ({"type": "OpusStream", "pipeline": None}, "only a Pipeline asks over HTTP"),
        (
            {"type": "OpusStream", "url": "ws://hook.voice.svc:1/"},
            "spec.backend.pipeline: only type Pipeline has stages",
        ),
        ({"network": None, "secretRef": None}, "spec.backend.network: the host of url is a Service"),
        ({"network": None, "url": "http://api.example.com/"}, "the key of secretRef would travel in the clear"),
        ({"pipeline": {"text": {"timeout": "1h"}}}, "spec.backend.pipeline.text.timeout: a duration"),
        ({"pipeline": {"speechToText": {"timeout": "soon"}}}, "spec.backend.pipeline.speechToText.timeout: a duration"),
        ({"pipeline": {"textToSpeech": {"engine": "a b"}}}, "should match"),
        ({"pipeline": {"processes": 0}}, "greater than or equal to 1"),
        ({"pipeline": {"onFailure": "Panic"}}, "Unsupported value"),
    ],
)
def test_of_a_pipelines_stages_it_names_the_field_and_the_fix(
    plane: BareControlPlane, changes: dict[str, Any], said: str
) -> None:
    assert said in refused(plane, "Transceiver", pool_of(PIPELINE, changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datapath": "Auto", "workers": 2}, "set spec.datapath to Userspace"),
        ({"datapath": "Userspace", "innerPort": 3470, "workers": 9}, "choose another innerPort"),
    ],
)
def test_workers_beside_a_kernel_path_and_on_the_public_port_are_refused_with_what_to_do(
    plane: BareControlPlane, changes: dict[str, Any], said: str
) -> None:
    assert said in refused(plane, "VoiceRelay", RELAY | changes)


@pytest.mark.parametrize(
    ("backend", "changes"),
    [
        (MEDIA_STREAM, {"onFailure": "Reconnect"}),
        (MEDIA_STREAM, {"url": "wss://[2001:db8::1]:443/", "network": None}),
        (
            MEDIA_STREAM,
            {
                "url": "wss://api.example.com/v1/realtime?model=m",
                "network": None,
                "type": "OpenAIRealtime",
                "profile": "OpenAI",
            },
        ),
        (PIPELINE, {"url": None, "secretRef": None, "network": None, "pipeline": {"text": {"handler": "Repeat"}}}),
        (PIPELINE, {"network": None, "url": "https://api.example.com/v1/chat/completions"}),
        (PIPELINE, {"url": "ws://hook.voice.svc:8000/"}),
        (PIPELINE, {"pipeline": None}),
    ],
)
def test_it_takes_what_the_guides_show(
    plane: BareControlPlane, backend: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert applied(plane, "Transceiver", pool_of(backend, changes)) == (201, "")


def test_it_takes_the_relay_that_the_stories_above_spoil(plane: BareControlPlane) -> None:
    assert applied(plane, "VoiceRelay", RELAY) == (201, "")
