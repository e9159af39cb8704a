"""Base class of metrics of embeddings, which collects them, and names of rates."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
#: Least cosine of the embeddings of one image; repeats differ by rounding alone.
_SAME_IMAGE = 0.9
_JOINED = (
    'Data sets that are joined must number their images anew. FacePairsDatasets may be joined as '
    "they are, under different names, if data samples keep their meta key 'pair_set'; evaluate "
    'others by loaders of their own'
)


@dataclass(frozen=True)
class Collected:
    """Evaluated images, each once, in ascending order of ``sample_idx``.

    Attributes:
        sample_idx: (N,) int64.
        labels: (N,) int64, below 0 if the identity is unknown.
        embeddings: (N, D) float32, finite.
        paths: N image files, None if unknown.
        zeros: number of embeddings that are all zero.
    """

    sample_idx: Tensor
    labels: Tensor
    embeddings: Tensor
    paths: list[str | None]
    zeros: int

    def rows(self, sample_idx: Any, what: str) -> Tensor:
        """Find the rows of given images.

        Args:
            sample_idx: integers, any shape.
            what: name of the images, for errors.

        Returns:
            Tensor: int64, in the shape of ``sample_idx``.

        Raises:
            ValueError: if images were not evaluated; the error gives their number.
        """
        wanted = torch.as_tensor(np.asarray(sample_idx)).long()
        rows = torch.searchsorted(self.sample_idx, wanted).clamp_(max=len(self.sample_idx) - 1)
        absent = wanted[self.sample_idx[rows] != wanted].unique().tolist()
        if absent:
            raise ValueError(not_evaluated(what, absent))
        return rows


class EmbeddingMetric(BaseMetric):  # type: ignore[misc]
    """Metric that collects `embedding`, `gt_label`, `sample_idx`, `img_path` of each data sample.

    It also collects `pair_set`, the set of pairs that an image belongs to, if there is one.

    Args:
        out_dir: folder for plots and json, which each evaluation overwrites; None writes none.
        collect_device: as in MMEngine's BaseMetric.
        prefix: prefix of the names of the results.
        collect_dir: as in MMEngine's BaseMetric.

    Raises:
        NotADirectoryError: if ``out_dir``, or a folder that it is in, is a file.
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
        self._about = ''
        self.out_dir = None if out_dir is None else Path(out_dir)
        if self.out_dir is not None:
            # The folder is not created here, so that a metric that never evaluates leaves none.
            there = next(path for path in (self.out_dir, *self.out_dir.parents) if path.exists())
            if not there.is_dir():
                raise NotADirectoryError(f'out_dir {str(out_dir)!r}: {there} is no folder')

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Collect the embeddings of a batch.

        Args:
            data_batch: not used.
            data_samples: data samples of the batch, as dicts.

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
            path, pair_set = sample.get('img_path'), sample.get('pair_set')
            result = (
                int(sample['sample_idx']) if pair_set is None else int(pair_set['image']),
                _one_label(sample.get('gt_label')),
                # A copy, because a view would keep the whole batch in memory.
                embedding.float().cpu().numpy().copy(),
                None if path is None else str(path),
            )
            self.results.append(result if pair_set is None else (*result, pair_set))

    def collected(self, results: Sequence[tuple[int, int, np.ndarray, str | None]]) -> Collected:
        """Merge the results of all batches and ranks.

        Ranks may repeat images to have equally many; each image counts once.

        Raises:
            ValueError: if there are no results, two images have the same ``sample_idx``, embeddings
                differ in size, an embedding is not finite, or an image has two embeddings.
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
                    f'and {result[3]} of label {result[1]}. {_JOINED}'
                )
            likeness = _cosine(known[2], result[2])
            if likeness < _SAME_IMAGE:
                raise ValueError(
                    f'the image of sample_idx {result[0]} has two embeddings, of cosine '
                    f'{likeness:.3f}: it was evaluated twice in different ways, or there are two '
                    f'images of this sample_idx. {_JOINED}'
                )
        if len(results) >= 2 * len(first) > 2:
            self.say(
                f'{len(results):,} evaluations of {len(first):,} images: each image counts once, '
                'so RepeatDataset, or a data set that is joined twice, gives nothing more',
                logging.WARNING,
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

    def write_files(self, write: Callable[[Path], None], folder: Path | None = None) -> None:
        """Write files to ``out_dir``, if it is given; an error is logged, and the results remain.

        Args:
            write: function that takes the folder and writes the files.
            folder: folder within ``out_dir``; None takes ``out_dir``.
        """
        if self.out_dir is None:
            return
        folder = folder or self.out_dir
        try:
            write(folder)
        except Exception as error:  # files and plotting libraries raise many types
            self.say(
                f'files could not be written to {folder} ({type(error).__name__}: {error}); '
                'the figures are not affected',
                logging.WARNING,
            )
        else:
            self.say(f'figures written to {folder}')

    def say(self, message: str, level: int = logging.INFO) -> None:
        """Log a message with the name of the metric."""
        print_log(f'{type(self).__name__}: {self._about}{message}', logger='current', level=level)

    @property
    def meta(self) -> Mapping[str, Any]:
        """Meta information of the data set; empty if there is none, or a list of several."""
        return self.dataset_meta if isinstance(self.dataset_meta, Mapping) else {}

    @contextmanager
    def about(self, name: str) -> Iterator[None]:
        """Name a set in messages and errors."""
        self._about = f'{name}: '
        try:
            yield
        except ValueError as error:
            raise ValueError(f'set {name!r}: {error}') from error
        finally:
            self._about = ''

    def supported(
        self,
        rates: Sequence[float] | None,
        default: Sequence[float],
        count: int,
        kind: Literal['FAR', 'FPIR'],
    ) -> list[float]:
        """Select the error rates to report.

        Args:
            rates: rates that the user asked for, which are all kept. One that the trials cannot
                show is refused later. None takes the default rates.
            default: default rates. Those that the trials cannot show are left out, and logged.
            count: number of trials.
            kind: name of the rate.
        """
        if rates is not None:
            return list(rates)
        kept = [rate for rate in default if rate * count >= 1]
        if len(kept) < len(default):
            left = ', '.join(rate_name(rate) for rate in default if rate not in kept)
            what = 'impostor pairs' if kind == 'FAR' else 'non-mated searches'
            self.say(f'{kind} {left} left out: {count:,} {what} cannot show so low a rate')
        return kept


def not_evaluated(what: str, absent: Sequence[int]) -> str:
    """Say which images were not evaluated."""
    return (
        f'{what}: {len(absent):,} of the images were not evaluated, sample_idx {_first(absent)}. '
        'The loader must go over the whole data set'
    )


def rate_name(rate: float) -> str:
    """Format a rate for the name of a result.

    >>> rate_name(0.01), rate_name(0.015), rate_name(1.0)
    ('1e-02', '1.5e-02', '1e+00')
    """
    for digits in range(17):
        text = f'{rate:.{digits}e}'
        if float(text) == rate:
            return text
    return repr(rate)


def checked_rates(rates: float | Sequence[float] | None, name: str) -> tuple[float, ...] | None:
    """Return the rates of an option as a tuple; a single rate may be given without brackets.

    Raises:
        ValueError: if there are none, or one is not a number in (0, 1].
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
    """Replace infinite thresholds, which accept nothing, by a number just above any cosine.

    MMEngine logs results as json, which has no infinity.
    """
    return {name: 1 + 1 / GRID if value == math.inf else value for name, value in figures.items()}


def plain(value: float) -> float | None:
    """Return a number for json, which has no infinity; None for infinity."""
    return value if math.isfinite(value) else None


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine of two embeddings; 1 if one is zero or not finite, or the sizes differ."""
    if len(one) != len(other):
        return 1.0
    lengths = float(np.linalg.norm(one.astype(float)) * np.linalg.norm(other.astype(float)))
    if not 0 < lengths < math.inf:
        return 1.0
    return float(one.astype(float) @ other.astype(float)) / lengths


def _one_label(label: Any) -> int:
    """Return the label of an image; -1 if it has none."""
    if label is None:
        return -1
    values = torch.as_tensor(label).reshape(-1)
    if len(values) != 1:
        raise ValueError(f'gt_label must be one label per image, got {values.tolist()}')
    return int(values[0])


def _first(numbers: Sequence[int]) -> str:
    """Format the first few of many numbers."""
    more = ', ...' if len(numbers) > _NAMED else ''
    return ', '.join(map(str, numbers[:_NAMED])) + more
