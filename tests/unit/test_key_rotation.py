"""The Secret of a key ring through its rotation: what is written, what is said, and what a hand may break."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.support.fleet_world import CONFIG, empty_fleet
from voicefleet_contract import names
from voicefleet_contract.ephemeral_keys import MAX_LIFE_S
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.registry import Acknowledgement
from voicefleet_contract.settings import parse_duration_s
from voicefleet_operator.cluster.key_rotation import ANNOTATION_STATE, ANNOTATION_STATUS, ANNOTATION_WISH, KeyRotation
from voicefleet_operator.desired.config import Gateway, Keys
from voicefleet_operator.desired.keys.key_rotation import LONGEST_CALL_S, MARGIN_S, Pace, Process, Ring, Wish, decide
from voicefleet_operator.desired.state import Component, Pod

NOW = 1_800_000_000.0
HINT, CALL = names.SECRET_HINT_KEYS, names.SECRET_CALL_KEYS


class Secrets:
    def __init__(self):
        ring = KeyRing({1: b"k" * 32}, 1).to_json().encode()
        self.held = {
            name: {
                "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "data": {names.KEYS_FILE: base64.b64encode(ring).decode()},
            }
            for name in (HINT, CALL)
        }
        self.writes = 0

    async def get(self, kind, name):
        return self.held.get(name)

    async def replace(self, kind, body):
        self.writes += 1
        self.held[body["metadata"]["name"]] = body
        return body

    def annotate(self, name, **annotations):
        metadata = self.held[name]["metadata"]
        metadata["annotations"] = {**metadata.get("annotations", {}), **annotations}

    def annotations(self, name):
        return self.held[name]["metadata"].get("annotations", {})

    def ring(self, name=HINT):
        return KeyRing.parse(base64.b64decode(self.held[name]["data"][names.KEYS_FILE]))


PODS = {
    "r": Pod("r", "1", Component.RELAY, "fra", node="n"),
    "t": Pod("t", "2", Component.TRANSCEIVER, "agents", slot=0, generation=1, port=1, node="n"),
    "g": Pod("g", "3", Component.GATEWAY, "", node="n"),
}
CONFIGURED = CONFIG.model_copy(update={"gateway": Gateway(), "keys": Keys(rotation_period=0, settle=0)})
FLEET = replace(empty_fleet(pods=PODS), config=CONFIGURED)


def said(api, *silent):
    """Everybody works with the Secrets as they are, and says so."""
    hint, call = api.ring(HINT), api.ring(CALL)
    common = {"topology_revision": 1, "at": NOW}
    return {
        process: Acknowledgement(process=process, **common, **keys)
        for process, keys in {
            "r": {"key_epochs": hint.epochs},
            "t": {
                "key_epochs": hint.epochs,
                "signing_epoch": hint.signing,
                "call_key_epochs": call.epochs,
                "call_signing_epoch": call.signing,
            },
            "g": {"call_key_epochs": call.epochs, "call_signing_epoch": call.signing},
        }.items()
        if process not in silent
    }


async def test_on_demand_a_ring_is_published_signs_and_retires_and_the_other_ring_stays():
    api = Secrets()
    rotation = KeyRotation(api)
    old = api.ring()._secrets[1]
    api.annotate(HINT, **{ANNOTATION_WISH: "now"})
    await rotation.advance(FLEET, said(api), NOW)
    assert (api.ring().epochs, api.ring().signing) == ((1, 2), 1)
    assert ANNOTATION_WISH not in api.annotations(HINT)
    await rotation.advance(FLEET, said(api, "r"), NOW + 1)  # the relay has not read it yet
    assert api.ring().signing == 1
    assert "1 of 2 have not acknowledged it yet, r among them" in api.annotations(HINT)[ANNOTATION_STATUS]
    assert rotation.decisions["hint"].waits_for == ("r",)
    await rotation.advance(FLEET, said(api), NOW + 2)
    assert (api.ring().epochs, api.ring().signing) == ((1, 2), 2)
    assert api.ring()._secrets[1] == old
    await rotation.advance(FLEET, said(api), NOW + 3)  # the transceiver signs with it
    late = NOW + 3 + LONGEST_CALL_S + MARGIN_S
    await rotation.advance(FLEET, said(api), late - 1)
    assert api.ring().epochs == (1, 2)
    await rotation.advance(FLEET, said(api), late + 1)
    assert (api.ring().epochs, api.ring().signing) == ((2,), 2)
    assert api.ring(CALL).epochs == (1,)


async def test_a_fleet_at_rest_is_written_once():
    api = Secrets()
    rotation = KeyRotation(api)
    for second in range(5):
        await rotation.advance(FLEET, said(api), NOW + second)
    assert api.writes == 2  # the sentence of either ring


async def test_by_time_the_call_keys_wait_for_gateways():
    api = Secrets()
    rotation = KeyRotation(api)
    fleet = replace(FLEET, config=CONFIGURED.model_copy(update={"keys": Keys(rotation_period=3600, settle=0)}))
    await rotation.advance(fleet, said(api), NOW)
    assert api.ring(CALL).epochs == (1, 2)
    await rotation.advance(fleet, said(api, "g"), NOW + 1)
    assert (api.ring(HINT).signing, api.ring(CALL).signing) == (2, 1)
    await rotation.advance(fleet, said(api), NOW + 2)
    assert api.ring(CALL).signing == 2


async def test_an_epoch_of_call_keys_stays_while_a_gateway_makes_ephemeral_keys_with_it():
    api = Secrets()
    rotation = KeyRotation(api)
    api.annotate(CALL, **{ANNOTATION_WISH: "now"})
    for second in range(2):
        await rotation.advance(FLEET, said(api), NOW + second)
    assert api.ring(CALL).signing == 2
    behind = said(api)
    behind["g"] = behind["g"].model_copy(update={"call_signing_epoch": 1})
    for late in (NOW + 2, NOW + 3 * LONGEST_CALL_S):
        await rotation.advance(FLEET, behind, late)
    assert api.ring(CALL).epochs == (1, 2)


def test_an_ephemeral_key_does_not_outlive_the_epoch_that_sealed_it():
    assert MAX_LIFE_S < LONGEST_CALL_S


async def test_a_stolen_key_is_replaced_at_once_even_without_a_registry():
    api = Secrets()
    api.annotate(HINT, **{ANNOTATION_WISH: "drop-calls"})
    await KeyRotation(api).advance(FLEET, None, NOW)
    assert (api.ring().epochs, api.ring().signing) == ((2,), 2)
    assert "calls that they signed end" in api.annotations(HINT)[ANNOTATION_STATUS]
    assert ANNOTATION_WISH not in api.annotations(HINT)


async def test_an_unknown_wish_is_named_and_does_nothing(caplog):
    api = Secrets()
    api.annotate(HINT, **{ANNOTATION_WISH: "please"})
    rotation = KeyRotation(api)
    await rotation.advance(FLEET, said(api), NOW)
    await rotation.advance(FLEET, said(api), NOW + 1)
    assert api.ring().epochs == (1,)
    assert "'please' means nothing; write now or drop-calls" in api.annotations(HINT)[ANNOTATION_STATUS]
    assert sum("please" in message for message in caplog.messages) == 1


async def test_a_fleet_without_its_own_gateway_rotates_call_keys_by_hand_only():
    api = Secrets()
    fleet = replace(FLEET, config=CONFIG.model_copy(update={"keys": Keys(rotation_period=3600, settle=0)}))
    await KeyRotation(api).advance(fleet, said(api), NOW)
    assert (api.ring(HINT).epochs, api.ring(CALL).epochs) == ((1, 2), (1,))
    assert "by hand only" in api.annotations(CALL)[ANNOTATION_STATUS]


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"signing": 2}', '{"signing": 2, "signingSince": "x"}'])
async def test_a_state_that_a_hand_has_broken_retires_nothing_early(broken):
    api = Secrets()
    ring = KeyRing({1: b"k" * 32, 2: b"m" * 32}, 2).to_json().encode()
    api.held[HINT]["data"][names.KEYS_FILE] = base64.b64encode(ring).decode()
    api.annotate(HINT, **{ANNOTATION_STATE: broken})
    await KeyRotation(api).advance(FLEET, said(api), NOW)
    assert api.ring().epochs == (1, 2)
    assert json.loads(api.annotations(HINT)[ANNOTATION_STATE])["retiring"] == {"1": NOW}


async def test_a_ring_that_cannot_be_read_is_left_alone_and_said_once(caplog):
    api = Secrets()
    rotation, everybody = KeyRotation(api), said(api)
    api.held[HINT]["data"][names.KEYS_FILE] = base64.b64encode(b"{}").decode()
    await rotation.advance(FLEET, everybody, NOW)
    await rotation.advance(FLEET, everybody, NOW + 1)
    assert sum("not rotated" in message for message in caplog.messages) == 1


async def test_no_secret_is_in_an_annotation_or_a_log(caplog):
    caplog.set_level("DEBUG")
    api = Secrets()
    api.annotate(HINT, **{ANNOTATION_WISH: "drop-calls"})
    await KeyRotation(api).advance(FLEET, said(api), NOW)
    text = base64.b64encode(api.ring()._secrets[2]).decode()
    assert text not in caplog.text + json.dumps(api.annotations(HINT))


def test_a_pod_without_a_node_is_not_waited_for_and_one_that_starts_is():
    ring = Ring(frozenset({1, 2}), 1, NOW, published=2, published_at=NOW)
    pace = Pace(0, 120)
    started = [Process("t", True, frozenset({1, 2}), 1), Process("starting", True)]
    assert decide(ring, None, started, pace, NOW + 500).ring.signing == 1
    assert decide(ring, None, started[:1], pace, NOW + 119).ring.signing == 1
    assert decide(ring, None, started[:1], pace, NOW + 121).ring.signing == 2


def test_while_a_signer_says_nothing_the_clock_of_the_old_epoch_does_not_run():
    ring = Ring(frozenset({1, 2}), 2, NOW, retiring={1: None})
    moved, silent = Process("a", True, ring.epochs, 2), Process("b", True)
    assert decide(ring, None, [moved, silent], Pace(0, 0), NOW + 1).ring.retiring == {1: None}
    assert decide(ring, None, [moved], Pace(0, 0), NOW + 1).ring.retiring == {1: NOW + 1}


def test_epochs_come_round_and_one_in_use_is_not_given_again():
    ring = Ring(frozenset({31, 0}), 31, NOW)
    assert decide(ring, Wish.DROP_CALLS, None, Pace(0, 0), NOW).ring.signing == 1


def test_the_longest_call_is_the_one_that_the_resource_allows():
    crd = yaml.safe_load((Path(__file__).resolve().parents[2] / "crds" / "transceivers.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    rule = spec["session"]["properties"]["maxDuration"]["x-kubernetes-validations"][0]["rule"]
    assert parse_duration_s(rule.rsplit("duration('", 1)[1].split("'", 1)[0]) == LONGEST_CALL_S
