"""Text as it comes, cut where a voice may pause: the first sentence is spoken while the next is still being thought of.

Owns: where to cut, and what of a text is for the eye alone. Does not own: how it sounds.
"""

import re

LONGEST = 240  # characters; past them a comma will do, or a space
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
        self._rest += text
        sentences = []
        while (cut := self._cut()) is not None:
            sentences.append(self._rest[:cut])
            self._rest = self._rest[cut:]
        return sentences

    def flush(self) -> list[str]:
        """Return what is left."""
        rest, self._rest = self._rest, ""
        return [rest] if rest.strip() else []

    def _cut(self) -> int | None:
        for match in _END.finditer(self._rest):
            if not _ABBREVIATION.search(self._rest[: match.end()].rstrip()):
                return match.end()
        if len(self._rest) <= LONGEST:
            return None
        commas = [match.end() for match in _COMMA.finditer(self._rest, 0, LONGEST)]
        return commas[-1] if commas else self._rest.rfind(" ", 0, LONGEST) + 1 or LONGEST


def speakable(text: str) -> str:
    """Return what of a text a voice should say: no markup, no line breaks."""
    return " ".join(_FOR_THE_EYE.sub(" ", text).split())
