"""Data set of scikit-learn's real digits, small enough to train on within seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mmdet_ext.face.datasets.labelled import LabelledDataset, refuse_options
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.registry import DATASETS

#: The largest value of a pixel in scikit-learn's digits.
_WHITE = 16


@DATASETS.register_module()
class DigitsDataset(LabelledDataset):
    """Data set of the 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn.

    The images are held in memory. An entry has ``img``, (8, 8, 3), uint8, three equal channels,
    bright ink on black; ``img_shape``, ``ori_shape`` and ``gt_label``. A pipeline may begin with
    LoadFace, which passes the image on, or without it. Labels number ``digits`` from 0 in their
    order, and ``metainfo['classes']`` holds the digits as text. 'train' and 'test' of one seed have
    no image in common, even if they take different ``digits``, so that some digits can be kept for
    the test.

    Args:
        digits: the digits to take, different ones of 0 .. 9.
        part: 'train', 'test' or 'all'.
        test_fraction: share of the images of each digit in 'test', in (0, 1).
        seed: seed of the split, at least 0.
        metainfo: as in MMEngine; ``classes`` cannot be given.
        ann_file: refused, because there is no file.
        data_root: refused.
        data_prefix: refused.
        **kwargs: as in MMEngine's BaseDataset: pipeline, test_mode, indices, lazy_init, ...

    Raises:
        ImportError: if scikit-learn is not installed.
        ValueError: if an option is out of its range.

    References:
        E. Alpaydin, C. Kaynak: Optical recognition of handwritten digits. UCI, 1998.
    """

    def __init__(
        self,
        digits: Sequence[int] = tuple(range(10)),
        part: Literal['train', 'test', 'all'] = 'all',
        *,
        test_fraction: float = 0.25,
        seed: int = 0,
        metainfo: Mapping[str, Any] | None = None,
        ann_file: str = '',
        data_root: str | None = None,
        data_prefix: str | Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        refuse_options(
            type(self).__name__,
            dict(ann_file=ann_file, data_root=data_root, data_prefix=data_prefix),
            'the images come with scikit-learn',
        )
        self.digits = tuple(digits)
        if (
            not self.digits
            or len(set(self.digits)) != len(self.digits)
            or not (set(self.digits) <= set(range(10)))
        ):
            raise ValueError(f'digits must be different numbers of 0 .. 9, got {self.digits}')
        check_one_of('part', part, ('train', 'test', 'all'))
        check_number('test_fraction', test_fraction, 'in (0, 1)', above=0, below=1)
        if metainfo is not None and 'classes' in metainfo:
            raise ValueError('metainfo names classes, but the digits are named by digits=(...)')
        self.part, self.test_fraction, self.seed = part, test_fraction, seed
        super().__init__(
            metainfo={**(metainfo or {}), 'classes': tuple(map(str, self.digits))},
            data_root='',
            data_prefix={},
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the digits, in the order of scikit-learn."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError(
                "DigitsDataset takes scikit-learn's digits; install it: `pip install scikit-learn`"
            ) from error
        images, digits = load_digits(return_X_y=True)
        values = np.rint(images.reshape(-1, 8, 8, 1) * (255 / _WHITE)).astype(np.uint8)
        return [
            dict(
                img=values[i].repeat(3, axis=2),
                img_shape=(8, 8),
                ori_shape=(8, 8),
                gt_label=self.digits.index(int(digits[i])),
            )
            for i in np.flatnonzero(np.isin(digits, self.digits) & self._in_part(digits))
        ]

    def _in_part(self, digits: np.ndarray) -> np.ndarray:
        """Return a mask, of the shape of ``digits``, of the images that belong to the part."""
        if self.part == 'all':
            return np.ones(len(digits), bool)
        in_test = np.zeros(len(digits), bool)
        for digit in range(10):
            # One random stream per digit, so that its split does not depend on the others.
            shuffled = np.random.default_rng([self.seed, digit]).permutation(
                np.flatnonzero(digits == digit)
            )
            in_test[shuffled[: round(len(shuffled) * self.test_fraction)]] = True
        return in_test if self.part == 'test' else ~in_test
