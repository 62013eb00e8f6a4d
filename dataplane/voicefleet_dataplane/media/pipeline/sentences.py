"""Text as it comes, cut where a voice may pause: the first sentence is spoken while the next is still being thought of.

Owns: where to cut, and what of a text is for the eye alone. Does not own: how it sounds.
"""

import re

LONGEST = 240  # characters; past them a comma will do, or a space
_WINDOW = LONGEST + 1
_ABBREVIATION_WITHIN = 32  # characters before the cut: the longest is four, and what is white after it
_END = re.compile(r"(?:[.!?…]+[\"'”’)\]]*(?=\s)|\n)\s*")
_COMMA = re.compile(r"[,;:–—]\s+")
_FOR_THE_EYE = re.compile(r"[*_#`~|<>\[\]{}\\]+")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|vs|etc|e\.g|i\.e|No)|\b[A-Z])\.$")


class SentenceSplitter:
    """One response's text."""

    def __init__(self) -> None:
        self._rest = ""

    def push(self, text: str) -> list[str]:
        """Take more; return the sentences that are complete."""
        whole, start = self._rest + text, 0
        sentences = []
        while (cut := _cut(whole[start : start + _WINDOW])) is not None:
            sentences.append(whole[start : start + cut])
            start += cut
        self._rest = whole[start:]  # never more than LONGEST
        return sentences

    def flush(self) -> list[str]:
        """Return what is left."""
        rest, self._rest = self._rest, ""
        return [rest] if rest.strip() else []


def _cut(window: str) -> int | None:
    """Return where the first sentence ends, of a text of which no more than `_WINDOW` is looked at."""
    for match in _END.finditer(window):
        before = window[max(0, match.end() - _ABBREVIATION_WITHIN) : match.end()]
        if not _ABBREVIATION.search(before.rstrip()):
            return match.end()
    if len(window) <= LONGEST:
        return None
    commas = [match.end() for match in _COMMA.finditer(window, 0, LONGEST)]
    return commas[-1] if commas else window.rfind(" ", 0, LONGEST) + 1 or LONGEST


def speakable(text: str) -> str:
    """Return what of a text a voice should say: no markup, no line breaks."""
    return " ".join(_FOR_THE_EYE.sub(" ", text).split())
