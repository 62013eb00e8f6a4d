"""How much one client may make us do: audio that is opened and passed on, keys, reports, data.

Whoever has a call has its keys, and what it sends is authentic. So what bounds it is time: a second of a call holds a second of
audio. Every budget is some seconds deep: what a network held back for a while may come at once. When a budget is
spent, packets are dropped unread. A packet of Opus has at least 2.5 ms, so this bounds packets as well as audio.

A packet that does not open takes far less than one that does: somebody who can spoof the client's address would need ten
thousand in a second to silence it. An SSRC that no authentic packet had yet may be anybody's guess: trying those has a small
budget of its own, so that a flood with made-up SSRCs takes nothing from the client's stream.

Owns: the numbers. Does not own: what is done with what they refuse (core/call/session.py).
"""

from voicefleet_dataplane.core.limits import Budget
from voicefleet_dataplane.wire.opus import FRAME_TICKS, TICKS_PER_S

DEPTH_S = 5.0
AUDIO_S_PER_S = 1.05  # clocks differ by a hundredth of a percent, bad ones by one
UNKNOWN_SSRC_PER_S = 50.0
# A held key is 50 packets in a second, and the ends of quick ones come three times.
KEYPAD_PER_S = 100.0
RTCP_PER_S = 100.0
# In datagrams: 240 kB/s, and a megabyte at once. SCTP takes a loss as a sign to send more slowly.
DATA_PER_S = 200.0
# A datagram holds fifty small messages. The channel of events has a limit below this one, and says so (media/events.py).
MESSAGES_PER_S = 300.0

FAILED = 0.01  # of a packet, when none came of it
FAILED_TICKS = FRAME_TICKS // 192


class Budgets:
    """Those of one call; audio in ticks of 1/48000 s, everything else in packets."""

    __slots__ = ("audio", "data", "keypad", "messages", "rtcp", "unknown_ssrc")

    def __init__(self) -> None:
        self.audio = Budget(AUDIO_S_PER_S * TICKS_PER_S, DEPTH_S * TICKS_PER_S)
        self.unknown_ssrc = Budget(UNKNOWN_SSRC_PER_S, UNKNOWN_SSRC_PER_S)
        self.keypad = Budget(KEYPAD_PER_S, KEYPAD_PER_S * DEPTH_S)
        self.rtcp = Budget(RTCP_PER_S, RTCP_PER_S)
        self.data = Budget(DATA_PER_S, DATA_PER_S * DEPTH_S)
        self.messages = Budget(MESSAGES_PER_S, MESSAGES_PER_S * DEPTH_S)

    def note_failed_rtp(self, now: float, *, known: bool) -> None:
        """An RTP packet did not open; ``known``: one under its SSRC has before."""
        if known:
            self.audio.take(FAILED_TICKS, now)
        else:
            self.unknown_ssrc.take(1, now)
