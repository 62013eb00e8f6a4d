"""The OpenAPI document says what the gateway serves, and nothing else."""

import json
import re
from pathlib import Path

import pytest

from tests.support.gateway_world import KEY, fleet
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.shell.gateway.api.client_secrets import ClientSecretRequest
from voicefleet_dataplane.shell.gateway.api.openapi import schema_of

NO_API = {"/", "/page/{name}"}


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    return directory


async def test_every_route_is_in_the_document_and_every_path_is_served(secrets_dir):
    async with fleet(secrets_dir) as f:
        response = await f.http.get("/openapi.json")
        document = response.json()
        assert document["openapi"] == "3.1.0"
        described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
        served = {
            (route.method, route.resource.canonical)
            for route in f.gateway._public_app().router.routes()
            if route.method not in {"OPTIONS", "HEAD"} and route.resource.canonical not in NO_API
        }
        assert described == served
        unchanged = await f.http.get("/openapi.json", headers={"If-None-Match": response.headers["ETag"]})
        assert unchanged.status_code == 304


async def test_the_document_is_whole(secrets_dir):
    async with fleet(secrets_dir) as f:
        document = (await f.http.get("/openapi.json")).json()
    for reference in re.findall(r'"\$ref": "([^"]*)"', json.dumps(document)):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    operations = [(path, one) for path, item in document["paths"].items() for one in item.values()]
    names = [one["operationId"] for _, one in operations]
    assert len(set(names)) == len(names)
    for path, one in operations:
        declared = {parameter["name"] for parameter in one.get("parameters", ()) if parameter["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), path
        for requirement in one["security"]:
            assert requirement.keys() <= document["components"]["securitySchemes"].keys()
        assert not one["security"] or {"401", "429"} <= one["responses"].keys(), path


def test_a_models_schema_stands_in_one_piece():
    schema = schema_of(ClientSecretRequest)
    assert "$ref" not in json.dumps(schema)
    life = schema["properties"]["expires_after"]["anyOf"][0]["properties"]["seconds"]
    assert (life["minimum"], life["maximum"], life["default"]) == (10, 7200, 600)
