"""What every object that we make has in common: labels, owner references, digests, a tight security context.

A digest names what an object was made **from** (specs and fleet settings), not what it is: so an operator of another
version, which would write the same object a little differently, leaves what runs alone. The price: what a new operator
would do better reaches a pod when the pod is replaced for another reason.
"""

import hashlib
import json
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel

from voicefleet_contract import names
from voicefleet_contract.resources import Resources
from voicefleet_operator.desired.config import FleetConfig
from voicefleet_operator.desired.state import Component, Manifest

ANNOTATION_DIGEST = f"{names.GROUP}/made-from"
ANNOTATION_CAPACITY = f"{names.GROUP}/capacity"  # sessions: a member's weight in the ring
ANNOTATION_DRAINING = f"{names.GROUP}/draining-since"  # Unix seconds
ANNOTATION_GRAY = f"{names.GROUP}/gray"  # a verdict (gray.py)
ANNOTATION_PAUSED = f"{names.GROUP}/paused"
LABEL_FLEET = f"{names.GROUP}/fleet"  # on ConfigMaps that are watched: the fleet's settings, and …
LABEL_FLEET_PORTS = "ports"  # … port numbers in quarantine
MANAGED_BY = "voicefleet-operator"
USER_ID = 65532  # the images' user: no name, no shell, no home


def digest(*parts: Any) -> str:
    """Return sixteen hex digits over JSON-able parts."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def made_from(model: BaseModel, first: Collection[str]) -> Manifest:
    """Return what a digest says of settings: the fields that digests had ``first``, and of later ones those that somebody
    set. Else the operator that knows a field first would replace what the one before made.
    """
    whole, given = model.model_dump(mode="json"), model.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in whole.items() if name in first or name in given}


def labels(component: Component, instance: str, **more: str) -> dict[str, str]:
    """Return the labels of an object and, for what has no version in it, of its selector."""
    return {
        names.LABEL_NAME: "voicefleet",
        names.LABEL_INSTANCE: instance,
        names.LABEL_COMPONENT: component.value,
        names.LABEL_PART_OF: "voicefleet",
        names.LABEL_MANAGED_BY: MANAGED_BY,
        **{f"{names.GROUP}/{key}": value for key, value in more.items()},
    }


def owner_reference(
    kind: str, name: str, uid: str, api_version: str = f"{names.GROUP}/{names.API_VERSION}"
) -> Manifest:
    """Return the reference through which Kubernetes deletes what a resource made: no finalizer, nothing to hang on."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def environment(settings: dict[str, str], from_fields: dict[str, str] | None = None) -> list[Manifest]:
    """Return a container's env: settings as they are, and those that only the pod itself knows."""
    plain: list[Manifest] = [{"name": name, "value": value} for name, value in sorted(settings.items())]
    fields: list[Manifest] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in sorted((from_fields or {}).items())
    ]
    return plain + fields


def resource_requirements(resources: Resources, cpu: str, memory: str) -> Manifest:
    """Return requests and limits; requests have a default so that the scheduler never takes a pod for free."""
    requests: Manifest = {"cpu": cpu, "memory": memory, **resources.requests}
    return {"requests": requests, **({"limits": dict(resources.limits)} if resources.limits else {})}


CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}
POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def secret_mounts(secrets: dict[str, str]) -> tuple[list[Manifest], list[Manifest]]:
    """Return volumes and mounts of ``folder under /etc/voicefleet → Secret``."""
    volumes: list[Manifest] = [
        {"name": folder, "secret": {"secretName": secret, "defaultMode": 0o440}}
        for folder, secret in sorted(secrets.items())
    ]
    mounts: list[Manifest] = [
        {"name": folder, "mountPath": f"{names.ETC}/{folder}", "readOnly": True} for folder in sorted(secrets)
    ]
    return volumes, mounts


def pod_basics(config: FleetConfig, component: Component) -> Manifest:
    """Return the fields that every dataplane pod spec starts from."""
    dataplane = config.dataplane
    return {
        "serviceAccountName": f"voicefleet-{component.value}",
        "securityContext": POD_SECURITY,
        "enableServiceLinks": False,
        **({"imagePullSecrets": [{"name": name} for name in dataplane.pull_secrets]} if dataplane.pull_secrets else {}),
        **({"priorityClassName": dataplane.priority_class_name} if dataplane.priority_class_name else {}),
    }


def registry_settings(config: FleetConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings fields and the Secret mounts with which a pod reaches the registry."""
    redis = config.redis
    if not redis.url:
        return {}, {}
    if not redis.password_secret:
        return {"redis_url": redis.url}, {}
    return (
        {"redis_url": redis.url, "redis_password_file": f"{names.ETC}/redis/password"},
        {"redis": redis.password_secret},
    )
