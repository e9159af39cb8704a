"""Confusion matrices of labels per pixel, exact counts, and the figures that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_count, check_number

__all__ = ['ClassScores', 'class_scores', 'confusion_matrix', 'present_mean']

#: Pixels that are counted at once on a CPU: their indices stay in the cache, and the work is too
#: little for torch to share it among threads, which would wait for each other.
CPU_PIXELS = 32_768


@dataclass(frozen=True)
class ClassScores:
    """Figures per class of a confusion matrix, (C,) float64 in [0, 1], NaN where undefined.

    TP are the pixels of a class that are predicted as it, FN its other pixels, FP the pixels of
    other classes that are predicted as it.

    Attributes:
        iou: TP / (TP + FN + FP). NaN for a class absent from ground truth and predictions.
        recall: TP / (TP + FN), the accuracy of a class. NaN if absent from the ground truth.
        precision: TP / (TP + FP). NaN if absent from the predictions.
        dice: 2 TP / (2 TP + FN + FP). NaN where ``iou`` is.
        f_score: (1 + beta^2) precision recall / (beta^2 precision + recall). NaN where precision or
            recall is, and where both are 0; ``dice`` is 0 there.
        share: share of the ground truth, (TP + FN) / N for N pixels.
        accuracy: 0-D, share of correct pixels of all classes.
    """

    iou: Tensor
    recall: Tensor
    precision: Tensor
    dice: Tensor
    f_score: Tensor
    share: Tensor
    accuracy: Tensor

    @property
    def weighted_iou(self) -> Tensor:
        """IoU weighed by the shares of the classes, 0-D; an absent class has no share."""
        return (self.share * self.iou.nan_to_num(nan=0.0)).sum()


def confusion_matrix(
    predicted: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = 255
) -> Tensor:
    """Count the pixels of each class by the class that is predicted for them.

    Args:
        predicted: (...) integer, in [0, C) wherever the ground truth is not ignored.
        target: (...) integer, in [0, C) or ``ignore_index``.
        num_classes: number of classes C, at least 1.
        ignore_index: label of pixels that do not count, whatever is predicted; None for no such
            label.

    Returns:
        Tensor: (C, C) int64, on the device of ``predicted``. Row i, column j: pixels of class i
        that are predicted as class j.

    Raises:
        ValueError: if the shapes differ, a tensor is not of integers, or a value is out of range;
            the error gives the value.

    >>> predicted, target = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 255])
    >>> confusion_matrix(predicted, target, 2)
    tensor([[1, 1],
            [0, 1]])
    """
    check_count('num_classes', num_classes)
    if predicted.shape != target.shape:
        raise ValueError(
            f'predicted and target must have one shape, got {tuple(predicted.shape)} and '
            f'{tuple(target.shape)}'
        )
    for name, labels in (('predicted', predicted), ('target', target)):
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f'{name} must hold integers, got {labels.dtype}')
    target = target.to(predicted.device)
    flat, wanted = predicted.reshape(-1), target.reshape(-1)
    step = max(CPU_PIXELS, 4 * num_classes**2) if flat.device.type == 'cpu' else max(1, len(flat))
    table = torch.zeros(num_classes**2, dtype=torch.int64, device=flat.device)
    for start in range(0, len(flat), step):
        part = slice(start, start + step)
        table += _count(flat[part], wanted[part], num_classes, ignore_index)
    return table.view(num_classes, num_classes)


def class_scores(confusion: Tensor, beta: float = 1.0) -> ClassScores:
    """Compute the figures per class of a confusion matrix.

    Args:
        confusion: (C, C) counts; rows are the ground truth, columns the predictions.
        beta: weight of recall in the F-score, above 0.

    Raises:
        ValueError: if the matrix is not square, or ``beta`` is not above 0.

    References:
        Everingham et al., The PASCAL Visual Object Classes Challenge: A Retrospective, IJCV 2015,
        section 4.1.4, for the IoU of segmentations. Long et al., Fully Convolutional Networks for
        Semantic Segmentation, CVPR 2015, section 5, for the accuracies and the weighted IoU.

    >>> scores = class_scores(torch.tensor([[3, 1], [0, 4]]))
    >>> scores.iou, scores.accuracy
    (tensor([0.7500, 0.8000], dtype=torch.float64), tensor(0.8750, dtype=torch.float64))
    """
    check_number('beta', beta, above=0, finite=True)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f'confusion must be (C, C), got {tuple(confusion.shape)}')
    table = confusion.double()
    hits, labelled, found = table.diagonal(), table.sum(1), table.sum(0)
    recall, precision = hits / labelled, hits / found
    weighed = (1 + beta**2) * precision * recall
    return ClassScores(
        iou=hits / (labelled + found - hits),
        recall=recall,
        precision=precision,
        dice=2 * hits / (labelled + found),
        f_score=weighed / (beta**2 * precision + recall),
        share=labelled / table.sum(),
        accuracy=hits.sum() / table.sum(),
    )


def present_mean(values: Tensor) -> Tensor:
    """Compute the mean over the classes that have a value; NaN if there is none.

    >>> present_mean(torch.tensor([.5, float('nan'), 1.]))
    tensor(0.7500)
    """
    return values.nanmean()


def _count(predicted: Tensor, target: Tensor, classes: int, ignore_index: int | None) -> Tensor:
    """Count some pixels, (N,) each, into a flat table of C x C."""
    predicted, target = predicted.long(), target.long()
    ignored = None if ignore_index is None else target == ignore_index
    if ignored is not None:
        predicted, target = (labels.masked_fill(ignored, 0) for labels in (predicted, target))
    for name, labels in (('target', target), ('predicted', predicted)):
        least, most = (bound.item() for bound in labels.aminmax())
        if least < 0 or most >= classes:
            _refuse(name, labels, classes, ignore_index)
    table = torch.bincount(target * classes + predicted, minlength=classes * classes)
    if ignored is not None:
        table[0] -= ignored.sum()
    return table


def _refuse(name: str, labels: Tensor, classes: int, ignore_index: int | None) -> None:
    """Raise ValueError about labels, some of which are not in [0, C)."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    values, counts = wrong.unique(return_counts=True)
    ignored = '' if ignore_index is None or name != 'target' else f' or {ignore_index} (ignored)'
    raise ValueError(
        f'{name} must be in [0, {classes}){ignored}, got {int(values[counts.argmax()])}'
    )
