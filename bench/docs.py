"""`make bench-docs`: what stands between markers in README.md and docs/ is made from bench/results/, never typed.

::

    <!-- bench:relay/cpu -->             the rows of table "cpu": a line for each who, a column for each what
    <!-- bench:relay/targets -->         the goals, and what was reached
    <!-- bench:relay/plot cpu: what -->  a bar for each who, written to bench/results/relay.svg
    <!-- /bench -->

With ``--check`` no document is written, and a difference is an error.
"""

import argparse
import json
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

from bench.report import RESULTS

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"(<!-- bench:(?P<name>[\w-]+)/(?P<what>[^>]*?) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def filled(text: str) -> str:
    """The document with every block made anew. A block whose result file is missing says so."""

    def block(match: re.Match[str]) -> str:
        path = RESULTS / f"{match['name']}.json"
        if not path.exists():
            return match[1] + not_measured(match["name"]) + match[4]
        return match[1] + _body(json.loads(path.read_text()), match["what"]) + match[4]

    return _BLOCK.sub(block, text)


def not_measured(name: str) -> str:
    """What stands where a result is missing."""
    return f"Not measured yet: `make bench-{name}`.\n"


def _body(result: dict[str, Any], what: str) -> str:
    if what == "targets":
        return targets(result)
    if what.startswith("plot "):
        table, _, column = what.removeprefix("plot ").partition(": ")
        image = RESULTS / f"{result['name']}.svg"
        image.write_text(
            bars([row for row in result["rows"] if (row["table"], row["what"]) == (table, column)], column)
        )
        return f"![{column}]({image.relative_to(ROOT)})\n"
    return table_of(result, what)


def table_of(result: dict[str, Any], table: str) -> str:
    """One line for each who, one column for each what."""
    rows = [row for row in result["rows"] if row["table"] == table]
    if not rows:
        return not_measured(result["name"])
    columns = list(dict.fromkeys((row["what"], row["unit"]) for row in rows))
    cells = {(row["who"], row["what"]): _cell(row) for row in rows}
    lines = ["| | " + " | ".join(f"{what}, {unit}" if unit else what for what, unit in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    lines += [
        f"| {who} | " + " | ".join(cells.get((who, what), "") for what, _ in columns) + " |"
        for who in dict.fromkeys(row["who"] for row in rows)
    ]
    return "\n".join(lines) + "\n"


def targets(result: dict[str, Any]) -> str:
    """The goals."""
    lines = ["| goal | reached | |", "|---|---|---|"]
    lines += [
        f"| {one['name']}: {one['target']} | {_number(one['value'])} | {'met' if one['met'] else '**not met**'} |"
        for one in result["targets"]
    ]
    return "\n".join(lines) + "\n"


def bars(rows: list[dict[str, Any]], title: str) -> str:
    """A small SVG: horizontal bars with their intervals, readable on a light and on a dark page."""
    longest = max((row.get("interval", row["runs"])[-1] for row in rows), default=1) or 1
    unit = rows[0]["unit"] if rows else ""
    height, left, wide = 22, 190, 430
    box = f'viewBox="0 0 720 {len(rows) * height + 34}" font-family="sans-serif" font-size="12"'
    heading = f'<text x="4" y="16">{escape(title)}, {escape(unit)}</text>'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>text{{fill:#888}}</style>{heading}']
    for index, row in enumerate(rows):
        y = 26 + index * height
        low, high = (row.get("interval") or [row["value"]] * 2)[:2]
        scale = wide / longest
        parts.append(
            f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{escape(row["who"])}</text>'
            f'<rect x="{left}" y="{y + 2}" width="{max(1.0, row["value"] * scale):.1f}" height="14" fill="#4a90d9"/>'
            f'<path d="M{left + low * scale:.1f} {y + 9}H{left + high * scale:.1f}" stroke="#d9534f" stroke-width="2"/>'
            f'<text x="{left + high * scale + 6:.1f}" y="{y + 13}">{_number(row["value"])}</text>'
        )
    return "".join(parts) + "</svg>\n"


def _cell(row: dict[str, Any]) -> str:
    text = _number(row["value"])
    return f"{text} ({_number(row['interval'][0])}–{_number(row['interval'][1])})" if "interval" in row else text


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    """Fill every document, or check that all are filled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    different = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text()
        new = filled(text)
        if new != text:
            different.append(str(path.relative_to(ROOT)))
            if not options.check:
                path.write_text(new)
    if different and options.check:
        sys.exit(f"error: not what bench/results says, run `make bench-docs`: {', '.join(different)}")


if __name__ == "__main__":
    main()
