"""The gateway's page in a real browser: a person signs in, talks, hears, reads, looks at the fleet, hangs up.

With VOICEFLEET_SCREENSHOTS=DIR pictures of it are left there.
"""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import Chromium, chromium

pytestmark = pytest.mark.interop

SELF_SIGNED = ["--ignore-certificate-errors"]  # the fleet's CA is made for this run; Chromium has no flag to add one
STEPS = ["microphone", "answer", "stun", "dtls", "audio"]
KEY = "document.getElementById('key')"


@pytest.fixture
async def page(fleet, speech) -> AsyncIterator[Chromium]:
    async with chromium(speech[0], SELF_SIGNED) as browser:
        await browser.open(f"{fleet.url}/")
        yield browser


async def until(page: Chromium, expression: str, within_s: float = 20.0) -> Any:
    """Wait until an expression is true in the page, and give its value."""
    async with asyncio.timeout(within_s):
        while not (value := await page.evaluate(expression)):
            await asyncio.sleep(0.05)
        return value


async def sign_in(page: Chromium, key: str) -> None:
    await page.evaluate(f"{KEY}.value = {json.dumps(key)}; {KEY}.dispatchEvent(new Event('change'))")


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


async def test_a_person_talks_hears_and_sees_how_it_goes(fleet, page: Chromium) -> None:
    await picture(page, "1-start")
    await sign_in(page, fleet.api_key)
    await press(page, "connect")
    await until(page, "document.getElementById('call').dataset.state === 'connected'")
    steps = "[...document.querySelectorAll('#waterfall [data-step]')].map(e => [e.dataset.step, Number(e.dataset.at)])"
    await until(page, f"({steps}).length === {len(STEPS)}")
    marks = await page.evaluate(steps)
    assert [name for name, _ in marks] == STEPS
    assert [at for _, at in marks] == sorted(at for _, at in marks)

    level = "Number(document.getElementById('level').value)"
    assert await page.evaluate(level) < 0.02  # nobody presses: the echo of a closed microphone
    await page.evaluate("document.activeElement.blur()")
    await page.command("Input.dispatchKeyEvent", type="keyDown", key=" ", code="Space")
    assert await page.evaluate("document.getElementById('talk').ariaPressed") == "true"
    await until(page, f"{level} > 0.1")
    await until(page, "document.querySelectorAll('#plots polyline')[0].getAttribute('points').split(' ').length >= 3")
    await press(page, "watch-fleet")
    await until(page, "document.querySelectorAll('#fleet-view table').length === 2")
    assert "1 call, 2 transceivers, 1 relay" in await until(
        page, "(t => t.startsWith('1 call,') && t)(document.getElementById('fleet-problem').textContent)"
    )
    await picture(page, "2-call")
    await page.command("Input.dispatchKeyEvent", type="keyUp", key=" ", code="Space")
    assert await page.evaluate("document.getElementById('talk').ariaPressed") == "false"
    await until(page, f"{level} < 0.02")
    await picture(page, "3-phone", width=390, height=1900, mobile=True)

    await press(page, "hang-up")
    assert await text(page, "state") == "Not connected."
    await until(page, "document.getElementById('fleet-problem').textContent.startsWith('0 calls')")


async def test_what_goes_wrong_is_said_in_words(fleet, page: Chromium) -> None:
    await sign_in(page, "sk-not-a-key-of-this-gateway")
    await press(page, "connect")
    await until(page, "document.getElementById('problem').textContent.includes('401: no valid API key')")
    assert await text(page, "state") == "Not connected."
    await press(page, "watch-fleet")
    await until(page, "document.getElementById('fleet-problem').textContent.includes('401')")

    await sign_in(page, fleet.api_key)
    await page.evaluate("document.getElementById('pool').value = 'nowhere'")
    await press(page, "connect")
    await until(page, "document.getElementById('problem').textContent.includes(\"there is no pool 'nowhere'\")")
    await picture(page, "4-refused")


async def test_the_page_is_usable_without_eyes_or_mouse(page: Chromium) -> None:
    """What Chromium itself computes for screen readers."""
    tree = (await page.command("Accessibility.getFullAXTree"))["nodes"]
    named = {(n["role"]["value"], n.get("name", {}).get("value", "")) for n in tree if not n["ignored"]}
    for expected in (
        ("textbox", "API key"), ("button", "Call"), ("button", "Hold to talk"), ("button", "Hang up"), ("log", ""),
        ("checkbox", "Leave the microphone open"), ("meter", "Level of the agent's voice"), ("heading", "Transcript"),
    ):  # fmt: skip
        assert expected in named, expected
    assert not [name for role, name in named if role in {"button", "textbox", "checkbox", "link"} and not name]
