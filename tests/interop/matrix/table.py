"""The table of docs/clients.md, from results.json: what is between its marks is made, never typed."""

import json
import re
from pathlib import Path
from typing import Any

from tests.interop.matrix.checks import CHECKS

RESULTS = Path(__file__).parent / "results.json"
DOCUMENT = Path(__file__).parents[3] / "docs" / "clients.md"
_BLOCK = re.compile(r"(<!-- matrix -->\n).*?(<!-- /matrix -->)", re.DOTALL)


def filled(document: str, results: dict[str, Any]) -> str:
    """Return the document with the table made anew."""
    return _BLOCK.sub(lambda match: match[1] + table(results) + match[2], document)


def table(results: dict[str, Any]) -> str:
    """One line for each check, one column for each stack; reasons stand below."""
    stacks = results["stacks"]
    reasons: list[str] = []

    def word(cell: dict[str, str] | None) -> str:
        if cell is None:
            return ""
        if cell["state"] == "works":
            return cell["words"] or "yes"
        if cell["words"] not in reasons:
            reasons.append(cell["words"])
        return f"{'**no**' if cell['state'] == 'fails' else '–'} ({reasons.index(cell['words']) + 1})"

    lines = [f"Seen on {results['at']}.", ""]
    lines.append("| | " + " | ".join(f"{name} {one['version']}" for name, one in stacks.items()) + " |")
    lines.append("|---" * (len(stacks) + 1) + "|")
    lines += [
        f"| {check} | " + " | ".join(word(one["cells"].get(check)) for one in stacks.values()) + " |"
        for check in CHECKS
    ]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes]) + "\n"


def write(results: dict[str, Any]) -> None:
    """Write the file and the document."""
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    DOCUMENT.write_text(filled(DOCUMENT.read_text(), results))
