"""What does not work today, and why: by check, and for which stacks ("*": for all). An entry that works fails its test: take it away."""

WITHIN_S = 2.0  # how long we wait for what is known not to come

FAILS: dict[str, dict[str, str]] = {
    "we hang up, audio alone": {
        "Firefox": "it heeds neither close_notify nor a check's 403: disconnected after 11 s, failed after 30 s"
    },
}


def why_it_fails(check: str, stack: str) -> str:
    """Return the reason, or nothing if it should work."""
    of_check = FAILS.get(check, {})
    return of_check.get(stack, of_check.get("*", ""))
