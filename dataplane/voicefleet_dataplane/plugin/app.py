"""The command `kubectl-voicefleet`: kubectl runs it as `kubectl voicefleet`."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from voicefleet_contract import names
from voicefleet_contract.drain import DrainRequestError, parse_drain
from voicefleet_dataplane.core.gateway.geo import Place
from voicefleet_dataplane.core.gateway.placement import UnknownRegionError
from voicefleet_dataplane.plugin.fleet import FleetView, read_fleet
from voicefleet_dataplane.plugin.kubectl import Kubectl, KubectlError
from voicefleet_dataplane.plugin.output import Output, say_error, table, write
from voicefleet_dataplane.plugin.placement import explain_placement
from voicefleet_dataplane.plugin.plan_scale import NoSuchPool, plan_scale
from voicefleet_dataplane.plugin.status import report
from voicefleet_dataplane.plugin.trace import NotAName
from voicefleet_dataplane.plugin.trace import trace as trace_call

app = typer.Typer(
    name="kubectl-voicefleet",
    help="The fleet at a glance, calls hop by hop, drains and what scaling would do.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
plan_app = typer.Typer(help="What a change would do, before it does.", no_args_is_help=True)
explain_app = typer.Typer(help="Why the fleet decides as it does.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")
app.add_typer(explain_app, name="explain")

_Out = Annotated[Output, typer.Option("-o", "--output", help="table, wide, json or yaml.")]
_KINDS = {"pod": "pod", "node": "node", "transceiver": "transceiver", "pool": "transceiver"}


class _Given:
    """The flags before the command."""

    kubectl = Kubectl()


def _flags(
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Where the fleet is.")] = "",
    context: Annotated[str, typer.Option(help="The kubeconfig context.")] = "",
    kubeconfig: Annotated[str, typer.Option(help="The kubeconfig file.")] = "",
) -> None:
    """Take the flags that kubectl has everywhere."""
    _Given.kubectl = Kubectl(namespace, context, kubeconfig)


app.callback()(_flags)


def _read(*, sessions: bool = True) -> FleetView:
    return read_fleet(_Given.kubectl, sessions=sessions)


@app.command()
def status(output: _Out = Output.TABLE) -> None:
    """Show the fleet at a glance, problems first. Exits 1 when there is one."""
    found = report(_read())
    if output in (Output.JSON, Output.YAML):
        write(asdict(found), output)
    else:
        for problem in found.problems:
            typer.echo(typer.style(f"✗ {problem}", fg="red"))
        if found.healthy:
            typer.echo(typer.style("✓ no problem", fg="green"))
        for note in found.notes:
            typer.echo(f"· {note}")
        for rows in (found.relays, found.pools):
            if rows:
                typer.echo("\n" + table(rows if output is Output.WIDE else [_narrow(row) for row in rows]))
    raise typer.Exit(0 if found.healthy else 1)


def _narrow(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("capacity", "ring epoch", "ports", "poor calls")}


@app.command()
def trace(
    name: Annotated[str, typer.Argument(metavar="CALL|UFRAG", help="A call id or a server ufrag.")],
    output: _Out = Output.TABLE,
) -> None:
    """Follow a call: client, relay, owner, node, with what each of them says. Exits 1 when a hop contradicts it."""
    hops = trace_call(_read(), name)
    if output in (Output.JSON, Output.YAML):
        write([asdict(hop) for hop in hops], output)
    else:
        marks = {"ok": typer.style("✓", fg="green"), "no": typer.style("✗", fg="red"), "?": "?"}
        width = max(len(hop.what) for hop in hops)
        for hop in hops:
            typer.echo(f"{marks[hop.mark]} {hop.what.ljust(width)}  {hop.says}")
    raise typer.Exit(1 if any(hop.mark == "no" for hop in hops) else 0)


@app.command()
def top(
    interval: Annotated[float, typer.Option(min=1.0, help="Seconds between two pictures.")] = 3.0,
    rows: Annotated[int, typer.Option(min=1, help="How many calls to show.")] = 20,
    once: Annotated[bool, typer.Option(help="Draw one picture and exit.")] = False,
) -> None:
    """Show pools and the calls that are worst off, live until Ctrl-C."""
    from voicefleet_dataplane.plugin.top import top as draw_top  # noqa: PLC0415  # rich's pictures are slow to import

    raise typer.Exit(draw_top(_read, interval, rows, once=once))


@app.command()
def drain(
    what: Annotated[str, typer.Argument(metavar="KIND/NAME", help="pod/NAME, node/NAME or transceiver/NAME.")],
    policy: Annotated[str, typer.Option(help="Wait or HangUp; default: the pool's.")] = "",
    deadline: Annotated[str, typer.Option(help="How long calls are waited for, for example 10m.")] = "",
) -> None:
    """Let a pod, a node or a whole pool take no new calls; its calls end by themselves until the deadline."""
    value = " ".join(filter(None, (policy, deadline))) or "true"
    try:
        parse_drain(value)
    except DrainRequestError as error:
        raise typer.BadParameter(str(error), param_hint="--policy, --deadline") from None
    typer.echo(_Given.kubectl.run("annotate", _named(what), f"{names.ANNOTATION_DRAIN}={value}", "--overwrite").strip())


@app.command()
def undrain(
    what: Annotated[str, typer.Argument(metavar="KIND/NAME", help="pod/NAME, node/NAME or transceiver/NAME.")],
) -> None:
    """Take a drain back. What is fenced already goes on leaving: its replacement stays."""
    typer.echo(_Given.kubectl.run("annotate", _named(what), f"{names.ANNOTATION_DRAIN}-").strip())


def _named(what: str) -> str:
    kind, slash, name = what.partition("/")
    if not slash or not name or kind not in _KINDS:
        raise typer.BadParameter("write pod/NAME, node/NAME or transceiver/NAME", param_hint="KIND/NAME")
    return f"{_KINDS[kind]}/{name}"


@plan_app.command("scale")
def scale(
    pool: Annotated[str, typer.Argument(help="The Transceiver.")],
    replicas: Annotated[int, typer.Argument(min=0, help="How many members.")],
    output: _Out = Output.TABLE,
) -> None:
    """Say what scaling a pool would move, need and wait for. Exits 1 when something would not fit."""
    planned = plan_scale(_read(), pool, replicas)
    if output in (Output.JSON, Output.YAML):
        write(planned.lines(), output)
    else:
        for what, said in planned.lines().items():
            for line in said if isinstance(said, list) else [said]:
                typer.echo(f"{what:<38} {line}")
    raise typer.Exit(1 if planned.problems else 0)


@explain_app.command("placement")
def placement(
    pool: Annotated[str, typer.Option(help="The Transceiver; default: the only one.")] = "",
    region: Annotated[str, typer.Option(help="The region that the caller asks for.")] = "",
    latitude: Annotated[float | None, typer.Option(min=-90, max=90, help="Where the caller is.")] = None,
    longitude: Annotated[float | None, typer.Option(min=-180, max=180, help="Where the caller is.")] = None,
    output: _Out = Output.TABLE,
) -> None:
    """Say which ingress and which owners a would-be caller would get, and why."""
    fleet = _read(sessions=False)
    if fleet.topology is None:
        raise KubectlError(f"topology: {fleet.topology_problem}")
    if (latitude is None) != (longitude is None):
        raise typer.BadParameter("give both --latitude and --longitude", param_hint="--latitude")
    pools = [one["metadata"]["name"] for one in fleet.pools]
    if not pool and len(pools) != 1:
        raise typer.BadParameter(f"name one of {', '.join(pools) or 'none'}", param_hint="--pool")
    caller = Place(latitude, longitude) if latitude is not None and longitude is not None else None
    rows = explain_placement(fleet, pool or pools[0], caller, region)
    if output in (Output.JSON, Output.YAML):
        write(rows, output)
    else:
        typer.echo(table(rows))


def main() -> None:
    """Run the command line; what a person did wrong is one line and exit code 1."""
    try:
        app()
    except (KubectlError, NotAName, NoSuchPool, UnknownRegionError) as error:
        say_error(str(error))
        raise SystemExit(1) from None
