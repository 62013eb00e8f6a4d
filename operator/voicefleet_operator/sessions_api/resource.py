"""VoiceSession: a session's record as a Kubernetes object and as a row of kubectl's table. Pure."""

import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from voicefleet_contract import names
from voicefleet_contract.quality import estimate_mos
from voicefleet_contract.sessions import SELECTABLE, SessionRecord

Object = dict[str, Any]

GROUP = f"sessions.{names.GROUP}"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND, PLURAL, SINGULAR, SHORT = "VoiceSession", "voicesessions", "voicesession", "vs"

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_UID_SPACE = uuid.UUID("6f0a6a0e-6d1c-5b6c-9d4b-3f2f7f1c7a55")

# name, type, format, description, priority: 1 is shown by -o wide
_COLUMNS = (
    ("Name", "string", "name", "The call id", 0),
    ("Pool", "string", "", "The Transceiver resource that took the call", 0),
    ("Owner", "string", "", "The pod that holds the session", 0),
    ("Node", "string", "", "Where the owner runs", 1),
    ("Relay", "string", "", "The relay that the client's packets come through", 0),
    ("Region", "string", "", "The region of the ingress that the client was given", 1),
    ("Client", "string", "", "The client's network, never its address", 1),
    ("State", "string", "", "new, connecting, connected", 0),
    ("RTT ms", "number", "", "Round-trip time, from RTCP", 0),
    ("Loss %", "number", "", "Loss of what the client sends", 0),
    ("Jitter ms", "number", "", "Jitter of what the client sends", 1),
    ("MOS", "number", "", "Estimated by the E-model, ITU-T G.107", 0),
    ("Age", "date", "", "Since the call was answered", 0),
)


def label_of(field: str) -> str:
    """Return the label of a selectable field."""
    return f"{names.GROUP}/{field}"


def uid_of(call_id: str) -> str:
    """Return a session's uid: the same from every replica."""
    return str(uuid.uuid5(_UID_SPACE, call_id))


def voice_session(record: SessionRecord, namespace: str, version: int) -> Object:
    """Return the object. ``version``: as of which resourceVersion it was read."""
    labels = {label_of(field): getattr(record, field) for field in SELECTABLE}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": record.call_id,
            "namespace": namespace,
            "uid": uid_of(record.call_id),
            "resourceVersion": str(version),
            "creationTimestamp": f"{datetime.fromtimestamp(record.started_at, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "labels": {key: value for key, value in labels.items() if _LABEL_VALUE.fullmatch(value)},
        },
        "spec": {
            "pool": record.pool,
            "slot": record.slot,
            "generation": record.generation,
            "region": record.region,
            "clientNetwork": record.client_network,
        },
        "status": {
            key: value
            for key, value in (
                ("state", record.state),
                ("owner", record.pod),
                ("node", record.node),
                ("relay", record.relay),
                ("rttMs", record.rtt_ms),
                ("lossRatio", record.loss),
                ("jitterMs", record.jitter_ms),
                ("mos", estimate_mos(record.rtt_ms, record.loss, record.jitter_ms)),
                ("bytesIn", record.bytes_in),
                ("bytesOut", record.bytes_out),
                ("endedReason", record.ended_reason),
            )
            if value is not None
        },
    }


def table(objects: Iterable[Object], metadata: Object, *, include: str, with_columns: bool = True) -> Object:
    """Return meta.k8s.io/v1 Table. ``include``: None, Metadata (kubectl's own) or Object."""
    columns = [
        {"name": name, "type": kind, "format": form, "description": text, "priority": priority}
        for name, kind, form, text, priority in _COLUMNS
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns if with_columns else [],
        "rows": [_row(one, include) for one in objects],
    }


def _row(one: Object, include: str) -> Object:
    spec, status = one["spec"], one["status"]
    loss = status.get("lossRatio")
    cells = [
        one["metadata"]["name"],
        spec["pool"],
        status["owner"],
        status["node"],
        status["relay"],
        spec["region"],
        spec["clientNetwork"],
        status["state"],
        status.get("rttMs"),
        None if loss is None else round(100 * loss, 2),
        status.get("jitterMs"),
        status.get("mos"),
        one["metadata"]["creationTimestamp"],
    ]
    row: Object = {"cells": cells}
    if include == "Object":
        row["object"] = one
    elif include != "None":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": one["metadata"],
        }
    return row
