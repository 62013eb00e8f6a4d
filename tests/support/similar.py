"""Is one recording in another? For speech that is compared second by second, at a telephone's rate."""

import numpy as np

ASTRAY_S = 0.3
CERTAIN = 0.8


def windows(samples: np.ndarray, rate: int = 8_000) -> list[np.ndarray]:
    """Second by second, where there is speech: a machine that stands still for a moment inserts silence, and moves what follows."""
    parts = [samples[at : at + rate] for at in range(0, len(samples) - rate, rate)]
    return [part for part in parts if np.abs(part.astype(int)).mean() > 200]


def similarity(part: np.ndarray, whole: np.ndarray) -> float:
    """The best normalised correlation of a part with anything as long in the whole."""
    return best_place(part, whole)[0]


def best_place(part: np.ndarray, whole: np.ndarray) -> tuple[float, int]:
    """The best normalised correlation of a part with anything as long in the whole, and where that is."""
    first, second = part.astype(float), whole.astype(float)
    energy = np.sqrt(np.maximum(np.convolve(second**2, np.ones(len(first)), "valid"), 1e6))
    found = np.correlate(second, first, "valid") / (energy * np.linalg.norm(first))
    return float(found.max()), int(found.argmax())


def in_order(said: np.ndarray, heard: np.ndarray, rate: int = 8_000) -> list[float]:
    """How well each third of a second of speech is found where it should be, give or take ASTRAY_S.

    Whoever inserts silence or stretches time moves what follows: the next piece is looked for from where the last one was found.
    """
    said, heard, size, astray = sounding(said), sounding(heard), rate // 3, int(rate * ASTRAY_S)
    scores: list[float] = []
    moved = 0
    for at in range(0, len(said) - size, size):
        piece = said[at : at + size]
        if np.abs(piece.astype(int)).mean() < np.abs(said.astype(int)).mean() / 2:
            continue
        begin = max(0, at + moved - astray)
        window = heard[begin : at + moved + size + astray]
        if len(window) < size:
            scores.append(0.0)
            continue
        score, place = best_place(piece, window)
        scores.append(score)
        if score > CERTAIN:
            moved = begin + place - at
    return scores


def sounding(samples: np.ndarray) -> np.ndarray:
    """From the first sound to the last."""
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 200)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples
