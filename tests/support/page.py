"""What a person does on the gateway's page, in a real browser: signs in, presses, reads.

With VOICEFLEET_SCREENSHOTS=DIR pictures of the page are left there.
"""

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

from tests.support.chromium import Chromium

SELF_SIGNED = ["--ignore-certificate-errors"]  # Chromium has no flag to add a CA
STEPS = ["microphone", "answer", "stun", "dtls", "audio"]  # of the set-up
IS_CONNECTED = "document.getElementById('call').dataset.state === 'connected'"
MARKS = "[...document.querySelectorAll('#waterfall [data-step]')].map(e => [e.dataset.step, Number(e.dataset.at)])"
_KEY = "document.getElementById('key')"


async def until(page: Chromium, expression: str, within_s: float = 20.0) -> Any:
    """Wait until an expression is true in the page, and give its value."""
    async with asyncio.timeout(within_s):
        while not (value := await page.evaluate(expression)):
            await asyncio.sleep(0.05)
        return value


async def sign_in(page: Chromium, key: str) -> None:
    await page.evaluate(f"{_KEY}.value = {json.dumps(key)}; {_KEY}.dispatchEvent(new Event('change'))")


async def press(page: Chromium, element: str) -> None:
    """As a finger does: where the element is, if it is there to be pressed."""
    box = await page.evaluate(
        f"(() => {{ const e = document.getElementById('{element}'); e.scrollIntoView(); const b = e.getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    for what in ("mousePressed", "mouseReleased"):
        await page.command("Input.dispatchMouseEvent", type=what, x=box[0], y=box[1], button="left", clickCount=1)


async def picture(page: Chromium, name: str, **metrics: Any) -> None:
    directory = os.environ.get("VOICEFLEET_SCREENSHOTS")
    if directory:
        size = {"width": 1280, "height": 1000, "deviceScaleFactor": 1, "mobile": False} | metrics
        await page.command("Emulation.setDeviceMetricsOverride", **size)
        shot = await page.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await asyncio.to_thread((Path(directory) / f"{name}.png").write_bytes, base64.b64decode(shot["data"]))


async def text(page: Chromium, element: str) -> str:
    return str(await page.evaluate(f"document.getElementById('{element}').textContent"))
