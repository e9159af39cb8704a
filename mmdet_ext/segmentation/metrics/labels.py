"""Labels per pixel out of data samples, and the confusion of an image in few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.scoring.confusion import confusion_matrix

_ADVICE = {
    'predicted': 'the head has more classes than the data set names in its metainfo',
    'target': "do classes, reduce_zero_label and ignore_index fit the label files' values?",
}
_SOURCES = {
    'pred_sem_seg': 'a segmentor such as EncoderDecoder',
    'gt_sem_seg': 'the pipeline (LoadAnnotations, then PackSegInputs)',
}


class ImageCounts(NamedTuple):
    """Confusion of one image, without the entries that are 0.

    Attributes:
        place: (K,) int64, row * C + column of the entries.
        pixels: (K,) int64, pixels of each.
        ignored: number of pixels that do not count.
    """

    place: Tensor
    pixels: Tensor
    ignored: int

    @classmethod
    def of_sample(
        cls, sample: Mapping[str, Any], classes: int, ignore_index: int | None
    ) -> ImageCounts:
        """Count the pixels of a data sample.

        Raises:
            KeyError: if it has no ``pred_sem_seg`` or no ``gt_sem_seg``.
            ValueError: if the two differ in size or a value is no class; the error names the image.
        """
        predicted, target = (_labels(sample, key) for key in _SOURCES)
        if predicted.shape != target.shape:
            raise ValueError(
                f'{_name(sample)}: the prediction has {_size(predicted)} pixels, the ground truth '
                f'{_size(target)}. Segmentors predict at the size of the file: in the test '
                'pipeline, LoadAnnotations comes after Resize, which would resize the labels too'
            )
        try:
            table = confusion_matrix(predicted, target, classes, ignore_index).cpu().flatten()
        except ValueError as error:
            what = str(error).partition(' ')[0]
            raise ValueError(f'{_name(sample)}: {error}. {_ADVICE.get(what, "")}') from error
        place = table.nonzero().squeeze(1)
        pixels = table[place]
        return cls(place, pixels, target.numel() - int(pixels.sum()))


def _labels(sample: Mapping[str, Any], key: str) -> Tensor:
    """Return the labels (H, W) that a data sample holds under a key, as integers.

    mmseg gives (1, H, W) as ``data``, from a head of one channel as floats of 0 and 1; mmdet gives
    it as ``sem_seg``.
    """
    part = sample.get(key)
    data = None if part is None else part.get('data', part.get('sem_seg'))
    if data is None:
        raise KeyError(
            f'SegmentationMetric: {_name(sample)} has no {key!r}, which {_SOURCES[key]} must give. '
            f'It has {", ".join(sorted(map(str, sample.keys())))}'
        )
    labels = torch.as_tensor(data).detach()
    while labels.ndim > 2 and labels.shape[0] == 1:
        labels = labels[0]
    if labels.ndim != 2:
        raise ValueError(
            f'{_name(sample)}: {key} must hold one label per pixel, (1, H, W), got '
            f'{tuple(labels.shape)}'
        )
    if labels.dtype == torch.bool:
        return labels.byte()
    if labels.is_floating_point():
        whole = labels.round()
        if not whole.equal(labels):
            value = labels[whole != labels][0].item()
            raise ValueError(
                f'{_name(sample)}: {key} must hold labels, which are whole, got {value:.4g}'
            )
        return whole.long()
    return labels


def _name(sample: Mapping[str, Any]) -> str:
    """Name the image of a data sample for a message."""
    for key in ('img_path', 'sample_idx'):
        if sample.get(key) is not None:
            return f'image {sample.get(key)}'
    return 'an image without img_path'


def _size(labels: Tensor) -> str:
    height, width = labels.shape
    return f'{width} x {height}'
