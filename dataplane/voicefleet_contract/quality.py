"""How a call sounds, estimated from what the network did to it: the E-model (ITU-T G.107), reduced to delay and loss.

    R = R0 − Id(one-way delay) − Ie,eff(loss)        MOS-CQE from R as G.107 Annex B has it

R0 = 93.2 is G.107's default for a clean narrowband connection; Id is the usual fit of its delay impairment (knee at
177.3 ms); Opus has neither Ie nor Bpl in G.113, so they are set as for a codec with packet loss concealment (Ie = 0, Bpl =
20). It says how calls compare, not what a listener would say.
"""

_R0 = 93.2
_PACKET_LOSS_ROBUSTNESS = 20.0  # Bpl
_CODEC_DELAY_MS = 40.0  # 20 ms frame and 20 ms of jitter buffer, the least that there is
_KNEE_MS = 177.3


def estimate_mos(rtt_ms: float | None, loss: float | None, jitter_ms: float | None) -> float | None:
    """Return MOS-CQE, 1.0 to 4.5, two decimals; None before an RTT is known. ``loss`` is a fraction 0–1."""
    if rtt_ms is None:
        return None
    delay_ms = rtt_ms / 2 + 2 * (jitter_ms or 0.0) + _CODEC_DELAY_MS
    delay_impairment = 0.024 * delay_ms + 0.11 * max(0.0, delay_ms - _KNEE_MS)
    loss_percent = 100 * min(1.0, max(0.0, loss or 0.0))
    loss_impairment = 95 * loss_percent / (loss_percent + _PACKET_LOSS_ROBUSTNESS)
    rating = _R0 - delay_impairment - loss_impairment
    if rating <= 0:
        return 1.0
    rating = min(rating, 100.0)
    return round(min(4.5, max(1.0, 1 + 0.035 * rating + rating * (rating - 60) * (100 - rating) * 7e-6)), 2)
