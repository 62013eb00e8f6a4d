"""The fleet's settings → the gateway: a Deployment and a Service, owned by the ConfigMap that asks for them.

Gateways hold no state and need no host network: they run under the restricted Pod Security Standard.
"""

from voicefleet_contract import names
from voicefleet_contract.settings import GatewaySettings
from voicefleet_operator.desired import objects
from voicefleet_operator.desired.state import Component, Fleet, Manifest

NAME = "voicefleet-gateway"
# Settings that digests had from the first release on.
_FIRST = frozenset(
    {
        *("enabled", "pool", "region", "latitude", "longitude", "https_secret", "api_keys_secret"),
        *("allow_anonymous_calls", "trusted_forwarders", "placement", "resources"),
    }
)
_NO_POD_READS = frozenset({"service", "replicas"})
_PUBLIC_PORT, _INNER_PORT = 8443, 9090


def gateway_objects(fleet: Fleet) -> list[Manifest]:
    """Return the gateway's objects; none when it is switched off."""
    if not fleet.config.gateway.enabled:
        return []
    return [_deployment(fleet), _service(fleet), _disruption_budget(fleet)]


def _metadata(fleet: Fleet, made_from: object) -> Manifest:
    return {
        "name": NAME,
        "namespace": fleet.namespace,
        "labels": objects.labels(Component.GATEWAY, NAME),
        "annotations": {objects.ANNOTATION_DIGEST: objects.digest(made_from)},
        "ownerReferences": [objects.owner_reference("ConfigMap", fleet.config_name, fleet.config_uid, "v1")],
    }


_SELECTOR = {names.LABEL_COMPONENT: Component.GATEWAY.value, names.LABEL_INSTANCE: NAME}


def _deployment(fleet: Fleet) -> Manifest:
    config, gateway = fleet.config, fleet.config.gateway
    registry, registry_secrets = objects.registry_settings(config)
    settings = GatewaySettings(
        cluster_id=config.cluster.id,
        namespace=fleet.namespace,
        public_port=_PUBLIC_PORT,
        inner_port=_INNER_PORT,
        pool=gateway.pool,
        region=gateway.region,
        latitude=gateway.latitude,
        longitude=gateway.longitude,
        allow_anonymous_calls=gateway.allow_anonymous_calls,
        trusted_forwarders=gateway.trusted_forwarders,
        proxy_protocol_from=gateway.proxy_protocol_from,
        max_unproved_connections=gateway.max_unproved_connections,
        max_unproved_connections_per_client=gateway.max_unproved_connections_per_client,
        page=gateway.page,
        fleet_view_keys=",".join(gateway.fleet_view_keys),
        ice_servers=gateway.ice_servers,
        log_level=config.dataplane.log_level,  # type: ignore[arg-type]  # pydantic checks it
        otlp_endpoint=config.tracing.otlp_endpoint,
        **registry,
    )
    volumes, mounts = objects.secret_mounts(
        {
            "call-keys": names.SECRET_CALL_KEYS,
            "tls": names.tls_secret("gateway"),
            "https": gateway.https_secret,
            **({"api-keys": gateway.api_keys_secret} if gateway.api_keys_secret else {}),
            **registry_secrets,
        }
    )
    made_from = objects.made_from(gateway, _FIRST)
    made_from = {name: value for name, value in made_from.items() if name not in _NO_POD_READS}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(
            fleet,
            [
                *(gateway.replicas, made_from, config.cluster.id),
                *(config.dataplane.model_dump(), config.redis.model_dump()),
                *([config.tracing.otlp_endpoint] if config.tracing.otlp_endpoint else []),
            ],
        ),
        "spec": {
            "replicas": gateway.replicas,
            "selector": {"matchLabels": _SELECTOR},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "revisionHistoryLimit": 3,
            "template": {
                "metadata": {"labels": objects.labels(Component.GATEWAY, NAME)},
                "spec": {
                    **objects.pod_basics(config, Component.GATEWAY),
                    "terminationGracePeriodSeconds": 30,
                    "nodeSelector": dict(gateway.placement.node_selector),
                    "tolerations": list(gateway.placement.tolerations),
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": _SELECTOR},
                        }
                    ],
                    "volumes": volumes,
                    "containers": [
                        {
                            "name": "gateway",
                            "image": config.dataplane.image,
                            "imagePullPolicy": config.dataplane.pull_policy,
                            "args": ["gateway"],
                            "env": objects.environment(
                                settings.to_environment(),
                                {
                                    "VOICEFLEET_NODE_NAME": "spec.nodeName",
                                    "VOICEFLEET_PROCESS_NAME": "metadata.name",
                                },
                            ),
                            "ports": [
                                {"name": "https", "containerPort": _PUBLIC_PORT, "protocol": "TCP"},
                                {"name": "inner", "containerPort": _INNER_PORT, "protocol": "TCP"},
                            ],
                            "readinessProbe": {
                                "httpGet": {"path": "/readyz", "port": "inner", "scheme": "HTTP"},
                                "periodSeconds": 2,
                            },
                            "livenessProbe": {
                                "httpGet": {"path": "/healthz", "port": "inner", "scheme": "HTTP"},
                                "periodSeconds": 10,
                                "failureThreshold": 6,
                            },
                            "resources": objects.resource_requirements(gateway.resources, "100m", "96Mi"),
                            "securityContext": objects.CONTAINER_SECURITY,
                            "volumeMounts": mounts,
                        }
                    ],
                },
            },
        },
    }


def _service(fleet: Fleet) -> Manifest:
    service = fleet.config.gateway.service
    metadata = _metadata(fleet, service.model_dump(mode="json"))
    if service.annotations:
        metadata["annotations"] = {**service.annotations, **metadata["annotations"]}
    port: Manifest = {"name": "https", "port": service.port, "targetPort": "https", "protocol": "TCP"}
    if service.node_port is not None:
        port["nodePort"] = service.node_port
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": service.type,
            "selector": _SELECTOR,
            "ports": [port],
            **({"loadBalancerClass": service.load_balancer_class} if service.load_balancer_class else {}),
        },
    }


def _disruption_budget(fleet: Fleet) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(fleet, "max one away"),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _SELECTOR}},
    }
