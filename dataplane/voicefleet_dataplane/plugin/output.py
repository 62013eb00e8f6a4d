"""Rows and reports as tables, JSON or YAML: what `-o` asks for."""

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import typer


class Output(StrEnum):
    """Forms of output."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def write(document: Any, output: Output) -> None:
    """Print a document of dictionaries, lists and scalars."""
    if output is Output.JSON:
        typer.echo(json.dumps(document, indent=2))
    else:
        typer.echo("\n".join(_yaml(document)))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as columns, as kubectl has them."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [[name.upper() for name in names], *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def say_error(text: str) -> None:
    """Print an error as kubectl does."""
    print(f"error: {text}", file=sys.stderr)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _yaml(value: Any, indent: str = "") -> list[str]:
    """YAML of what JSON can hold; strings as JSON, which YAML reads."""
    if isinstance(value, dict) and value:
        lines = []
        for key, one in value.items():
            if isinstance(one, (dict, list)) and one:
                lines += [f"{indent}{json.dumps(key)}:", *_yaml(one, indent + "  ")]
            else:
                lines.append(f"{indent}{json.dumps(key)}: {json.dumps(one)}")
        return lines
    if isinstance(value, list) and value:
        lines = []
        for one in value:
            inner = _yaml(one, indent + "  ")
            lines += [f"{indent}- {inner[0].lstrip()}", *inner[1:]]
        return lines
    return [indent + json.dumps(value)]
