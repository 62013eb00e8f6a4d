"""What pods were made from, in digests that the operator before this one wrote: an upgrade of the operator replaces no pod.

**A digest here may not change.** If one does, every pod of every fleet is replaced by the next operator upgrade. A field that
is new is left out of the digest while nobody has set it; a default that changes is a value that stored objects have
written out (the API server fills defaults in when an object is made), so the digest must go on leaving out the old one.
"""

from dataclasses import replace

import pytest

from tests.support.fleet_world import CONFIG, empty_fleet, pool, relay
from voicefleet_operator.desired.config import FleetConfig, Gateway
from voicefleet_operator.desired.gateway import gateway_objects
from voicefleet_operator.desired.objects import ANNOTATION_DIGEST
from voicefleet_operator.desired.pool.pod import pool_template
from voicefleet_operator.desired.relay.daemonset import relay_digest

# As the API server stores a spec in which nobody said anything.
STORED = {
    "capacity": {"sessions": 400},
    "session": {"maxDuration": "60m", "idleTimeout": "60s"},
    "backend": {
        "type": "Echo",
        "network": "Public",
        "onFailure": "HangUp",
        "connectTimeout": "5s",
        "reconnectTimeout": "10s",
        "warmConnections": 1,
    },
    "drain": {"deadline": "60m", "policy": "Wait"},
    "rollout": {"maxSurge": 1, "maxUnavailable": 0, "minReady": "10s"},
    "placement": {},
    "resources": {},
}
CHANGED = {
    "capacity": {"sessions": 50},
    "session": {"maxDuration": "30m", "idleTimeout": "60s"},
    "backend": {"type": "OpenAIRealtime", "url": "wss://a.example/", "secretRef": {"name": "s", "key": "k"}},
    "placement": {"nodeSelector": {"zone": "a"}},
    "resources": {"requests": {"cpu": "1"}},
    "image": "voicefleet:2",
}
RELAY_STORED = {
    "port": 3478,
    "innerPort": 3479,
    "advertise": {"from": "NodeInternalIP"},
    "datapath": "Auto",
    "flows": {"idleTimeout": "30s", "max": 200_000},
    "drain": {"deadline": "60m"},
}
FULL = FleetConfig.model_validate(
    {
        "cluster": {"id": 7, "name": "x"},
        "dataplane": {"image": "voicefleet:1", "pullSecrets": ["p"], "logLevel": "debug", "priorityClassName": "high"},
        "redis": {"url": "redis://r:6379/0", "passwordSecret": "r"},
        "callRecords": {"stream": True, "webhookUrl": "https://h.example/", "webhookSecret": "w"},
        "tracing": {"otlpEndpoint": "http://o:4318"},
    }
)


def test_gateways_are_not_replaced_by_another_operator():
    plain = CONFIG.model_copy(update={"gateway": Gateway()})
    full = FULL.model_copy(update={"gateway": GATEWAY})
    assert gateway_digests(plain) == ["043e0bdb455183e0", "39db6366f1770e99", "5845b56f88cfb872"]
    assert gateway_digests(full) == ["748089096034f1bf", "783ca2be8e0b03f2", "5845b56f88cfb872"]
    set_by_somebody = plain.model_copy(update={"gateway": Gateway(page=False)})
    assert gateway_digests(set_by_somebody)[0] != "043e0bdb455183e0"


def gateway_digests(config: FleetConfig) -> list[str]:
    made = gateway_objects(replace(empty_fleet(), config=config))
    return [manifest["metadata"]["annotations"][ANNOTATION_DIGEST] for manifest in made]


GATEWAY = Gateway.model_validate(
    {
        "replicas": 3,
        "pool": "agents",
        "service": {"type": "NodePort", "nodePort": 30443},
        "allowAnonymousCalls": True,
        "placement": {"nodeSelector": {"a": "b"}},
    }
)


@pytest.mark.parametrize(
    ("config", "spec", "was"),
    [
        (CONFIG, {}, "0a0932d5da3ec843"),
        (CONFIG, STORED, "0a0932d5da3ec843"),
        (CONFIG, CHANGED, "a304a82824626e7a"),
        (FULL, STORED, "4ac2ac731dc855f6"),
    ],
)
def test_a_pools_pods_are_not_replaced_by_another_operator(config, spec, was):
    assert pool_template(config, pool(**spec)) == was


@pytest.mark.parametrize(
    ("config", "spec", "was"),
    [
        (CONFIG, {}, "0a0932d5da3ec843"),
        (CONFIG, RELAY_STORED, "0a0932d5da3ec843"),
        (CONFIG, {**RELAY_STORED, "datapath": "Userspace", "workers": 4, "flows": {"max": 5}}, "23c173cbfb955701"),
        (FULL, RELAY_STORED, "c40fc126da864d91"),
    ],
)
def test_relays_are_not_replaced_by_another_operator(config, spec, was):
    assert relay_digest(config, relay(**spec)) == was
