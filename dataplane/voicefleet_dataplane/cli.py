"""The `voicefleet` command: the three roles, and tools for people who run calls against a fleet.

Each command's work is in `commands/`, imported when it runs: `voicefleet --help` must not wait for a WebRTC stack.
"""

from pathlib import Path
from typing import Annotated

import typer

from voicefleet_dataplane.commands.roles import run_role
from voicefleet_dataplane.commands.where import where as where_command

app = typer.Typer(
    name="voicefleet",
    help="Voice-AI WebRTC fleets: the dataplane's roles, and a client to call them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_ROLE_HELP = "Settings come from VOICEFLEET_* environment variables; `--settings` lists them."
_ListSettings = Annotated[bool, typer.Option("--settings", help="List the variables with their defaults, and exit.")]


@app.command(help=f"Run a relay: one public UDP port in front of the fleet. {_ROLE_HELP}")
def relay(settings: _ListSettings = False) -> None:
    """Run the relay role."""
    run_role("relay", only_list=settings)


@app.command(help=f"Run a transceiver: the owner of sessions, one slot. {_ROLE_HELP}")
def transceiver(settings: _ListSettings = False) -> None:
    """Run the transceiver role."""
    run_role("transceiver", only_list=settings)


@app.command(help=f"Run a gateway: HTTPS for callers' offers. {_ROLE_HELP}")
def gateway(settings: _ListSettings = False) -> None:
    """Run the gateway role."""
    run_role("gateway", only_list=settings)


@app.command()
def where(
    name: Annotated[str, typer.Argument(metavar="UFRAG|CALL", help="A server ufrag (24 characters) or a call id.")],
    hint_keys: Annotated[
        Path | None, typer.Option(help="Key file of hints (keys.json): verifies a ufrag.", exists=True, dir_okay=False)
    ] = None,
    call_keys: Annotated[
        Path | None,
        typer.Option(help="Key file of call ids (keys.json): verifies a call.", exists=True, dir_okay=False),
    ] = None,
    topology: Annotated[
        Path | None, typer.Option(help="Topology file: names the pod that owns the slot.", exists=True, dir_okay=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say which transceiver a server ufrag or a call id belongs to.

    Without the key file the fields are read but not verified: whoever made the text could have written anything.
    Exits 1 when the text is neither, when its tag is wrong, or when the topology knows no such slot and generation.
    """
    raise typer.Exit(where_command(name, hint_keys=hint_keys, call_keys=call_keys, topology=topology, as_json=json))


def main() -> None:
    """Run the command line."""
    app()
