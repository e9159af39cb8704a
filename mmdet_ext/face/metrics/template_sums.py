"""Sums of templates, to which images are added as they come, on one rank or on several."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdet_ext.data.face.templates import TemplateProtocol
from mmdet_ext.data.reports import EXAMPLES, listed
from mmdet_ext.face.metrics.embedding_metric import not_evaluated
from mmdet_ext.face.metrics.joined_sets import Row
from mmdet_ext.functional.scoring.templates import Pooling, add_to_templates, medium_shares

#: Images that are held before they are added to the sums. Samplers repeat images at the end of a
#: rank, so that all have equally many. What another rank has too can only be left out if held.
HELD = 512

_UNSEEN, _SEEN, _ZERO, _BROKEN = range(4)


@dataclass
class PartialSums:
    """Sums over the images of one rank, as ranks exchange them.

    Attributes:
        sums: (T, D) float64, or None before the first image is added.
        status: (N,) uint8, what is known of each image.
        marks: (N,) uint32, checksum of label and path of each image that was seen.
        held: number and embedding of images that are not added yet.
        size: D, or None before the first image.
        unused: number of evaluations of images that are in no template.
    """

    sums: np.ndarray[Any, Any] | None
    status: np.ndarray[Any, Any]
    marks: np.ndarray[Any, Any]
    held: list[tuple[int, np.ndarray[Any, Any]]]
    size: int | None = None
    unused: int = 0


class TemplateSums:
    """Sums of templates; memory is templates x D, and a few bytes for each image.

    Args:
        protocol: templates and pairs.
        pooling: as in `add_to_templates`.
        use_scores: multiply by the scores of the detector.
    """

    def __init__(self, protocol: TemplateProtocol, pooling: Pooling, use_scores: bool) -> None:
        self._protocol, self._pooling = protocol, pooling
        self._template = torch.from_numpy(protocol.template)
        share = medium_shares(self._template, torch.from_numpy(protocol.medium))
        if use_scores and protocol.score is not None:
            share = share * torch.from_numpy(protocol.score)
        self._share = share
        images = int(protocol.image[-1]) + 1
        self._begins = np.searchsorted(protocol.image, np.arange(images + 1))
        self.state = PartialSums(
            None, np.zeros(images, np.uint8), np.zeros(images, np.uint32), held=[]
        )

    def add(self, rows: Sequence[Row]) -> None:
        """Take the images of a batch; one that was taken before counts once.

        Raises:
            ValueError: if embeddings differ in size, or two images have one ``sample_idx``.
        """
        state = self.state
        for number, label, embedding, path in rows:
            self._check_size(len(embedding))
            if not self._is_used(number):
                state.unused += 1
                continue
            mark = zlib.crc32(f'{label} {path}'.encode())
            if state.status[number]:
                self._check_marks(np.array([number]), np.array([mark]))
                continue
            state.marks[number] = mark
            if not np.isfinite(embedding).all():
                state.status[number] = _BROKEN
                continue
            state.status[number] = _SEEN if embedding.any() else _ZERO
            state.held.append((number, embedding))
        if len(state.held) >= 2 * HELD:
            self._pool(state.held[:-HELD])
            del state.held[:-HELD]

    def merge(self, parts: Sequence[PartialSums]) -> None:
        """Take the images of all ranks; one that several ranks have counts once.

        Raises:
            ValueError: if embeddings differ in size, two images have one ``sample_idx``, or several
                ranks have added an image to their sums.
        """
        state = self.state
        for part in parts:
            if part.size is not None:
                self._check_size(part.size)
            summed = part.status.copy()
            summed[[number for number, _ in part.held]] = _UNSEEN
            both = np.flatnonzero((state.status != _UNSEEN) & (summed != _UNSEEN))
            self._check_marks(both, part.marks[both])
            added = both[(summed[both] != _BROKEN) & (state.status[both] != _BROKEN)].tolist()
            if added:
                raise ValueError(
                    f'{len(added):,} images were evaluated by two ranks, sample_idx '
                    f'{listed(added[:EXAMPLES], len(added))}, and not at the end of a rank, as '
                    "MMEngine's DefaultSampler does it. Their sums cannot be divided again: use "
                    "sampler=dict(type='DefaultSampler', shuffle=False)"
                )
            if part.sums is not None:
                self._sums(part.sums.shape[1]).add_(torch.from_numpy(part.sums))
            new = summed != _UNSEEN
            state.status[new], state.marks[new] = summed[new], part.marks[new]
            state.unused += part.unused
        for part in parts:
            kept = []
            for number, embedding in part.held:
                if state.status[number] != _UNSEEN:
                    self._check_marks(np.array([number]), part.marks[[number]])
                    continue
                state.status[number], state.marks[number] = (
                    part.status[number],
                    part.marks[number],
                )
                kept.append((number, embedding))
            self._pool(kept)

    def finished(self) -> tuple[Tensor, int, int]:
        """Return the sums (T, D) of merged ranks, and how many embeddings are zero or unused.

        Raises:
            ValueError: if an embedding is not finite, or images of templates were not evaluated.
        """
        state = self.state
        wanted = self._begins[1:] > self._begins[:-1]
        broken = np.flatnonzero(state.status == _BROKEN)
        if len(broken):
            raise ValueError(
                f'{len(broken):,} of {int(wanted.sum()):,} embeddings hold NaN or infinite values, '
                f'sample_idx {listed(broken[:EXAMPLES].tolist(), len(broken))}'
            )
        absent = np.flatnonzero(wanted & (state.status == _UNSEEN)).tolist()
        if absent:
            raise ValueError(not_evaluated('images of templates', absent))
        return self._sums(state.size or 1), int((state.status == _ZERO).sum()), state.unused

    def _is_used(self, number: int) -> bool:
        """Return whether an image is in a template."""
        inside = 0 <= number < len(self._begins) - 1
        return inside and bool(self._begins[number] < self._begins[number + 1])

    def _check_size(self, size: int) -> None:
        """Raise ValueError unless all embeddings are of one size."""
        self.state.size = self.state.size or size
        if size != self.state.size:
            raise ValueError(f'embeddings must be of one size, got {[self.state.size, size]}')

    def _check_marks(self, numbers: np.ndarray[Any, Any], marks: np.ndarray[Any, Any]) -> None:
        """Raise ValueError if images have another label or path than before."""
        other = numbers[self.state.marks[numbers] != marks].tolist()
        if other:
            raise ValueError(
                f'{len(other):,} sample_idx belong to two images of different gt_label or '
                f'img_path: {listed(other[:EXAMPLES], len(other))}. Data sets that are joined '
                'number their images anew each: give each set of templates a loader of its own'
            )

    def _sums(self, size: int) -> Tensor:
        """Return the table of sums."""
        if self.state.sums is None:
            self.state.sums = np.zeros((len(self._protocol.numbers), size))
        return torch.from_numpy(self.state.sums)

    def _pool(self, held: Sequence[tuple[int, np.ndarray[Any, Any]]]) -> None:
        """Add images to the sums of each template that they are in, a few hundred at a time."""
        for start in range(0, len(held), HELD):
            part = held[start : start + HELD]
            numbers = torch.tensor([number for number, _ in part])
            begins, ends = (torch.from_numpy(self._begins)[numbers + offset] for offset in (0, 1))
            sizes = ends - begins
            source = torch.arange(len(part)).repeat_interleave(sizes)
            rows = begins[source] + torch.arange(len(source)) - (sizes.cumsum(0) - sizes)[source]
            embeddings = torch.from_numpy(np.stack([embedding for _, embedding in part]))
            add_to_templates(
                self._sums(embeddings.shape[1]),
                embeddings[source],
                self._template[rows],
                self._share[rows],
                self._pooling,
            )
