"""Debian's Firefox, headless, with a page: the page brings what is done in it.

Firefox's AudioContext stays suspended on a machine without a sound card, so it gets one: a PulseAudio of its own that plays to nobody.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

PROGRAM, SOUND = "firefox-esr", "pulseaudio"
_SOUND_WITHIN_S = 20.0
_PREFERENCES = {
    # Nothing but addresses is reached. (With a proxy that leads nowhere, WebRTC gathers no candidates.)
    "network.dns.disabled": True,
    # Calls to the same machine: a page that may not use a microphone gets the address of the default route alone.
    "permissions.default.microphone": 1,
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    # Sound without a click.
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    # No pages of its own.
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.aboutwelcome.enabled": False,
    "browser.preonboarding.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "termsofuse.bypassNotification": True,
}


@contextlib.asynccontextmanager
async def firefox(url: str) -> AsyncIterator[None]:
    """Start Firefox at a page, and end every process after it."""
    home = Path(tempfile.mkdtemp(prefix="voicefleet-firefox-"))
    profile = home / "profile"
    profile.mkdir()
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines))
    try:
        async with _sound_card(home) as address:
            arguments = ("--headless", "--no-remote", "--profile", str(profile), url)
            async with _running(PROGRAM, *arguments, home=home, PULSE_SERVER=address, MOZ_CRASHREPORTER_DISABLE="1"):
                yield
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.asynccontextmanager
async def _sound_card(home: Path) -> AsyncIterator[str]:
    socket = home / "sound"
    modules = ("module-null-sink rate=48000", f"module-native-protocol-unix auth-anonymous=1 socket={socket}")
    load = [argument for module in modules for argument in ("-L", module)]
    options = ("-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm=yes")
    async with _running(SOUND, *options, *load, home=home, XDG_RUNTIME_DIR=str(home)) as process:
        async with asyncio.timeout(_SOUND_WITHIN_S):
            while not socket.exists():
                assert process.returncode is None, f"{SOUND} ended with {process.returncode}"
                await asyncio.sleep(0.02)
        yield f"unix:{socket}"


@contextlib.asynccontextmanager
async def _running(
    name: str, *arguments: str, home: Path, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    program = shutil.which(name)
    assert program, f"{name} is missing: run `make deps`"
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sys.stderr,  # our own stdout may be spoken for
        start_new_session=True,
        env=os.environ | {"HOME": str(home)} | environment,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: its children too
        await process.wait()
