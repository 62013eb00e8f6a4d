"""`make interop-matrix`: every stack does every check, and docs/clients.md says what was seen. ARGS="Pion aiortc": only these."""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.interop.conftest import SPEECH
from tests.interop.matrix.call import Place, SetUpError
from tests.interop.matrix.checks import CHECKS
from tests.interop.matrix.client import PATIENCE_S, Client, running
from tests.interop.matrix.content import recording
from tests.interop.matrix.known import WITHIN_S, why_it_fails
from tests.interop.matrix.stacks import STACKS, Stack
from tests.interop.matrix.table import RESULTS, write
from voicefleet_dataplane.commands.dev import DevFleet
from voicefleet_dataplane.media.speech import read_wav

_SETTLE_S = 3.0
NEWS = "news"  # not what known.py says


async def cell(place: Place, stack: Stack, client: Client, check: str) -> dict[str, str]:
    """Do one check; say what was seen."""
    if check in stack.cannot:
        return {"state": "cannot", "words": stack.cannot[check]}
    known = why_it_fails(check, stack.name)
    client.patience_s = WITHIN_S if known else PATIENCE_S
    try:
        words = await CHECKS[check](place, client)
    except SetUpError as problem:
        return {"state": "fails", "words": f"{NEWS}: no call: {_first_line(problem)}"}
    except (AssertionError, TimeoutError) as problem:
        return {"state": "fails", "words": known or f"{NEWS}: {_first_line(problem)}"}
    return {"state": "works", "words": f"{NEWS}: works" if known else words}


def _first_line(problem: BaseException) -> str:
    return str(problem).partition("\n")[0][:200]


async def column(place: Place, stack: Stack) -> dict[str, Any]:
    """Return what a stack does."""
    folder = place.folder / stack.name
    folder.mkdir()
    cells: dict[str, dict[str, str]] = {}
    while left := [check for check in CHECKS if check not in cells]:
        async with running(stack.argv(), folder) as client:  # once more after a crash
            for check in left:
                cells[check] = await cell(place, stack, client, check)
                print(f"{stack.name:16} {check:24} {cells[check]['state']:8} {cells[check]['words']}", flush=True)
                if client.is_over:
                    break
    return {"version": client.version, "cells": cells}


def main() -> None:
    """Run them; the exit code is 1 if something was seen that is not known."""
    wanted = [stack for stack in STACKS if stack.name in sys.argv[1:] or not sys.argv[1:]]
    columns = json.loads(RESULTS.read_text())["stacks"] if RESULTS.exists() else {}
    wavs = sorted(SPEECH.glob("*_*.wav"))
    with tempfile.TemporaryDirectory() as name, DevFleet(transceivers=2) as fleet:
        folder = Path(name)
        place = Place(fleet, recording(wavs[0], folder), read_wav(wavs[-1]), folder, _SETTLE_S)
        for stack in wanted:
            columns[stack.name] = asyncio.run(column(place, stack))
    at = time.strftime("%Y-%m-%d", time.gmtime())
    write({"at": at, "stacks": {stack.name: columns[stack.name] for stack in STACKS if stack.name in columns}})
    news = [
        f"{stack.name}, {check}: {cell['words']}"
        for stack in wanted
        for check, cell in columns[stack.name]["cells"].items()
        if NEWS in cell["words"]
    ]
    if news:
        sys.exit("error: not what known.py says:\n" + "\n".join(news))


if __name__ == "__main__":
    main()
