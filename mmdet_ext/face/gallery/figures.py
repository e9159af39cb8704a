"""Figures of searches of known and unknown people at a threshold."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from mmdet_ext.face.gallery.errors import GalleryError
from mmdet_ext.face.gallery.results import UNKNOWN, Found


@dataclass(frozen=True)
class OpenSetFigures:
    """Counts and rates of searches.

    Attributes:
        known: searches of people who are enrolled.
        unknown: searches of people who are not.
        first: known searches whose best candidate is the right one, at any similarity.
        identified: known searches that return the right name.
        misnamed: known searches that return another name.
        missed: known searches that return ``unknown``.
        false_alarms: unknown searches that return a name.
    """

    known: int
    unknown: int
    first: int
    identified: int
    misnamed: int
    missed: int
    false_alarms: int

    @property
    def rates(self) -> dict[str, float | None]:
        """Shares: ``rank-1`` and ``tpir`` of the known, ``fpir`` of the unknown; None of none."""
        return {
            'rank-1': _share(self.first, self.known),
            'tpir': _share(self.identified, self.known),
            'misnamed': _share(self.misnamed, self.known),
            'missed': _share(self.missed, self.known),
            'fpir': _share(self.false_alarms, self.unknown),
        }


def open_set_figures(
    found: Sequence[Found], labels: Sequence[str], enrolled: Container[str]
) -> OpenSetFigures:
    """Count right and wrong searches.

    Args:
        found: results of N searches with a threshold.
        labels: names of the people searched for, N of them.
        enrolled: names in the gallery; other people are unknown.

    Raises:
        GalleryError: if the numbers of results and labels differ.

    >>> from mmdet_ext.face.gallery.results import Candidate
    >>> right = Found('ann', (Candidate('ann', 0.9),))
    >>> low = Found('unknown', (Candidate('ann', 0.2),))
    >>> open_set_figures([right, low, low], ['ann', 'ann', 'eve'], {'ann'}).rates['tpir']
    0.5
    """
    if len(found) != len(labels):
        raise GalleryError(f'there are {len(found)} results and {len(labels)} labels')
    pairs = list(zip(found, labels, strict=True))
    known = [(each, label) for each, label in pairs if label in enrolled]
    strangers = [each for each, label in pairs if label not in enrolled]
    return OpenSetFigures(
        known=len(known),
        unknown=len(strangers),
        first=sum(each.candidates[:1] != () and each.candidates[0].name == n for each, n in known),
        identified=sum(each.name == label for each, label in known),
        misnamed=sum(each.name not in (label, UNKNOWN) for each, label in known),
        missed=sum(each.name == UNKNOWN for each, _ in known),
        false_alarms=sum(each.name != UNKNOWN for each in strangers),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
