"""`kubectl voicefleet top`: pools and the calls that are worst off, drawn again every few seconds."""

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from voicefleet_dataplane.plugin.fleet import FleetView
from voicefleet_dataplane.plugin.kubectl import KubectlError, Object
from voicefleet_dataplane.plugin.status import Report, report

_PIPE_COLUMNS = 160  # what a file or a program reads is not cut


def top(read: Callable[[], FleetView], interval_s: float, rows: int, *, once: bool) -> int:
    """Draw until Ctrl-C; once for a pipe or when asked to."""
    console = Console()
    if once or not console.is_terminal:
        Console(width=max(console.width, _PIPE_COLUMNS)).print(draw(read(), rows))
        return 0
    try:
        with Live(draw(read(), rows), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval_s)
                try:
                    live.update(draw(read(), rows), refresh=True)
                except KubectlError as error:
                    live.update(Text(f"{error}\n\nagain in {interval_s:g} s", style="red"), refresh=True)
    except KeyboardInterrupt:
        return 0


def draw(fleet: FleetView, rows: int) -> Group:
    """Return the picture of one moment."""
    found = report(fleet)
    return Group(_problems(found), _pools(found), _calls(fleet, rows))


def _problems(found: Report) -> Text:
    if found.healthy:
        return Text("no problem", style="green")
    return Text("\n".join(found.problems), style="red")


def _pools(found: Report) -> Table:
    table = Table(title="pools", title_justify="left", box=None)
    for name in found.pools[0] if found.pools else ("pool",):
        table.add_column(name, justify="left" if name == "pool" else "right")
    for pool in found.pools:
        table.add_row(*("" if value is None else str(value) for value in pool.values()))
    return table


def _calls(fleet: FleetView, rows: int) -> Table:
    table = Table(title=f"calls, the worst of {len(fleet.sessions)} first", title_justify="left", box=None)
    for name in ("call", "state", "MOS", "RTT ms", "loss %", "jitter ms", "relay", "owner", "client"):
        numeric = name in ("MOS", "RTT ms", "loss %", "jitter ms")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name == "call")
    for one in worst(fleet.sessions)[:rows]:
        status, loss = one["status"], one["status"].get("lossRatio")
        table.add_row(
            one["metadata"]["name"],
            status["state"],
            *(_number(status.get(key)) for key in ("mos", "rttMs")),
            _number(None if loss is None else 100 * loss),
            _number(status.get("jitterMs")),
            status["relay"],
            status["owner"],
            one["spec"]["clientNetwork"],
        )
    return table


def worst(sessions: object) -> list[Object]:
    """Return sessions by MOS, lowest first; those without one last."""
    return sorted(sessions, key=lambda one: one["status"].get("mos", 9.0))  # type: ignore[call-overload,no-any-return]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
