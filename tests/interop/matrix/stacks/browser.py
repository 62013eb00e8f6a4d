"""A client in a browser: page.js does it; this starts the browser, and carries commands and events between the page and the test.

``python -m tests.interop.matrix.stacks.browser Chromium|Firefox``
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from aiohttp import WSMsgType, web

from tests.interop.conftest import SPEECH
from tests.interop.matrix.stacks.lines import Command, say, serve
from tests.support.chromium import chromium
from tests.support.firefox import firefox
from voicefleet_dataplane.media.speech import RATE, write_wav

_PAGE = "<!doctype html><meta charset=utf-8><title>voicefleet matrix</title><script src=/page.js></script>"
_LOADED_WITHIN_S = 40.0


class Page:
    """The page, and its server."""

    def __init__(self) -> None:
        self._socket: asyncio.Future[web.WebSocketResponse] = asyncio.get_running_loop().create_future()
        self._recording = self._heard = Path()

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/page.js", self._script)
        app.router.add_get("/recording", self._speech)
        app.router.add_get("/socket", self._join)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()

    async def loaded(self) -> None:
        async with asyncio.timeout(_LOADED_WITHIN_S):
            await asyncio.shield(self._socket)

    async def handle(self, command: Command) -> None:
        if command["do"] == "offer":
            self._recording = Path(command["wav"])
        if command["do"] == "listen":
            self._heard = Path(command["path"])
        await self._socket.result().send_json(command)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    async def _script(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(Path(__file__).parent / "page.js")

    async def _speech(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(self._recording)

    async def _join(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        self._socket.set_result(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                sys.stdout.write(message.data + "\n")
                sys.stdout.flush()
            elif message.type is WSMsgType.BINARY:
                samples = np.frombuffer(message.data, "<i2")
                self._heard.write_bytes(write_wav(samples))
                say("audio", form="wav", seconds=len(samples) / RATE)
        return socket


@contextlib.asynccontextmanager
async def at(program: str, url: str) -> AsyncIterator[None]:
    """A browser that shows a page."""
    if program == "Chromium":
        async with chromium(next(SPEECH.glob("*.wav"))) as browser:  # its microphone is not used
            await browser.open(url)
            yield
    else:
        async with firefox(url):
            yield


async def main() -> None:
    page = Page()
    async with page.served() as url, at(sys.argv[1], url):
        await page.loaded()
        await serve(page.handle)


if __name__ == "__main__":
    asyncio.run(main())
