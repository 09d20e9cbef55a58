"""Detection of stop strings in text that arrives in chunks."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """A filter that passes text through up to the first stop string, which it drops.

    The first stop string is the stop string that is complete first. If several are complete at the same character, it
    is the longest of them. Therefore the result does not depend on how the text is split into chunks.

    >>> stops = StopStrings(["END"])
    >>> [stops.feed(text) for text in ("the E", "ast, the EN", "D. More")], stops.has_stopped
    (['the ', 'East, the ', ''], True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Start a new text.

        Args:
            stops: The stop strings.
        """
        self.stops = tuple(stops)
        self.held = ""
        self.has_stopped = False

    def feed(self, text: str) -> str:
        """Return the text that cannot belong to a stop string, and hold back a possible start of a stop string.

        Args:
            text: The next chunk of the text.
        """
        if self.has_stopped:
            return ""
        text = self.held + text
        matches = [(start + len(stop), start) for stop in self.stops if (start := text.find(stop)) >= 0]
        self.has_stopped = bool(matches)
        safe = min(matches)[1] if matches else self._safe_length(text)
        self.held = "" if self.has_stopped else text[safe:]
        return text[:safe]

    def finish(self) -> str:
        """Return the text that is still held back, when no more text follows."""
        held = self.held
        self.held = ""
        return held

    def _safe_length(self, text: str) -> int:
        """Return the length of the text before the first possible start of a stop string."""
        longest = max((len(stop) for stop in self.stops), default=0)
        for start in range(max(0, len(text) - longest + 1), len(text)):
            if any(stop.startswith(text[start:]) for stop in self.stops):
                return start
        return len(text)
