"""The `voicefleet` command: the three roles, and tools for people who run calls against a fleet.

Each command's work is in `commands/`, imported when it runs: `voicefleet --help` must not wait for a WebRTC stack.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from voicefleet_contract.release import release
from voicefleet_contract.resources import BackendProfile, BackendType
from voicefleet_dataplane.commands.roles import run_role
from voicefleet_dataplane.commands.where import where as where_command

app = typer.Typer(
    name="voicefleet",
    help="Voice-AI WebRTC fleets: the dataplane's roles, and a client to call them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Client(StrEnum):
    """Who places the calls of `voicefleet call`."""

    PACKET = "packet"
    AIORTC = "aiortc"


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"voicefleet {release()}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the release, and exit.")
    ] = False,
) -> None:
    """Voice-AI WebRTC fleets: the dataplane's roles, and a client to call them."""


_SPEECH = Path("/usr/share/sounds/alsa")
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


@app.command()
def call(
    url: Annotated[str, typer.Argument(help="The gateway, for example https://voice.example.com")],
    key: Annotated[str, typer.Option(envvar="VOICEFLEET_API_KEY", help="Bearer key.")] = "",
    wav: Annotated[
        list[Path] | None,
        typer.Option(help="Speech to send; several: one a call, in turn. Default: Debian's alsa-utils.", exists=True),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many calls.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="How many at once.")] = 10,
    duration: Annotated[float, typer.Option(min=0.5, help="Seconds of speech in each call.")] = 5.0,
    region: Annotated[str, typer.Option(help="Ask for an ingress in this region.")] = "",
    pool: Annotated[str, typer.Option(help="Ask for this pool.")] = "",
    cacert: Annotated[Path | None, typer.Option(help="CA of the gateway's certificate.", exists=True)] = None,
    insecure: Annotated[bool, typer.Option(help="Do not verify the gateway's certificate.")] = False,
    record: Annotated[Path | None, typer.Option(help="Write what was sent and heard into this directory.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a call.")] = False,
    client: Annotated[
        Client,
        typer.Option(
            help="Whose WebRTC stack: ours at packet level, cheap and exact; or stock aiortc, which shares none of it."
        ),
    ] = Client.PACKET,
    rebind_after: Annotated[
        float,
        typer.Option(min=0.0, help="Go on from another port after so many seconds, as behind a NAT that rebinds."),
    ] = 0.0,
    mute: Annotated[bool, typer.Option("--mute", help="Send no audio: only the set-up and checks.")] = False,
    no_checks: Annotated[
        bool, typer.Option("--no-checks", help="Send no checks once connected, as some stacks.")
    ] = False,
) -> None:
    """Place calls with recorded speech, and compare what comes back with what was sent.

    Each call plays a recording of its own (the same word a little faster is another recording). A call is well when it
    heard itself and none of the others. The last line is a JSON summary; exits 1 unless all calls are well.
    """
    try:
        from voicefleet_dataplane.commands.call import CallOptions
        from voicefleet_dataplane.commands.call import call as call_command
        from voicefleet_dataplane.shell.client.trouble import Trouble
    except ModuleNotFoundError as error:
        typer.echo(f"error: {error.name} is not installed; install voicefleet[dataplane,client]", err=True)
        raise typer.Exit(2) from None

    if not url.startswith(("https://", "http://")):
        typer.echo(f"error: {url!r} is not a gateway's URL; write for example https://voice.example.com", err=True)
        raise typer.Exit(2)
    if client is not Client.PACKET and (rebind_after or mute or no_checks):
        typer.echo("error: --rebind-after, --mute and --no-checks need our own client: --client packet", err=True)
        raise typer.Exit(2)
    wavs = tuple(wav or sorted(_SPEECH.glob("*_*.wav")))
    if not wavs:
        typer.echo(f"error: no speech in {_SPEECH} (Debian's alsa-utils has some); name a file with --wav", err=True)
        raise typer.Exit(2)
    options = CallOptions(
        url=url,
        wavs=wavs,
        count=count,
        concurrency=concurrency,
        duration_s=duration,
        key=key,
        region=region,
        pool=pool,
        verify=False if insecure else str(cacert) if cacert else True,
        record=record,
        as_json=json,
        client=client,
        trouble=Trouble(rebind_after_s=rebind_after, mutes=mute, checks=not no_checks),
    )
    raise typer.Exit(call_command(options))


@app.command()
def ask(
    url: Annotated[str, typer.Argument(help="The gateway, for example https://voice.example.com")],
    key: Annotated[str, typer.Option(envvar="VOICEFLEET_API_KEY", help="Bearer key.")] = "",
    say: Annotated[
        list[str] | None, typer.Option(help="A question, which a voice of ours asks; several: in turn.")
    ] = None,
    wav: Annotated[
        list[Path] | None, typer.Option(help="A recorded question; asked before the others.", exists=True)
    ] = None,
    voice: Annotated[str, typer.Option(help="The engine that says your questions.")] = "Hibari",
    pool: Annotated[str, typer.Option(help="Ask for this pool.")] = "",
    cacert: Annotated[Path | None, typer.Option(help="CA of the gateway's certificate.", exists=True)] = None,
    insecure: Annotated[bool, typer.Option(help="Do not verify the gateway's certificate.")] = False,
    record: Annotated[Path | None, typer.Option(help="Write what was heard into this WAV.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a question.")] = False,
) -> None:
    """Speak to an agent of a pool: what it heard, what it answered, and how long the silence between was.

    One call, with stock aiortc; the questions one after the other. Exits 1 unless each is answered with speech.
    """
    try:
        from voicefleet_dataplane.commands.ask import AskOptions
        from voicefleet_dataplane.commands.ask import ask as ask_command
    except ModuleNotFoundError as error:
        typer.echo(f"error: {error.name} is not installed; install voicefleet[dataplane,client,pipeline]", err=True)
        raise typer.Exit(2) from None

    if not say and not wav:
        typer.echo("error: nothing to ask; use --say or --wav", err=True)
        raise typer.Exit(2)
    options = AskOptions(
        url=url,
        key=key,
        pool=pool,
        wavs=tuple(wav or ()),
        texts=tuple(say or ()),
        engine=voice,
        verify=False if insecure else str(cacert) if cacert else True,
        record=record,
        as_json=json,
    )
    raise typer.Exit(ask_command(options))


@app.command()
def dev(
    transceivers: Annotated[int, typer.Option(min=1, help="How many transceivers.")] = 2,
    port: Annotated[int, typer.Option(help="The gateway's port; 0: any free one.")] = 0,
    topology: Annotated[
        Path | None, typer.Option(help="A topology file (loopback addresses) instead of a made one.", exists=True)
    ] = None,
    backend: Annotated[
        BackendType, typer.Option(help="Who speaks at the other end: the protocol of your agent.")
    ] = BackendType.ECHO,
    backend_url: Annotated[
        str, typer.Option(help="Your agent's WebSocket, for example ws://127.0.0.1:9000/, or a pipeline's hook.")
    ] = "",
    backend_key_file: Annotated[
        Path | None, typer.Option(help="A file with the key that your agent wants as a bearer token.", exists=True)
    ] = None,
    backend_profile: Annotated[
        BackendProfile, typer.Option(help="Dialect of the Realtime API.")
    ] = BackendProfile.OPENAI,
) -> None:
    """Run a whole fleet on loopback, without Kubernetes, until Ctrl-C.

    Calls hear themselves; with --backend and --backend-url they speak to your agent (docs/agents.md). A Pipeline without a URL
    says what it heard (docs/pipeline.md).
    """
    from voicefleet_dataplane.commands.dev import dev as dev_command

    if backend is not BackendType.PIPELINE and (backend is BackendType.ECHO) != (not backend_url):
        typer.echo("error: --backend-url and a --backend other than Echo go together", err=True)
        raise typer.Exit(2)
    fields = {"backend": backend.value, "backend_profile": backend_profile.value}
    fields |= {"backend_url": backend_url} if backend_url else {}
    fields |= {"backend_key_file": str(backend_key_file.absolute())} if backend_key_file else {}
    fields |= {"pipeline_text": "Repeat"} if backend is BackendType.PIPELINE and not backend_url else {}
    raise typer.Exit(dev_command(transceivers, port, topology, fields))


def main() -> None:
    """Run the command line."""
    app()
