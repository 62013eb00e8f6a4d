"""Processor time of the dearest inputs at N, 2N and 4N bytes: C code that is quadratic shows here, and nowhere in counted steps.

A tool for people, not a test: time depends on the machine. The least of several runs is taken, in turns.
"""

import time
from collections.abc import Sequence

from tests.fuzz.target import Target

TURNS = 7
NOTHING_S = 0.002  # less is noise
TOO_STEEP = 3.0  # twice the bytes; 2 is linear, 4 quadratic


def look_at_growth(targets: Sequence[Target]) -> list[str]:
    """Print what each shape costs; gives those that grow too fast."""
    steep = []
    for target in targets:
        size = min(target.max_bytes, 200_000) // 4
        for shape, build in target.shapes.items():
            inputs = [build(times * size) for times in (1, 2, 4)]
            least = [float("inf")] * 3
            for _ in range(TURNS):
                for place, data in enumerate(inputs):
                    began = time.process_time()
                    target.run(data)
                    least[place] = min(least[place], time.process_time() - began)
            is_steep = least[2] > NOTHING_S and least[2] > TOO_STEEP * least[1] and least[1] > TOO_STEEP * least[0]
            words = ", ".join(f"{seconds * 1e3:.2f}" for seconds in least)
            print(
                f"{target.name}, {shape}: {words} ms of CPU at {size:,} × 1, 2, 4 bytes{'  TOO STEEP' if is_steep else ''}"
            )
            if is_steep:
                steep.append(f"{target.name}: {shape}")
    return steep
