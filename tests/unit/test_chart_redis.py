"""The embedded Redis ends when it is told to: the shell that starts it does not stand in front of it."""

import asyncio
import contextlib
import os
import signal
import textwrap
from pathlib import Path

import redis.asyncio as redis
import yaml

from tests.support.redis_server import HOST, free_port

TEMPLATE = Path(__file__).parents[2] / "charts" / "voicefleet" / "templates" / "redis.yaml"
PASSWORD = "a$(word)of0123456789"


def container() -> dict[str, list[str]]:
    """Command and arguments, as the chart writes them: no value of the chart is in them."""
    text = TEMPLATE.read_text()
    begin = text.rindex("\n", 0, text.index("command:")) + 1
    block = text[begin : text.index("ports:", begin)]
    assert "{{" not in block
    return yaml.safe_load(textwrap.dedent(block))


async def test_redis_takes_its_password_and_ends_with_the_first_sigterm(tmp_path):
    made, port = container(), free_port()
    (tmp_path / "password").write_text(PASSWORD)
    [script] = made["args"]
    script = script.replace("/etc/voicefleet/redis", str(tmp_path)).replace('save ""', f'save ""\nport {port}')
    process = await asyncio.create_subprocess_exec(
        *made["command"], script, stdout=asyncio.subprocess.DEVNULL, cwd=tmp_path, start_new_session=True
    )
    client = redis.Redis(host=HOST, port=port, password=PASSWORD)
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    await client.ping()
                    break
                except redis.ConnectionError:
                    await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0, "the shell ended, and not Redis"
    finally:
        await client.aclose()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
