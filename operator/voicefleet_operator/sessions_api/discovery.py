"""What kube-apiserver and kubectl ask before they ask for sessions: group, resources, OpenAPI. Pure.

`delete` is served and not advertised: the garbage collector watches, whole, every resource that says delete, list and
watch; namespace deletion enumerates those that say delete.
"""

from typing import Any

from voicefleet_operator.sessions_api.resource import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    SHORT,
    SINGULAR,
    VERSION,
)

Object = dict[str, Any]

VERBS = ["get", "list", "watch"]
_VERSION = {"groupVersion": API_VERSION, "version": VERSION}
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def api_group() -> Object:
    """Return /apis/GROUP."""
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [_VERSION],
        "preferredVersion": _VERSION,
    }


def api_groups() -> Object:
    """Return /apis."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [api_group()]}


def api_resources() -> Object:
    """Return /apis/GROUP/VERSION."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": API_VERSION,
        "resources": [
            {
                "name": PLURAL,
                "singularName": SINGULAR,
                "namespaced": True,
                "kind": KIND,
                "verbs": VERBS,
                "shortNames": [SHORT],
                "categories": ["voicefleet"],
            },
            {
                "name": f"{PLURAL}/hangup",
                "singularName": "",
                "namespaced": True,
                "kind": KIND,
                "verbs": ["create"],
            },
        ],
    }


def aggregated() -> Object:
    """Return /apis in its aggregated form (apidiscovery.k8s.io/v2)."""
    kind = {"group": GROUP, "version": VERSION, "kind": KIND}
    resource = {
        "resource": PLURAL,
        "responseKind": kind,
        "scope": "Namespaced",
        "singularResource": SINGULAR,
        "verbs": VERBS,
        "shortNames": [SHORT],
        "categories": ["voicefleet"],
        "subresources": [{"subresource": "hangup", "responseKind": kind, "verbs": ["create"]}],
    }
    version = {"version": VERSION, "freshness": "Current", "resources": [resource]}
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [{"metadata": {"name": GROUP}, "versions": [version]}],
    }


def openapi_index() -> Object:
    """Return /openapi/v3."""
    return {"paths": {f"apis/{API_VERSION}": {"serverRelativeURL": f"/openapi/v3/apis/{API_VERSION}"}}}


def _fields(**described: tuple[str, str]) -> Object:
    return {name: {"type": kind, "description": text} for name, (kind, text) in described.items()}


def openapi() -> Object:
    """Return the OpenAPI v3 document of our version: what `kubectl explain voicesessions` reads."""
    name = f"dev.voicefleet.sessions.{VERSION}.{KIND}"
    kind = [{"group": GROUP, "version": VERSION, "kind": KIND}]
    spec = _fields(
        pool=("string", "The Transceiver resource that took the call."),
        slot=("integer", "The owner's slot, unique in the cluster."),
        generation=("integer", "Which pod of the slot."),
        region=("string", "The region of the ingress that the client was given."),
        clientNetwork=("string", "The client's /24 or /48; its address is not kept."),
    )
    status = _fields(
        state=("string", "new, connecting or connected."),
        owner=("string", "The transceiver pod that holds the session."),
        node=("string", "The owner's node."),
        relay=("string", "The relay pod that the client's packets come through."),
        rttMs=("number", "Round-trip time in milliseconds, from RTCP."),
        lossRatio=("number", "Loss of what the client sends, 0 to 1."),
        jitterMs=("number", "Jitter of what the client sends, in milliseconds (RFC 3550)."),
        mos=("number", "Mean opinion score estimated by the E-model, ITU-T G.107."),
        bytesIn=("integer", "Bytes from the client."),
        bytesOut=("integer", "Bytes to the client."),
        endedReason=("string", "Why it ended, in the last event of a watch."),
    )
    schema: Object = {
        "type": "object",
        "description": "VoiceSession is one call: a WebRTC peer connection and its backend leg. It is read from the registry; "
        "hang it up with kubectl delete, or by creating its hangup subresource.",
        "properties": {
            **_fields(
                apiVersion=("string", "APIVersion defines the versioned schema of this representation."),
                kind=("string", "Kind is VoiceSession."),
            ),
            "metadata": {"type": "object", "description": "Standard object metadata; the name is the call id."},
            "spec": {
                "type": "object",
                "description": "What was agreed when the call was answered.",
                "properties": spec,
            },
            "status": {"type": "object", "description": "How the call is.", "properties": status},
        },
        "x-kubernetes-group-version-kind": kind,
    }
    reference = {"$ref": f"#/components/schemas/{name}"}
    answer = {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}}
    base = f"/apis/{API_VERSION}/namespaces/{{namespace}}/{PLURAL}"

    def operation(verb: str, action: str) -> Object:
        return {
            "operationId": f"{action}{KIND}",
            "responses": answer,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind[0],
            "tags": [f"{GROUP}_{VERSION}"],
            "description": f"{verb} {KIND}",
        }

    return {
        "openapi": "3.0.0",
        "info": {"title": "voicefleet sessions", "version": VERSION},
        "paths": {
            base: {"get": operation("list or watch", "list")},
            f"{base}/{{name}}": {"get": operation("read", "get")},
            f"{base}/{{name}}/hangup": {"post": operation("hang up", "post")},
        },
        "components": {"schemas": {name: schema}},
    }
