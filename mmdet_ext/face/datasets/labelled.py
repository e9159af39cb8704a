"""Shared parts of data sets in which each image has an identity."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log


def image_prefix(data_prefix: str | Mapping[str, str]) -> dict[str, str]:
    """Return the folder of the images in the form of MMEngine's ``data_prefix``.

    Args:
        data_prefix: the folder relative to ``data_root``, or a dict of ``img_path``.

    Raises:
        ValueError: if ``data_prefix`` has neither of these forms.

    >>> image_prefix('faces'), image_prefix({})
    ({'img_path': 'faces'}, {'img_path': ''})
    """
    prefix = data_prefix if isinstance(data_prefix, Mapping) else dict(img_path=data_prefix)
    folder = prefix.get('img_path', '')
    if set(prefix) - {'img_path'} or not isinstance(folder, str):
        raise ValueError(
            f"data_prefix must be a folder or dict(img_path='folder'), got {data_prefix!r}"
        )
    return dict(img_path=folder)


def refuse_options(dataset: str, given: Mapping[str, Any], why: str) -> None:
    """Raise ValueError if an option of MMEngine is given that has no meaning for a data set."""
    wrong = {name: value for name, value in given.items() if value}
    if wrong:
        shown = ', '.join(f'{name}={value!r}' for name, value in wrong.items())
        raise ValueError(f'{dataset} takes no {shown}: {why}')


def log_report(text: str, *, odd: bool) -> None:
    """Log a report of a data set, as a warning if something in it is odd."""
    print_log(text, logger='current', level=logging.WARNING if odd else logging.INFO)


class LabelledDataset(BaseDataset):  # type: ignore[misc]
    """Data set that gives the labels of its entries without loading or decoding an image."""

    def get_gt_labels(self) -> np.ndarray:
        """Return the labels of all images, int64 of shape (N,), -1 if unknown."""
        return np.array([self._label(index) for index in range(len(self))], np.int64)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the label of an image in a list, as MMEngine's ClassBalancedDataset expects it."""
        return [self._label(idx)]

    def _label(self, idx: int) -> int:
        """Return the label of an entry."""
        # MMEngine's method, because that of a subclass may decode the image.
        return int(BaseDataset.get_data_info(self, idx)['gt_label'])
