"""How many examples a property is tried with: its full number, or a tenth of it in `make check`.

`make check` chooses the profile ``quick`` (tests/conftest.py); `make test` and a plain pytest run the full number.
"""

from hypothesis import settings

FULL, QUICK = 100, 10  # Hypothesis' own number, and what stands for it in the profile


def examples(full: int) -> settings:
    """Try a property with so many examples; in a profile of fewer, with as many fewer in proportion."""
    return settings(max_examples=max(1, full * settings.default.max_examples // FULL))
