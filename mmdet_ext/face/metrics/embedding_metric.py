"""What metrics of embeddings share: collecting them, and naming rates."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmdet_ext.functional.scoring.similarity import GRID, comparable
from mmdet_ext.functional.scoring.verification import allowed_errors

_NAMED = 5


@dataclass(frozen=True)
class Collected:
    """The evaluated images, each once, by ascending ``sample_idx``.

    Attributes:
        sample_idx: (N,) int64.
        labels: (N,) int64, below 0 where the person is unknown.
        embeddings: (N, D) float32, finite.
        paths: N image files, None where unknown.
        zeros: how many embeddings are all zero.
    """

    sample_idx: Tensor
    labels: Tensor
    embeddings: Tensor
    paths: list[str | None]
    zeros: int

    def rows(self, sample_idx: Any, what: str) -> Tensor:
        """The rows of given images, in any shape.

        Raises:
            ValueError: saying how many of ``what`` were not evaluated.
        """
        wanted = torch.as_tensor(np.asarray(sample_idx)).long()
        rows = torch.searchsorted(self.sample_idx, wanted).clamp_(max=len(self.sample_idx) - 1)
        absent = wanted[self.sample_idx[rows] != wanted].unique().tolist()
        if absent:
            raise ValueError(
                f'{what}: {len(absent):,} of the images were not evaluated, sample_idx '
                f'{_first(absent)}. The loader must go over the whole data set'
            )
        return rows


class EmbeddingMetric(BaseMetric):  # type: ignore[misc]
    """Collects `embedding`, `gt_label`, `sample_idx` and `img_path` of each data sample.

    Args:
        out_dir: folder for figures and json, which each evaluation overwrites; None writes none.
        collect_device: as MMEngine's BaseMetric.
        prefix: of the figures' names.
        collect_dir: as MMEngine's BaseMetric.

    Raises:
        NotADirectoryError: if ``out_dir`` or what it lies in is a file.
    """

    default_prefix = 'face'

    def __init__(
        self,
        out_dir: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.out_dir = None if out_dir is None else Path(out_dir)
        if self.out_dir is not None:
            # Not made here: a metric that never evaluates leaves no folder behind.
            there = next(path for path in (self.out_dir, *self.out_dir.parents) if path.exists())
            if not there.is_dir():
                raise NotADirectoryError(f'out_dir {str(out_dir)!r}: {there} is no folder')

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Take the embeddings of a batch up.

        Raises:
            KeyError: if a data sample has no ``embedding`` or no ``sample_idx``.
            ValueError: if an embedding is not 1-D.
        """
        for sample in data_samples:
            for name, source in (
                ('embedding', 'a head such as mmdet_ext.MarginHead'),
                ('sample_idx', 'the pipeline (PackInputs keeps it)'),
            ):
                if sample.get(name) is None:
                    raise KeyError(
                        f'{type(self).__name__}: a data sample has no {name!r}, which {source} '
                        f'must give. It has {", ".join(sorted(map(str, sample)))}'
                    )
            embedding = torch.as_tensor(sample['embedding']).detach()
            if embedding.ndim != 1:
                raise ValueError(
                    f'embedding of sample_idx {sample["sample_idx"]} must be 1-D, got '
                    f'{tuple(embedding.shape)}'
                )
            path = sample.get('img_path')
            self.results.append(
                (
                    int(sample['sample_idx']),
                    _one_label(sample.get('gt_label')),
                    # A copy, so that it does not keep the whole batch alive.
                    embedding.float().cpu().numpy().copy(),
                    None if path is None else str(path),
                )
            )

    def collected(self, results: Sequence[tuple[int, int, np.ndarray, str | None]]) -> Collected:
        """Put results together; images that ranks repeat to be equally many count once.

        Raises:
            ValueError: if there are none, two images have one ``sample_idx``, embeddings differ
                in size, or one is not finite.
        """
        if not results:
            raise ValueError(f'{type(self).__name__}: no image was evaluated')
        sizes = sorted({len(embedding) for _, _, embedding, _ in results})
        if len(sizes) > 1:
            raise ValueError(f'embeddings must be of one size, got {sizes}')
        first: dict[int, tuple[int, int, np.ndarray, str | None]] = {}
        for result in results:
            known = first.setdefault(result[0], result)
            if (known[1], known[3]) != (result[1], result[3]):
                raise ValueError(
                    f'two images have the sample_idx {result[0]}: {known[3]} of label {known[1]} '
                    f'and {result[3]} of label {result[1]}. Data sets that are joined must number '
                    'their images anew'
                )
        ordered = [first[index] for index in sorted(first)]
        numbers, labels, embeddings, paths = zip(*ordered, strict=True)
        table = torch.from_numpy(np.stack(embeddings))
        sample_idx = torch.tensor(numbers)
        broken = sample_idx[~torch.isfinite(table).all(1)].tolist()
        if broken:
            raise ValueError(
                f'{len(broken):,} of {len(table):,} embeddings hold NaN or infinite values, '
                f'sample_idx {_first(broken)}'
            )
        zeros = int((table == 0).all(1).sum())
        if zeros:
            self.say(
                f'{zeros:,} of {len(table):,} embeddings are all zero: their similarities count '
                'as 0',
                logging.WARNING,
            )
        scale = comparable(table).scale
        if scale < 1 and len(table) > 1:
            self.say(
                f'embeddings have collapsed: all cosines lie within {2 * scale:.1g} of 1. They are '
                'compared by what they differ in, but other evaluations, in half precision or '
                'float32, may not tell them apart',
                logging.WARNING,
            )
        return Collected(sample_idx, torch.tensor(labels), table, list(paths), zeros)

    def write_files(self, write: Callable[[Path], None]) -> None:
        """Write to ``out_dir`` if there is one; what fails costs a file, never the figures.

        Args:
            write: is given the folder.
        """
        if self.out_dir is None:
            return
        try:
            write(self.out_dir)
        except Exception as error:  # whatever files and drawing libraries raise
            self.say(
                f'files could not be written to {self.out_dir} ({type(error).__name__}: {error}); '
                'the figures are not affected',
                logging.WARNING,
            )
        else:
            self.say(f'figures written to {self.out_dir}')

    def say(self, message: str, level: int = logging.INFO) -> None:
        """Log, under the metric's name."""
        print_log(f'{type(self).__name__}: {message}', logger='current', level=level)

    def supported(
        self,
        rates: Sequence[float] | None,
        default: Sequence[float],
        count: int,
        kind: Literal['FAR', 'FPIR'],
    ) -> list[float]:
        """The rates to tell of ``count`` trials.

        Those asked for are all kept, and refused later where the trials cannot show them; of the
        default ones those are left out, with a message.
        """
        if rates is not None:
            return list(rates)
        kept = [rate for rate in default if rate * count >= 1]
        if len(kept) < len(default):
            left = ', '.join(rate_name(rate) for rate in default if rate not in kept)
            what = 'impostor pairs' if kind == 'FAR' else 'non-mated searches'
            self.say(f'{kind} {left} left out: {count:,} {what} cannot show so low a rate')
        return kept


def rate_name(rate: float) -> str:
    """A rate as names of figures have it.

    >>> rate_name(0.01), rate_name(0.015), rate_name(1.0)
    ('1e-02', '1.5e-02', '1e+00')
    """
    for digits in range(17):
        text = f'{rate:.{digits}e}'
        if float(text) == rate:
            return text
    return repr(rate)


def checked_rates(rates: float | Sequence[float] | None, name: str) -> tuple[float, ...] | None:
    """Rates of an option, each in (0, 1]; one alone may stand without brackets.

    Raises:
        ValueError: if there are none, or one is out of range or no number.
    """
    if rates is None:
        return None
    given = tuple(rates) if isinstance(rates, Iterable) else (rates,)
    if not given:
        raise ValueError(f'{name} is empty; leave it out for the rates that the data can show')
    for rate in given:
        if not isinstance(rate, Real):
            raise ValueError(f'{name} holds {rate!r}; a rate is a number in (0, 1]')
        allowed_errors(float(rate), 2**62, name, 'trials')
    return tuple(map(float, given))


def above_all(figures: dict[str, float]) -> dict[str, float]:
    """The figures with a number for thresholds that accept nobody: just above any cosine.

    MMEngine logs figures as json, which knows no infinity.
    """
    return {name: 1 + 1 / GRID if value == math.inf else value for name, value in figures.items()}


def plain(value: float) -> float | None:
    """A number for json, which knows no infinity."""
    return value if math.isfinite(value) else None


def _one_label(label: Any) -> int:
    if label is None:
        return -1
    values = torch.as_tensor(label).reshape(-1)
    if len(values) != 1:
        raise ValueError(f'gt_label must be one label an image, got {values.tolist()}')
    return int(values[0])


def _first(numbers: Sequence[int]) -> str:
    """The first few of many numbers."""
    more = ', ...' if len(numbers) > _NAMED else ''
    return ', '.join(map(str, numbers[:_NAMED])) + more
