"""What data sets with an identity an image share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset


def image_prefix(data_prefix: str | Mapping[str, str]) -> dict[str, str]:
    """The folder of the images, relative to ``data_root``, as MMEngine's ``data_prefix``.

    Raises:
        ValueError: if it is neither a folder nor a dict of ``img_path``.

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
    """Raise ValueError if one of MMEngine's options is given that has no meaning here."""
    wrong = {name: value for name, value in given.items() if value}
    if wrong:
        shown = ', '.join(f'{name}={value!r}' for name, value in wrong.items())
        raise ValueError(f'{dataset} takes no {shown}: {why}')


class LabelledDataset(BaseDataset):  # type: ignore[misc]
    """Tells the labels of its entries without loading or decoding an image."""

    def get_gt_labels(self) -> np.ndarray:
        """The labels of all images, int64 of shape (N,), -1 where unknown."""
        return np.array([self._label(index) for index in range(len(self))], np.int64)

    def get_cat_ids(self, idx: int) -> list[int]:
        """The label of an image, in a list, as MMEngine's ClassBalancedDataset asks for it."""
        return [self._label(idx)]

    def _label(self, idx: int) -> int:
        # MMEngine's own: a subclass may decode what it gives.
        return int(BaseDataset.get_data_info(self, idx)['gt_label'])
