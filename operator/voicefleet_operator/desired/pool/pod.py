"""One transceiver pod: a host-network process that is one slot, one generation, one port number.

The template is what all pods of a pool share; slot, generation and port are the pod's own. Scheduling spreads a pool over
nodes, and the declared host ports keep two holders of one number apart even if the operator were wrong.
"""

from collections.abc import Collection
from typing import Any

from voicefleet_contract import names
from voicefleet_contract.resources import Backend, BackendType, DrainPolicy, OnFailure, OnStageFailure, Pipeline
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_operator.desired import objects
from voicefleet_operator.desired.config import FleetConfig
from voicefleet_operator.desired.pool.steps import Create
from voicefleet_operator.desired.state import Component, Manifest, PoolResource

CPU, MEMORY = "100m", "128Mi"  # requests of a pod whose pool asks for none
_ENGINES_CPU_M, _ENGINES_MEMORY_MI = 500, 512  # and of each engine process, which may fill a core
_BACKEND_KEY = "key"
_END_GRACE_S = 15  # between the drain deadline and SIGKILL: a process hangs up what is left


def pool_template(config: FleetConfig, pool: PoolResource) -> str:
    """Return the digest of all that a pod of the pool is made from; another digest replaces pods.

    Left out: what reaches pods in other ways (replicas, ports, drain, rollout), and everything volatile.
    """
    spec = pool.spec.model_dump(
        mode="json",
        include={"capacity", "session", "backend", "placement", "resources", "image"},
        exclude_defaults=True,  # a field that a newer operator knows, and nobody has set, replaces nothing
    )
    parts = [spec, config.cluster.id, config.dataplane.model_dump(), config.redis.model_dump()]
    more = [part.model_dump(mode="json", exclude_defaults=True) for part in (config.call_records, config.tracing)]
    if pool.spec.backend.type is BackendType.PIPELINE:
        more.append(config.pipeline.model_dump(mode="json"))
    return objects.digest(*parts, *(part for part in more if part))


def pod_name(create: Create) -> str:
    """Return ``<transceiver>-<slot>-<generation>``: the same pair never names two pods."""
    return f"{create.pool}-{create.slot}-{create.generation}"


def transceiver_pod(
    config: FleetConfig, namespace: str, pool: PoolResource, create: Create, avoid: Collection[str] = ()
) -> Manifest:
    """Return the pod. It starts on none of the nodes to ``avoid``."""
    spec = pool.spec
    registry, registry_secrets = objects.registry_settings(config)
    settings = TransceiverSettings(
        cluster_id=config.cluster.id,
        namespace=namespace,
        pool=pool.name,
        slot=create.slot,
        generation=create.generation,
        inner_address="0.0.0.0",
        port=create.port,
        capacity=spec.capacity.sessions,
        max_duration_s=spec.session.max_duration,
        idle_timeout_s=spec.session.idle_timeout,
        # For a pod that somebody else deletes while the operator is away; else the operator says it.
        drain_deadline_s=0.0 if spec.drain.policy is DrainPolicy.HANG_UP else spec.drain.deadline,
        **_backend_settings(spec.backend),
        **_record_settings(config),
        otlp_endpoint=config.tracing.otlp_endpoint,
        log_level=config.dataplane.log_level,  # type: ignore[arg-type]  # pydantic checks it
        **registry,
    )
    variables = settings.to_environment()
    variables.pop("VOICEFLEET_INNER_ADDRESS", None)
    identity = objects.labels(
        Component.TRANSCEIVER,
        pool.name,
        pool=pool.name,
        slot=str(create.slot),
        generation=str(create.generation),
        port=str(create.port),
    )
    volumes, mounts = objects.secret_mounts(
        {
            "hint-keys": names.SECRET_HINT_KEYS,
            "call-keys": names.SECRET_CALL_KEYS,
            "tls": names.tls_secret("transceiver"),
            **({"webhook": config.call_records.webhook_secret} if config.call_records.webhook_url else {}),
            **registry_secrets,
        }
    )
    key = spec.backend.secret_ref
    if key is not None:  # of that Secret, this key and nothing else
        items = [{"key": key.key, "path": _BACKEND_KEY}]
        volumes.append({"name": "backend", "secret": {"secretName": key.name, "items": items, "defaultMode": 0o440}})
        mounts.append({"name": "backend", "mountPath": f"{names.ETC}/backend", "readOnly": True})
    selector = {names.LABEL_COMPONENT: Component.TRANSCEIVER.value, names.LABEL_POOL: pool.name}
    probe = {"tcpSocket": {"port": create.port}}  # the control port opens when the process can serve
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(create),
            "namespace": namespace,
            "labels": identity,
            "annotations": {
                objects.ANNOTATION_DIGEST: pool_template(config, pool),
                objects.ANNOTATION_CAPACITY: str(spec.capacity.sessions),
                names.ANNOTATION_SAFE_TO_EVICT: "false",  # until it has been idle for long (idle)
            },
            "ownerReferences": [objects.owner_reference("Transceiver", pool.name, pool.uid)],
        },
        "spec": {
            **objects.pod_basics(config, Component.TRANSCEIVER),
            "hostNetwork": True,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "restartPolicy": "Always",
            # An evicted pod may let its calls end; an empty one ends at once.
            "terminationGracePeriodSeconds": int(spec.drain.deadline) + _END_GRACE_S,
            "nodeSelector": dict(spec.placement.node_selector),
            "tolerations": list(spec.placement.tolerations),
            **_affinity(avoid),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector},
                }
            ],
            "volumes": volumes,
            "containers": [
                {
                    "name": "transceiver",
                    "image": spec.image or _image(config, spec.backend),
                    "imagePullPolicy": config.dataplane.pull_policy,
                    "args": ["transceiver"],
                    "env": objects.environment(
                        variables,
                        {
                            "VOICEFLEET_INNER_ADDRESS": "status.hostIP",
                            "VOICEFLEET_NODE_NAME": "spec.nodeName",
                            "VOICEFLEET_PROCESS_NAME": "metadata.name",
                        },
                    ),
                    "ports": [
                        {"name": "media", "containerPort": create.port, "hostPort": create.port, "protocol": "UDP"},
                        {"name": "control", "containerPort": create.port, "hostPort": create.port, "protocol": "TCP"},
                    ],
                    "terminationMessagePolicy": "FallbackToLogsOnError",  # `kubectl describe` then shows its last words
                    "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 3},
                    "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
                    "resources": objects.resource_requirements(spec.resources, *_requests(spec.backend)),
                    "securityContext": objects.CONTAINER_SECURITY,
                    "volumeMounts": mounts,
                }
            ],
        },
    }


def _image(config: FleetConfig, backend: Backend) -> str:
    """Engines are no small thing: only pools that need them pull them."""
    return (config.pipeline.image if backend.type is BackendType.PIPELINE else "") or config.dataplane.image


def _requests(backend: Backend) -> tuple[str, str]:
    if backend.type is not BackendType.PIPELINE:
        return CPU, MEMORY
    processes = backend.pipeline.processes
    return f"{100 + _ENGINES_CPU_M * processes}m", f"{128 + _ENGINES_MEMORY_MI * processes}Mi"


def _affinity(avoid: Collection[str]) -> Manifest:
    if not avoid:
        return {}
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in avoid]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


def _record_settings(config: FleetConfig) -> dict[str, Any]:
    records = config.call_records
    settings: dict[str, Any] = {
        "call_records_stdout": records.stdout,
        "call_records_stream": records.stream,
        "call_records_keep_s": records.keep,
        "call_record_addresses": records.addresses.value,
    }
    if records.webhook_url:
        settings["call_records_webhook_url"] = records.webhook_url
        settings["call_records_webhook_secret_file"] = f"{names.ETC}/webhook/secret"
    return settings


def _backend_settings(backend: Backend) -> dict[str, Any]:
    settings: dict[str, Any] = {"backend": backend.type.value}
    if backend.type is BackendType.ECHO:
        return settings
    settings |= {
        "backend_url": backend.url or "",
        "backend_fallback_urls": " ".join(backend.fallback_urls),
        "backend_network": backend.network.value,
        "backend_connect_timeout_s": backend.connect_timeout,
        "backend_warm_connections": backend.warm_connections,
        "backend_reconnect_s": backend.reconnect_timeout if backend.on_failure is OnFailure.RECONNECT else 0,
    }
    if backend.profile is not None:
        settings["backend_profile"] = backend.profile.value
    if backend.secret_ref is not None:
        settings["backend_key_file"] = f"{names.ETC}/backend/{_BACKEND_KEY}"
    if backend.type is BackendType.PIPELINE:
        settings |= _pipeline_settings(backend.pipeline)
    return settings


def _pipeline_settings(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "pipeline_voice_activity": pipeline.voice_activity.engine,
        "pipeline_speech_to_text": pipeline.speech_to_text.engine,
        "pipeline_speech_to_text_timeout_s": pipeline.speech_to_text.timeout,
        "pipeline_text": pipeline.text.handler,
        "pipeline_text_model": pipeline.text.model or "",
        "pipeline_text_timeout_s": pipeline.text.timeout,
        "pipeline_text_to_speech": pipeline.text_to_speech.engine,
        "pipeline_text_to_speech_timeout_s": pipeline.text_to_speech.timeout,
        "pipeline_voice": pipeline.text_to_speech.voice or "",
        "pipeline_processes": pipeline.processes,
        "pipeline_utterances": pipeline.utterances_per_process,
        "pipeline_hang_up_on_failure": pipeline.on_failure is OnStageFailure.HANG_UP,
    }
