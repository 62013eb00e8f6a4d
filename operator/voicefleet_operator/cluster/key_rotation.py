"""Rotating the key rings of hints and call ids: reads a ring's Secret, asks `desired.key_rotation`, writes what it says.

Keys and state stand in one Secret and are written in one request, fenced by resourceVersion: of two operators one gives way,
and a crash loses no step. State is an annotation, and so is the sentence for people; nothing of it is in a pod template.

    kubectl annotate secret voicefleet-hint-keys voicefleet.dev/rotate=now          # no call notices
    kubectl annotate secret voicefleet-hint-keys voicefleet.dev/rotate=drop-calls   # a stolen key: ends the ring's calls
"""

import base64
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from voicefleet_contract import names
from voicefleet_contract.keys import SECRET_BYTES, KeyRing, KeyRingError
from voicefleet_contract.outside import decode_base64, parse_model
from voicefleet_contract.registry import Acknowledgement
from voicefleet_operator.cluster.api import KubeApi, Object
from voicefleet_operator.desired.keys.key_rotation import Decision, Pace, Process, Ring, Wish, decide
from voicefleet_operator.desired.state import Component, Fleet, Pod

log = logging.getLogger("voicefleet.operator")

ANNOTATION_WISH = f"{names.GROUP}/rotate"  # what a person asks for; taken away when it is done
ANNOTATION_STATE = f"{names.GROUP}/key-rotation"  # since when what is so
_MAX_SECRET_BYTES, _MAX_STATE_BYTES = 1 << 20, 256 * 1024  # of an object's data and annotations, as Kubernetes has it
ANNOTATION_STATUS = f"{names.GROUP}/key-rotation-status"  # where it stands, in words


@dataclass(frozen=True, slots=True)
class _Kind:
    """Which processes hold a ring, and which of them sign with it: hints and call ids transceivers, ephemeral keys gateways."""

    secret: str
    holders: frozenset[Component]
    signers: frozenset[Component]


_KINDS = {
    "hint": _Kind(
        names.SECRET_HINT_KEYS, frozenset({Component.RELAY, Component.TRANSCEIVER}), frozenset({Component.TRANSCEIVER})
    ),
    "call": _Kind(
        names.SECRET_CALL_KEYS,
        frozenset({Component.GATEWAY, Component.TRANSCEIVER}),
        frozenset({Component.GATEWAY, Component.TRANSCEIVER}),
    ),
}


class _State(BaseModel):
    """The annotation."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, allow_inf_nan=False)
    signing: int
    signing_since: float
    published: int | None = None
    published_at: float = 0.0
    retiring: dict[str, float | None] = {}


class KeyRotation:
    """Both rings. ``decisions`` are the last ones, for metrics."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self.decisions: dict[str, Decision] = {}
        self._complaints: dict[str, str] = {}

    async def advance(self, fleet: Fleet, said: Mapping[str, Acknowledgement] | None, now: float) -> None:
        """Do what is to be done now. Raises KubeError."""
        for name, kind in _KINDS.items():
            body = await self._api.get("Secret", kind.secret)
            if body is None:
                continue  # credentials.py makes it
            try:
                keys = KeyRing.parse(decode_base64(body["data"][names.KEYS_FILE], _MAX_SECRET_BYTES))
            except (KeyRingError, KeyError, ValueError) as error:
                self._complain(kind.secret, f"not rotated: {error}")
                continue
            await self._advance(name, fleet, body, keys, said, now)

    async def _advance(
        self,
        name: str,
        fleet: Fleet,
        body: Object,
        keys: KeyRing,
        said: Mapping[str, Acknowledgement] | None,
        now: float,
    ) -> None:
        kind, annotations = _KINDS[name], body["metadata"].get("annotations") or {}
        wish, complaint = _read_wish(annotations)
        pace = Pace(fleet.config.keys.rotation_period, fleet.config.keys.settle)
        if name == "call" and not fleet.config.gateway.enabled and wish is not Wish.DROP_CALLS:
            # The gateways of another fleet hold this ring, and nobody here can ask them.
            pace, wish = Pace(0.0, pace.settle_s), None
            complaint = complaint or "by hand only: the gateways that hold this ring are not this fleet's"
        ring = read_ring(keys, body["metadata"], now)
        decision = decide(ring, wish, _processes(fleet, kind, name, said), pace, now)
        self.decisions[name] = decision
        self._complain(kind.secret, complaint)
        status = "; ".join(part for part in (decision.says, complaint) if part)
        if decision.ring == ring and annotations.get(ANNOTATION_STATUS) == status and not decision.wish_done:
            return
        kept = {key: value for key, value in annotations.items() if key != ANNOTATION_WISH or not decision.wish_done}
        body = {
            **body,
            "metadata": {
                **body["metadata"],
                "annotations": {**kept, ANNOTATION_STATE: write_ring(decision.ring), ANNOTATION_STATUS: status},
            },
            "data": {
                **body["data"],
                names.KEYS_FILE: base64.b64encode(_new_keys(keys, decision.ring).to_json().encode()).decode(),
            },
        }
        await self._api.replace("Secret", body)
        if decision.step:
            log.info("secret %s: %s", kind.secret, decision.step)

    def _complain(self, secret: str, complaint: str) -> None:
        """Say once what a person has to mend."""
        if complaint and self._complaints.get(secret) != complaint:
            log.warning("secret %s: %s", secret, complaint)
        self._complaints[secret] = complaint


def _read_wish(annotations: Mapping[str, str]) -> tuple[Wish | None, str]:
    text = annotations.get(ANNOTATION_WISH)
    if text is None:
        return None, ""
    try:
        return Wish(text), ""
    except ValueError:
        allowed = " or ".join(wish.value for wish in Wish)
        return None, f"annotation {ANNOTATION_WISH}: {text!r} means nothing; write {allowed}"


def _processes(
    fleet: Fleet, kind: _Kind, name: str, said: Mapping[str, Acknowledgement] | None
) -> list[Process] | None:
    """Return every process that holds the ring or is about to: a pod that has a node has been given its files."""
    if said is None:
        return None
    pods = (pod for pod in fleet.pods.values() if pod.component in kind.holders and _counts(pod))
    return [_process(pod, name, pod.component in kind.signers, said.get(pod.name)) for pod in pods]


def _counts(pod: Pod) -> bool:
    return bool(pod.node) and not pod.finished and not pod.deleting


def _process(pod: Pod, name: str, signs: bool, said: Acknowledgement | None) -> Process:
    if said is None:
        return Process(pod.name, signs)
    if name == "hint":
        return Process(pod.name, signs, frozenset(said.key_epochs), said.signing_epoch)
    return Process(pod.name, signs, frozenset(said.call_key_epochs), said.call_signing_epoch)


def read_ring(keys: KeyRing, metadata: Object, now: float) -> Ring:
    """Join a ring's epochs with what the annotation says of them; what it does not say is taken as it costs no call."""
    state = _state((metadata.get("annotations") or {}).get(ANNOTATION_STATE, ""))
    epochs = frozenset(keys.epochs)
    created = metadata.get("creationTimestamp")
    made_at = datetime.fromisoformat(created).timestamp() if created else now
    same = state.get("signing") == keys.signing
    published = state.get("published")
    if not same or published not in epochs or published == keys.signing:
        published = None
    others = epochs - {keys.signing, published}
    return Ring(
        epochs,
        keys.signing,
        state["signingSince"] if same else (made_at if len(epochs) == 1 else now),
        published,
        state["publishedAt"] if published is not None else 0.0,
        {epoch: state["retiring"].get(str(epoch)) if same else None for epoch in sorted(others)},
    )


def write_ring(ring: Ring) -> str:
    """Return the annotation: no secret in it."""
    state: dict[str, Any] = {"signing": ring.signing, "signingSince": round(ring.signing_since, 3)}
    if ring.published is not None:
        state |= {"published": ring.published, "publishedAt": round(ring.published_at, 3)}
    if ring.retiring:
        state["retiring"] = {str(epoch): since and round(since, 3) for epoch, since in sorted(ring.retiring.items())}
    return json.dumps(state)


def _state(text: str) -> dict[str, Any]:
    """Return the annotation's fields; of one that a hand has broken, none."""
    try:
        return parse_model(_State, text, _MAX_STATE_BYTES).model_dump(by_alias=True)
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def _new_keys(keys: KeyRing, ring: Ring) -> KeyRing:
    return keys.with_epochs({epoch: secrets.token_bytes(SECRET_BYTES) for epoch in ring.epochs}, ring.signing)
