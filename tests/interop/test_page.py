"""The gateway's page in a real browser: a person signs in, talks, hears, reads, looks at the fleet, hangs up."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import voicefleet_dataplane
from tests.support.chromium import Chromium, chromium
from tests.support.page import (
    IS_CONNECTED,
    MARKS,
    SELF_SIGNED,
    STEPS,
    assert_accessible,
    ink,
    picture,
    press,
    sign_in,
    text,
    until,
)

pytestmark = pytest.mark.interop

STYLE = (Path(voicefleet_dataplane.__file__).parent / "page" / "page.css").read_text()
BY_DAY = dict(reversed(re.findall(r"--(\w+): (#\w{6});", STYLE)))  # the first of each name
ACCENT, PRESSED = BY_DAY["accent"], BY_DAY["bad"]
STEP_COLOURS = [BY_DAY[step] for step in ("post", "stun", "dtls", "audio")]


@pytest.fixture
async def page(fleet, speech) -> AsyncIterator[Chromium]:
    async with chromium(speech[0], SELF_SIGNED) as browser:
        await browser.open(f"{fleet.url}/")
        yield browser


async def test_a_person_talks_hears_and_sees_how_it_goes(fleet, page: Chromium) -> None:
    start = await picture(page, "1-start", ["connect", "talk", "level"])
    assert start["connect"].most_common(1)[0][0] == ACCENT
    await sign_in(page, fleet.api_key)
    await press(page, "connect")
    await until(page, IS_CONNECTED)
    await until(page, f"({MARKS}).length === {len(STEPS)}")
    marks = await page.evaluate(MARKS)
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
    call = await picture(page, "2-call", ["talk", "level", "waterfall", "plots", "fleet-view"])
    assert call["talk"].most_common(1)[0][0] == PRESSED != start["talk"].most_common(1)[0][0]
    assert call["level"] != start["level"]
    assert all(call["waterfall"][colour] > 10 for colour in STEP_COLOURS)
    assert all(ink(call[drawn]) > 0.01 for drawn in ("plots", "fleet-view"))
    await assert_accessible(page)
    await page.command("Input.dispatchKeyEvent", type="keyUp", key=" ", code="Space")
    assert await page.evaluate("document.getElementById('talk').ariaPressed") == "false"
    await until(page, f"{level} < 0.02")
    phone = await picture(page, "3-phone", ["waterfall"], width=390, height=1900, mobile=True)
    assert all(phone["waterfall"][colour] > 5 for colour in STEP_COLOURS)

    await press(page, "hang-up")
    assert await text(page, "state") == "Not connected."
    await until(page, "document.getElementById('fleet-problem').textContent.startsWith('0 calls')")


async def test_a_hang_up_by_somebody_else_is_seen_at_once(fleet, page: Chromium) -> None:
    """Not when its checks go unanswered: that is said in other words."""
    await page.evaluate(
        "(real => { window.fetch = async (...a) => { const r = await real(...a);"
        " window.location_ ??= r.headers.get('Location'); return r; }; })(window.fetch)"
    )
    await sign_in(page, fleet.api_key)
    await press(page, "connect")
    await until(page, f"({MARKS}).length === {len(STEPS)}")
    path = await page.evaluate("window.location_")
    async with httpx.AsyncClient(verify=False, trust_env=False) as http:
        done = await http.post(f"{fleet.url}{path}/hangup", headers={"Authorization": f"Bearer {fleet.api_key}"})
    assert done.status_code == 200
    await until(page, "document.getElementById('problem').textContent === 'The other side hung up.'")
    assert await text(page, "state") == "Not connected."


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
    """What Chromium itself computes for screen readers; and what axe-core finds, by day and by night."""
    for scheme in ("light", "dark"):
        await page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await assert_accessible(page)
        brightest = (await picture(page, f"5-{scheme}", ["call"]))["call"].most_common(1)[0][0]
        assert (brightest == "#ffffff") is (scheme == "light")
    tree = (await page.command("Accessibility.getFullAXTree"))["nodes"]
    named = {(n["role"]["value"], n.get("name", {}).get("value", "")) for n in tree if not n["ignored"]}
    for expected in (
        ("textbox", "API key"), ("button", "Call"), ("button", "Hold to talk"), ("button", "Hang up"), ("log", "Transcript"),
        ("checkbox", "Leave the microphone open"), ("meter", "Level of the agent's voice"), ("heading", "Transcript"),
    ):  # fmt: skip
        assert expected in named, expected
    assert not [name for role, name in named if role in {"button", "textbox", "checkbox", "link"} and not name]
