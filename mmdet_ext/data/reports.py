"""Reports of what a reader of data passed over or refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

#: How many offenders a message lists.
EXAMPLES = 5


class LayoutError(ValueError):
    """The data cannot be used; the message says what was looked for and what was found."""


class Tally:
    """How often something happened for each reason, with the first few examples alone.

    >>> tally = Tally()
    >>> tally.add('inverted boxes', 'a.jpg')
    >>> tally.add('inverted boxes', 'b.jpg')
    >>> str(tally)
    '2 inverted boxes (a.jpg, b.jpg)'
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, example: str) -> None:
        """Count one case."""
        self._counts[reason] += 1
        if len(self._examples[reason]) < EXAMPLES:
            self._examples[reason].append(example)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        return '; '.join(
            f'{count} {reason} ({listed(self._examples[reason], count)})'
            for reason, count in self._counts.items()
        )


def listed(examples: Sequence[str], count: int) -> str:
    """The first few examples of ``count`` cases, and how many more there are."""
    more = count - min(len(examples), EXAMPLES)
    return ', '.join(examples[:EXAMPLES]) + (f', and {more} more' if more > 0 else '')
