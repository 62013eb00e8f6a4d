"""Running a role: settings from the environment, an event loop, and a clean end on SIGTERM or Ctrl-C.

SIGTERM (Kubernetes) and SIGINT cancel the role's coroutine, which leaves gracefully in its own order; a second signal
ends the process at once.
"""

import asyncio
import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import typer
import uvloop

from voicefleet_contract.names import EXIT_PORT_TAKEN
from voicefleet_contract.release import release
from voicefleet_contract.settings import (
    PREFIX,
    GatewaySettings,
    RelaySettings,
    SettingsError,
    TransceiverSettings,
)

_SETTINGS: dict[str, type[RelaySettings | TransceiverSettings | GatewaySettings]] = {
    "relay": RelaySettings,
    "transceiver": TransceiverSettings,
    "gateway": GatewaySettings,
}


def run_role(role: str, *, only_list: bool = False) -> None:
    """Run a role until a signal ends it. Exits 2 for wrong settings, 98 when its port is taken, 1 when it cannot start."""
    model = _SETTINGS[role]
    if only_list:
        _print_settings(model)
        return
    try:
        settings = model.from_environment(os.environ)
    except SettingsError as error:
        typer.echo(f"error: {error}\n`voicefleet {role} --settings` lists all variables.", err=True)
        raise typer.Exit(2) from None
    # Imported by name when the role is known: a relay's image need not hold what a transceiver imports.
    several = isinstance(settings, RelaySettings) and settings.workers > 1
    module, name = ("relay.workers", "run_relay_workers") if several else (f"{role}.process", f"run_{role}")
    shell = importlib.import_module(f"voicefleet_dataplane.shell.{module}")
    run: Callable[[Any], Awaitable[None]] = getattr(shell, name)
    run_until_signal(role, settings.log_level, run(settings))


def run_until_signal(role: str, log_level: str, running: Awaitable[None]) -> None:
    """Run a role's coroutine on a loop of its own. Exits 1 when it cannot start."""
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request would drown ours
    logging.getLogger("voicefleet").info("%s, voicefleet %s", role, release())
    try:
        uvloop.run(_until_signal(running))
    except (OSError, ValueError) as error:  # a port in use, a file that is missing or wrong: the text says which
        logging.getLogger("voicefleet").error("%s cannot run: %s", role, error)
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise typer.Exit(EXIT_PORT_TAKEN if taken else 1) from None


async def _until_signal(role: Awaitable[None]) -> None:
    task = asyncio.ensure_future(role)
    loop = asyncio.get_running_loop()

    def leave() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # the next one is meant
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _print_settings(model: type[RelaySettings | TransceiverSettings | GatewaySettings]) -> None:
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"default {field.default!r}"
        typer.echo(f"{PREFIX}{name.upper():<42} {default}")
