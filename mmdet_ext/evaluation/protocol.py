"""Protocols of evaluation, the tables that a backend fills, and the figures that are read off them.

The figures are computed here and not by the backends, whose headlines differ: with maxDets of 100,
300 and 1000, pycocotools takes its first figure at 100 detections per image and the others at 1000,
other backends take all at 1000, and the lists of figures differ in length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal['bbox', 'segm', 'keypoints']
Floats = NDArray[np.float64]

#: Limits of the areas in square pixels, from, to.
AREAS: dict[str, tuple[float, float]] = {
    'all': (0.0, 1e5**2),
    'small': (0.0, 32.0**2),
    'medium': (32.0**2, 96.0**2),
    'large': (96.0**2, 1e5**2),
}
#: COCO's sigmas of the 17 keypoints of a person.
PERSON_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
#: Recalls at which the precision is taken.
RECALLS: Floats = np.linspace(0.0, 1.0, 101, endpoint=True)


@dataclass(frozen=True)
class Protocol:
    """Rules of an evaluation: what is compared, and at which limits.

    Attributes:
        kind: 'bbox', 'segm' or 'keypoints': what overlaps.
        iou_thrs: thresholds of the overlap.
        max_dets: numbers of detections per image and category, ascending.
        federated: LVIS's rules for categories that an image is not annotated for.
        sigmas: for keypoints, the sigma of each.
    """

    kind: Kind
    iou_thrs: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
    max_dets: tuple[int, ...] = (1, 10, 100)
    federated: bool = False
    sigmas: tuple[float, ...] = PERSON_SIGMAS

    @property
    def areas(self) -> dict[str, tuple[float, float]]:
        """Return the limits of the areas; COCO has no small keypoints."""
        return {k: v for k, v in AREAS.items() if self.kind != 'keypoints' or k != 'small'}


@dataclass(frozen=True)
class Scores:
    """Tables that an evaluation fills; -1 stands where there is no box to find.

    Attributes:
        precision: interpolated precision (T, R, C, A, M) at each threshold of the overlap, recall,
            category, area and number of detections.
        recall: highest recall (T, C, A, M).
    """

    precision: Floats
    recall: Floats


def mean_of(values: NDArray[Any], otherwise: float = -1.0) -> float:
    """Return the mean of the values above -1, as pycocotools computes it."""
    there = values[values > -1]
    return float(np.mean(there)) if there.size else otherwise


@dataclass(frozen=True)
class Figures:
    """Figures of one evaluation, by threshold, area, number of detections and category.

    Attributes:
        scores: the tables.
        protocol: the protocol by which they were filled.
    """

    scores: Scores
    protocol: Protocol

    def precision(
        self,
        iou: float | None = None,
        area: str = 'all',
        max_dets: int | None = None,
        categories: Sequence[int] | None = None,
        otherwise: float = -1.0,
    ) -> float:
        """Return the average precision.

        Args:
            iou: one threshold of the overlap; None for the mean over all.
            area: a key of `AREAS`.
            max_dets: number of detections per image; None for the largest.
            categories: rows of the categories; None for all.
            otherwise: value where there is no box to find, or where the protocol has no such
                threshold or number.
        """
        table = self.scores.precision
        if categories is not None:
            table = table[:, :, list(categories)]
        thresholds, areas, numbers = self._places(iou, area, max_dets)
        return mean_of(table[thresholds][..., areas, :][..., numbers], otherwise)

    def recall(
        self, iou: float | None = None, area: str = 'all', max_dets: int | None = None
    ) -> float:
        """Return the average recall; see `precision`."""
        thresholds, areas, numbers = self._places(iou, area, max_dets)
        return mean_of(self.scores.recall[thresholds][..., areas, :][..., numbers])

    def _places(
        self, iou: float | None, area: str, max_dets: int | None
    ) -> tuple[list[int], list[int], list[int]]:
        protocol = self.protocol
        number = protocol.max_dets[-1] if max_dets is None else max_dets
        return (
            [t for t, value in enumerate(protocol.iou_thrs) if iou is None or value == iou],
            [a for a, name in enumerate(protocol.areas) if name == area],
            [m for m, value in enumerate(protocol.max_dets) if value == number],
        )

    def lines(self) -> list[str]:
        """Return the summary as pycocotools prints it, with its headline at 100 detections."""
        protocol = self.protocol
        last = protocol.max_dets[-1]
        if protocol.kind == 'keypoints':
            rows: list[tuple[str, float | None, str, int]] = [
                (name, iou, area, last)
                for name in ('AP', 'AR')
                for iou, area in ((None, 'all'), (0.5, 'all'), (0.75, 'all'))
                + ((None, 'medium'), (None, 'large'))
            ]
        else:
            head = 100 if 100 in protocol.max_dets else last
            sizes = ('small', 'medium', 'large')
            rows = [('AP', None, 'all', head), ('AP', 0.5, 'all', last), ('AP', 0.75, 'all', last)]
            rows += [('AP', None, size, last) for size in sizes]
            rows += [('AR', None, 'all', number) for number in protocol.max_dets]
            rows += [('AR', None, size, last) for size in sizes]
        return [self._line(*row) for row in rows]

    def _line(self, name: str, iou: float | None, area: str, number: int) -> str:
        first, last = self.protocol.iou_thrs[0], self.protocol.iou_thrs[-1]
        overlap = f'{first:0.2f}:{last:0.2f}' if iou is None else f'{iou:0.2f}'
        title = 'Average Precision' if name == 'AP' else 'Average Recall'
        value = (self.precision if name == 'AP' else self.recall)(iou, area, number)
        return (
            f' {title:<18} ({name}) @[ IoU={overlap:<9} | area={area:>6s} | maxDets={number:>3d} ]'
            f' = {value:0.3f}'
        )
