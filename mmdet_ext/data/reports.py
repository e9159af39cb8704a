"""Reports of what a reader of data left out or refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

#: Examples that a message lists unless it says otherwise.
EXAMPLES = 5


class LayoutError(ValueError):
    """Data that cannot be used; the message says what was looked for and what was found."""


class Tally:
    """Counter of cases per reason, with the first few examples of each reason.

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
        """Count one case of a reason; only the first few examples are kept."""
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


def listed(examples: Sequence[object], count: int | None = None, most: int = EXAMPLES) -> str:
    """List the first few examples of a number of cases, and say how many more cases there are.

    Args:
        examples: Examples, at least ``min(count, most)`` of them.
        count: Number of cases, by default the number of examples.
        most: Number of examples to list, at least 1.

    Returns:
        The examples as text, empty if there is none.

    >>> listed('abc', most=2)
    'a, b, and 1 more'
    """
    shown = examples[:most]
    more = (len(examples) if count is None else count) - len(shown)
    return ', '.join(map(str, shown)) + (f', and {more} more' if more > 0 else '')
