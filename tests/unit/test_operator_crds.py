"""crds/ holds the schemas once; contract.resources reads the same fields with the same defaults."""

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from voicefleet_contract.resources import TransceiverSpec, VoiceRelaySpec
from voicefleet_contract.topology import TopologySlice

ROOT = Path(__file__).parents[2]
KINDS = ["voicerelays", "transceivers", "topologyslices"]


def crd(plural: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text())


def schema(plural: str) -> dict[str, Any]:
    return crd(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def resolved(model: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Follow $ref and the null that an optional field adds."""
    if "$ref" in model:
        return resolved(root["$defs"][model["$ref"].rpartition("/")[2]], root)
    options = [option for option in model.get("anyOf", []) if option.get("type") != "null"]
    return resolved(options[0], root) if len(options) == 1 else model


def difference(path: str, here: dict[str, Any], model: dict[str, Any], root: dict[str, Any]) -> list[str]:
    model = resolved(model, root)
    if here.get("type") != "object" or "properties" not in here:
        if here.get("type") == "string" and model.get("type") == "number":
            return []  # a duration: text in YAML, seconds in Python
        found = [] if here.get("type") == model.get("type") else [f"{path}: {here.get('type')} / {model.get('type')}"]
        if here.get("enum") != model.get("enum"):
            found.append(f"{path}: enum {here.get('enum')} / {model.get('enum')}")
        return found
    fields, properties = here["properties"], model.get("properties", {})
    found = [f"{path}.{name}: only on one side" for name in fields.keys() ^ properties.keys()]
    if set(here.get("required", [])) != set(model.get("required", [])):
        found.append(f"{path}: required {here.get('required')} / {model.get('required')}")
    for name in fields.keys() & properties.keys():
        found += difference(f"{path}.{name}", fields[name], properties[name], root)
    return found


@pytest.mark.parametrize(("plural", "model"), [("voicerelays", VoiceRelaySpec), ("transceivers", TransceiverSpec)])
def test_schema_and_model_have_the_same_fields_types_enums_and_required_ones(plural, model):
    root = model.model_json_schema(by_alias=True)
    assert difference("spec", schema(plural)["properties"]["spec"], root, root) == []


def defaults(here: dict[str, Any]) -> Any:
    """What the API server fills in for an empty object."""
    if here.get("type") != "object" or "properties" not in here:
        return here.get("default")
    filled = {name: defaults(field) for name, field in here["properties"].items() if "default" in field}
    return {name: value for name, value in filled.items() if value is not None}


@pytest.mark.parametrize(
    ("plural", "model", "least"),
    [
        ("voicerelays", VoiceRelaySpec, {"location": {"region": "eu", "latitude": 1.0, "longitude": 1.0}}),
        ("transceivers", TransceiverSpec, {"ports": {"min": 20000, "max": 20010}}),
    ],
)
def test_schema_and_model_have_the_same_defaults(plural, model, least):
    filled = {**defaults(schema(plural)["properties"]["spec"]), **least}
    assert model.model_validate(filled) == model.model_validate(least)


def test_topology_slices_of_the_contract_fit_the_schema():
    fields = schema("topologyslices")["properties"]["spec"]["properties"]
    assert set(fields) == set(TopologySlice.model_fields)


@pytest.mark.parametrize("plural", KINDS)
def test_every_list_and_map_is_bounded_so_that_cel_can_be_costed(plural):
    def unbounded(path: str, here: dict[str, Any]) -> list[str]:
        found = []
        if here.get("type") == "array" and "maxItems" not in here:
            found.append(path)
        if "additionalProperties" in here and "maxProperties" not in here:
            found.append(path)
        for name, field in here.get("properties", {}).items():
            found += unbounded(f"{path}.{name}", field)
        return found + (unbounded(f"{path}[]", here["items"]) if "items" in here else [])

    assert unbounded("", schema(plural)) == []


@pytest.mark.parametrize("plural", KINDS)
def test_every_rule_says_which_field_and_what_to_do(plural):
    def rules(here: Any) -> list[dict[str, str]]:
        if isinstance(here, dict):
            own = here.get("x-kubernetes-validations", [])
            return own + [
                rule for key, value in here.items() if key != "x-kubernetes-validations" for rule in rules(value)
            ]
        return []

    for rule in rules(schema(plural)):
        assert rule["message"].startswith(("spec.", "metadata.")), rule
        assert ": " in rule["message"], rule


@pytest.mark.parametrize("plural", KINDS)
def test_names_category_and_status(plural):
    spec = crd(plural)["spec"]
    assert spec["names"]["categories"] == ["voicefleet"]
    assert spec["names"]["shortNames"]
    version = spec["versions"][0]
    if plural != "topologyslices":
        assert "status" in version["subresources"]
        condition = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"]
        assert condition["x-kubernetes-list-map-keys"] == ["type"]


def address_pattern() -> re.Pattern[str]:
    """The pattern in the rule of spec.advertise.addresses, which stands for isIP() (unknown before Kubernetes 1.31)."""
    rules = schema("voicerelays")["properties"]["spec"]["properties"]["advertise"]["x-kubernetes-validations"]
    [pattern] = [found[1] for rule in rules if (found := re.search(r"a\.matches\('([^']+)'\)", rule["rule"]))]
    return re.compile(pattern)


@given(
    st.one_of(
        st.ip_addresses().map(str),
        st.text("0123456789abcdefF:.", max_size=45),
        st.from_regex(r"[0-9a-f:]{2,30}", fullmatch=True),
    )
)
def test_the_address_rule_takes_addresses_and_nothing_else(text):
    try:
        ipaddress.ip_address(text)
        valid = "." not in text or ":" not in text  # IPv4 inside of IPv6 is nothing that a relay advertises
    except ValueError:
        valid = False
    assert bool(address_pattern().match(text)) == valid
