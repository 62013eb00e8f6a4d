"""The one format that benches write: bench/results/NAME.json, from which README's tables and plots are made (bench/docs.py).

::

    {"name", "at", "machine": {…}, "conditions": {…},
     "rows": [{"table", "who", "what", "value", "unit", "runs": [min, median, max], "interval": [low, high]}],
     "targets": [{"name", "target", "value", "met"}]}

A row's value is the median of its runs, or of what was pooled over them. ``table`` groups the rows that are shown together,
one line for each ``who`` and one column for each ``what``. ``interval`` is a 95 % bootstrap interval of the median.
"""

import json
import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_RESAMPLES = 2_000


class Report:
    """Collects rows and targets, and writes the file."""

    def __init__(self, name: str, **conditions: Any) -> None:
        self.name = name
        self.conditions = conditions
        self.rows: list[dict[str, Any]] = []
        self.targets: list[dict[str, Any]] = []

    def row(self, table: str, who: str, what: str, unit: str, runs: Sequence[float]) -> float:
        """Add what one measurement gave in each round; gives the median."""
        value = statistics.median(runs)
        row: dict[str, Any] = {"table": table, "who": who, "what": what, "value": _short(value), "unit": unit}
        row["runs"] = [_short(min(runs)), _short(value), _short(max(runs))]
        if len(runs) > 2:
            row["interval"] = [_short(end) for end in interval(runs)]
        self.rows.append(row)
        return value

    def target(self, name: str, target: str, value: float, *, met: bool) -> None:
        """Say whether a goal was reached; ``target`` is the goal in words."""
        self.targets.append({"name": name, "target": target, "value": _short(value), "met": met})

    def write(self) -> Path:
        """Write bench/results/NAME.json."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        document = {
            "name": self.name,
            "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
            "machine": machine(),
            "conditions": self.conditions,
            "rows": self.rows,
            "targets": self.targets,
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        return path


def interval(runs: Sequence[float]) -> tuple[float, float]:
    """A 95 % bootstrap interval of the median; the same runs give the same interval."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(runs, k=len(runs))) for _ in range(_RESAMPLES))
    return medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES)]


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    names = [line.split(":", 1)[1].strip() for line in model.splitlines() if line.startswith("Model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")
