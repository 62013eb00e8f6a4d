"""What does not work today, and why: by check, and for which stacks ("*": for all). An entry that works fails its test: take it away."""

FAILS: dict[str, dict[str, str]] = {}


def why_it_fails(check: str, stack: str) -> str:
    """Return the reason, or nothing if it should work."""
    of_check = FAILS.get(check, {})
    return of_check.get(stack, of_check.get("*", ""))
