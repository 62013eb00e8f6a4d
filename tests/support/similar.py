"""Is one recording in another? For speech that is compared second by second, at a telephone's rate."""

import numpy as np


def windows(samples: np.ndarray, rate: int = 8_000) -> list[np.ndarray]:
    """Second by second, where there is speech: a machine that stands still for a moment inserts silence, and moves what follows."""
    parts = [samples[at : at + rate] for at in range(0, len(samples) - rate, rate)]
    return [part for part in parts if np.abs(part.astype(int)).mean() > 200]


def similarity(part: np.ndarray, whole: np.ndarray) -> float:
    """The best normalised correlation of a part with anything as long in the whole."""
    first, second = part.astype(float), whole.astype(float)
    energy = np.sqrt(np.maximum(np.convolve(second**2, np.ones(len(first)), "valid"), 1e6))
    return float((np.correlate(second, first, "valid") / (energy * np.linalg.norm(first))).max())
