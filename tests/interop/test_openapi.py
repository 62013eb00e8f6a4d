"""schemathesis makes requests of the gateway's OpenAPI document, good and bad ones, and holds the answers against it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.gateway_world import KEY, Fleet, fleet
from tests.support.transceiver_process import HOST, running_transceiver
from voicefleet_contract.topology import Member
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets

pytestmark = pytest.mark.interop

# Not asked: a schema cannot say which text is an offer that can be served, or which fields of a session an agent knows; and it does not
# know 428, which RFC 6585 has for a missing If-Match.
LEFT_OUT = "positive_data_acceptance,negative_data_rejection,missing_required_header"


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    return directory


@contextlib.asynccontextmanager
async def live(secrets_dir: Path) -> AsyncIterator[Fleet]:
    limits = {"max_concurrent_requests_per_client": 100, "fleet_view_keys": "dev"}
    async with (
        running_transceiver(secrets_dir, capacity=10_000) as transceiver,
        fleet(secrets_dir, **limits) as f,
    ):
        f.publish(Member(slot=5, generation=2, name="t", address=HOST, port=transceiver.process.port))
        yield f


async def test_the_gateway_does_what_its_document_says(secrets_dir, tmp_path):
    async with live(secrets_dir) as f:
        url = f"https://{HOST}:{f.gateway.public_port}"
        options = ["--header", f"Authorization: Bearer {KEY}", "--tls-verify", str(secrets_dir / "https" / "ca.crt")]
        options += ["--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--seed", "7", "--no-color"]
        options += ["--checks", "all", "--exclude-checks", LEFT_OUT, "--continue-on-failure", "--warnings", "off"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ
            | {"SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=tmp_path,  # it leaves notes where it stands
        )
        said, _ = await asyncio.wait_for(process.communicate(), 110)
        assert process.returncode == 0, said.decode(errors="replace")[-12_000:]
        metrics = (await f.inner.get("/metrics")).text
        assert 'voicefleet_gateway_calls_total{outcome="created"}' in metrics  # it did get as far as calls
