"""What a person does on the gateway's page, in a real browser: signs in, presses, reads.

With VOICEFLEET_SCREENSHOTS=DIR pictures of the page are left there.
"""

import asyncio
import base64
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.chromium import Chromium
from tests.support.npm import node_modules

SELF_SIGNED = ["--ignore-certificate-errors"]  # Chromium has no flag to add a CA
STEPS = ["microphone", "answer", "stun", "dtls", "audio"]  # of the set-up
IS_CONNECTED = "document.getElementById('call').dataset.state === 'connected'"
MARKS = "[...document.querySelectorAll('#waterfall [data-step]')].map(e => [e.dataset.step, Number(e.dataset.at)])"
_KEY = "document.getElementById('key')"

# Chromium itself decodes the picture, and counts.
_LOOK = """
async (png, elements) => {
  const image = await createImageBitmap(new Blob([Uint8Array.from(atob(png), c => c.charCodeAt(0))], {type: 'image/png'}));
  const draw = new OffscreenCanvas(image.width, image.height).getContext('2d');
  draw.drawImage(image, 0, 0);
  const colours = {};
  for (const id of elements) {
    const box = document.getElementById(id).getBoundingClientRect(), counts = colours[id] = {};
    const {data} = draw.getImageData(box.x + scrollX, box.y + scrollY, Math.max(1, box.width), Math.max(1, box.height));
    for (let at = 0; at < data.length; at += 4) {
      const colour = '#' + [0, 1, 2].map(i => data[at + i].toString(16).padStart(2, '0')).join('');
      counts[colour] = (counts[colour] || 0) + 1;
    }
  }
  return {colours, wide: document.documentElement.scrollWidth};
}
"""


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


async def picture(page: Chromium, name: str, of: Sequence[str] = (), **metrics: Any) -> dict[str, Counter[str]]:
    """Take a picture of the whole page; gives how many pixels of which colour (#rrggbb) there are in the box of each element.

    Nothing may stand out of the page at either side.
    """
    size = {"width": 1280, "height": 1000, "deviceScaleFactor": 1, "mobile": False} | metrics
    await page.command("Emulation.setDeviceMetricsOverride", **size)
    shot = await page.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
    if directory := os.environ.get("VOICEFLEET_SCREENSHOTS"):
        await asyncio.to_thread((Path(directory) / f"{name}.png").write_bytes, base64.b64decode(shot["data"]))
    seen = await page.evaluate(f"({_LOOK})({json.dumps(shot['data'])}, {json.dumps(list(of))})")
    assert seen["wide"] <= size["width"], f"{name}: the page is {seen['wide']} pixels wide"
    return {element: Counter(colours) for element, colours in seen["colours"].items()}


def ink(colours: Counter[str]) -> float:
    """Which part of a box is not of its commonest colour."""
    return 1 - colours.most_common(1)[0][1] / colours.total()


async def assert_accessible(page: Chromium) -> None:
    """What axe-core finds wrong: contrast, names, roles, order of headings, …"""
    await page.evaluate(f"(() => {{ {(node_modules() / 'axe-core' / 'axe.min.js').read_text()} }})()")
    found = await page.evaluate(
        "axe.run().then(all => all.violations.map(v => [v.id, v.nodes.map(n => n.failureSummary)]))"
    )
    assert found == [], found


async def text(page: Chromium, element: str) -> str:
    return str(await page.evaluate(f"document.getElementById('{element}').textContent"))
