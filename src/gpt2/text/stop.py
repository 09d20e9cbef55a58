"""Finding stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on up to the first stop string, which is not part of it.

    The first is the one that is complete first, and of those that end together the longest: where the pieces are cut
    does not matter.

    >>> stops = StopStrings(["END"])
    >>> [stops.feed(text) for text in ("the E", "ast, the EN", "D. More")], stops.found
    (['the ', 'East, the ', ''], True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self.held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The text that is certain not to belong to a stop string; what could be the beginning of one is held back."""
        if self.found:
            return ""
        text = self.held + text
        ends = [(at + len(stop), at) for stop in self.stops if (at := text.find(stop)) >= 0]
        self.found = bool(ends)
        safe = min(ends)[1] if ends else self._safe_length(text)
        self.held = "" if self.found else text[safe:]
        return text[:safe]

    def finish(self) -> str:
        """What was held back, once no more text will come."""
        held, self.held = self.held, ""
        return held

    def _safe_length(self, text: str) -> int:
        longest = max((len(stop) for stop in self.stops), default=0)
        for at in range(max(0, len(text) - longest + 1), len(text)):
            if any(stop.startswith(text[at:]) for stop in self.stops):
                return at
        return len(text)
