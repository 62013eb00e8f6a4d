"""The field's troubles, made on purpose by `voicefleet call`: a NAT that rebinds, a muted microphone, a stack that never checks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """What one call shall have of them."""

    rebind_after_s: float = (
        0.0  # of speech: another local port from then on, and checks that nominate nothing; 0: never
    )
    mutes: bool = False  # sends no audio at all
    checks: bool = True  # for consent, once it is connected


NO_TROUBLE = Trouble()
