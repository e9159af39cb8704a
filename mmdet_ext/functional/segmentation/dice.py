"""Dice loss, alone and together with the cross entropy of the same softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from mmdet_ext.functional.classification.cross_entropy import is_ignored
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.segmentation.ratios import (
    RegionLosses,
    check_smoothing_terms,
    least_smoothing,
    region_losses,
    region_totals,
    region_weights,
)
from mmdet_ext.functional.segmentation.regions import (
    Regions,
    RegionTables,
    region_tables,
    used_activation,
)
from mmdet_ext.functional.segmentation.sums import RegionSums, SumForm, region_sums

__all__ = ['check_dice', 'dice_ce_loss', 'dice_loss', 'dice_region_losses']

#: The classes of each image, by softmax.
CLASSES = Regions()


def dice_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    exponent: int = 2,
    eps: float = 1e-3,
    smooth: float = 0.0,
    regions: Regions = CLASSES,
) -> Tensor:
    r"""Compute the Dice loss of each region: 1 less twice the overlap over the sum of both sizes.

    .. math::
        L = \begin{cases}
            1 - \dfrac{2 \sum_i w_i p_i t_i + s}
                {\sum_i w_i p_i^2 + \sum_i w_i t_i^2 + 2 \epsilon + s} & \mathrm{exponent}\ 2 \\
            1 - \dfrac{2 \sum_i w_i p_i t_i + \epsilon + s}
                {\sum_i w_i p_i + \sum_i w_i t_i + \epsilon + s} & \mathrm{exponent}\ 1
        \end{cases}

    with :math:`p` the probabilities of ``pred``, :math:`t` the ground truth of ``target``,
    :math:`w` the ``weight`` of the pixels :math:`i` of a region, :math:`\epsilon` = ``eps`` and
    :math:`s` = ``smooth``.

    Args:
        pred: (N, C, ...) predictions with labels, any shape (N, ...) otherwise. Half precision is
            computed in float32.
        target: labels (N, ...); or a target in [0, 1] of each element, of the shape of ``pred``.
            Negative values and the ``ignore_index`` of the regions are ignored: they are part of
            no sum. With sigmoid, labels from C on belong to no class. With one channel, the label
            1 is the object and 0 is not.
        weight: one weight per pixel, (N, ...), per element, or per image, (N,); from 0. None: all
            1.
        exponent: 2 as in V-Net, or 1.
        eps: smoothing, from 0, of the denominator alone with the exponent 2, of both parts with
            the exponent 1.
        smooth: smoothing of both parts, from 0.
        regions: what a region is, and what makes probabilities of ``pred``.

    Returns:
        Tensor: in [0, 1], float32 or float64: (N, C) for regions ``per_class``, else (N,); N is 1
        for regions over the ``batch``. Only ``pred`` has a gradient, which is finite in float16
        too.

    Raises:
        ValueError: for shapes that do not fit, another ``exponent`` or a negative smoothing; on a
            CPU, for a label beyond the classes with softmax.

    >>> import torch
    >>> pred, mask = torch.tensor([[1., 0.5, 0.]]), torch.tensor([[1., 1., 0.]])
    >>> plain = Regions('none', per_class=False)
    >>> dice_loss(pred, mask, exponent=1, eps=0., regions=plain)
    tensor([0.1429])

    That is 1 - 3 / 3.5. A region without a pixel that counts has the loss 0. Where a class has no
    ground truth, the loss is 1 without a gradient for the exponent 2 and no ``smooth``; otherwise
    it falls with the predicted size :math:`b`, as :math:`b / (b + s)`. With ``ignore_absent`` it
    is 0. Smoothing of less than 1e-12 counts as 1e-12; with probabilities in float16, of less than
    2^-12, or 2^-24 for the exponent 2, as that.

    References:
        Milletari et al., V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
        Segmentation, 2016, section 3 (exponent 2, no smoothing). Sudre et al., Generalised Dice
        overlap as a deep learning loss function for highly unbalanced segmentations, 2017,
        equation 2 (exponent 1).
    """
    return dice_region_losses(pred, target, weight, exponent, eps, smooth, regions).loss


def dice_ce_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    exponent: int = 1,
    eps: float = 1e-3,
    smooth: float = 0.0,
    class_weight: float | Sequence[float] | Tensor | None = None,
    avg_non_ignore: bool = False,
    regions: Regions = CLASSES,
) -> Tensor:
    r"""Compute Dice loss and cross entropy of an image from one softmax.

    .. math::
        L_n = \lambda_D \frac{1}{C} \sum_c D_{nc}
            - \lambda_E \frac{1}{P} \sum_i w_i v_{y_i} \ln p_{i y_i}

    with :math:`D` the `dice_loss` of the regions, :math:`\lambda_D` = ``dice_weight``,
    :math:`\lambda_E` = ``ce_weight``, :math:`p` the softmax of ``pred``, :math:`y` the labels,
    :math:`w` the ``weight``, :math:`v` the ``class_weight`` and :math:`P` the number of pixels.
    With sigmoid the second term is the binary cross entropy, a mean over classes and pixels.

    Args:
        pred: (N, C, ...) logits; half precision is computed in float32.
        target: as for `dice_loss`.
        weight: as for `dice_loss`; it weighs both terms.
        dice_weight: factor of the Dice loss.
        ce_weight: factor of the cross entropy.
        exponent: exponent of the Dice loss, 1 or 2.
        eps: smoothing of the Dice loss, as there.
        smooth: smoothing of both parts of its quotient.
        class_weight: (C,) or one number, weights of the cross entropy: of the label's class, with
            sigmoid of the positives. None: all 1.
        avg_non_ignore: whether :math:`P` counts only the pixels of the image that are not ignored.
        regions: the regions of the Dice loss. With ``batch``, its value is added to each image,
            times the weight of the image where there is one.

    Returns:
        Tensor: (N,), from 0, float32 or float64. The mean over classes counts only the regions
        that take part. An image of ignored pixels has the loss 0.

    Raises:
        ValueError: as `dice_loss`; for ``activation`` 'none', or a negative weight of a term.

    >>> import torch
    >>> uniform = dice_ce_loss(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]), eps=0.)
    >>> uniform
    tensor([1.1931])

    That is 1 - 2 / 4 for either class, and ln 2.

    References:
        Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image
        segmentation, 2021, methods, "Training" (the sum of both losses).
    """
    check_dice(exponent, eps, smooth)
    check_number('dice_weight', dice_weight, least=0, finite=True)
    check_number('ce_weight', ce_weight, least=0, finite=True)
    # Its weights are those of classes, which therefore stay apart in the tables.
    tables = region_tables(pred, target, weight, replace(regions, class_weight=class_weight))
    activation = used_activation(regions.activation, tables)
    if activation == 'none':
        raise ValueError("activation must be 'softmax' or 'sigmoid': cross entropy is of logits")
    form = SumForm(activation, exponent, entropy=bool(ce_weight), ignore_index=regions.ignore_index)
    (none_yet,) = promote_half(tables.pred[:0])
    factors = region_weights(Regions(class_weight=class_weight), none_yet)
    sums = region_sums(tables, form, factors)
    dice = _dice(sums, tables, exponent, eps, smooth, regions)
    of_image, counted = (t if regions.per_class else t.unsqueeze(1) for t in dice)
    loss = dice_weight * of_image.sum(1) / counted.sum(1).clamp(min=1)
    if regions.batch:
        images = None if weight is None or weight.dim() > 1 else weight
        loss = loss * (loss.new_ones(len(pred)) if images is None else images)
    if not ce_weight:
        return loss
    columns = tables.pred.shape[1] if activation == 'sigmoid' else 1
    elements: Tensor | int = max(1, tables.pred.shape[2] * columns)
    if avg_non_ignore:
        kept = ~is_ignored(tables.target, regions.ignore_index)
        if activation == 'softmax':  # a pixel counts where one of its targets does
            kept = kept.any(1, keepdim=True)
        repeats = columns // max(1, kept.shape[1])
        elements = (kept.flatten(1).sum(1) * repeats).clamp(min=1)
    return loss + ce_weight * sums.entropy.sum(1) / elements


def dice_region_losses(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    exponent: int = 2,
    eps: float = 1e-3,
    smooth: float = 0.0,
    regions: Regions = CLASSES,
) -> RegionLosses:
    """Compute `dice_loss`, and which regions take part.

    >>> import torch
    >>> uniform, absent = torch.zeros(1, 2, 4), torch.zeros(1, 4).long()
    >>> dice_region_losses(uniform, absent, regions=Regions(ignore_absent=True)).counted
    tensor([[ True, False]])
    """
    check_dice(exponent, eps, smooth)
    tables = region_tables(pred, target, weight, regions)
    activation = used_activation(regions.activation, tables)
    form = SumForm(activation, exponent, ignore_index=regions.ignore_index)
    return _dice(region_sums(tables, form), tables, exponent, eps, smooth, regions)


def check_dice(exponent: int, eps: float, smooth: float) -> None:
    """Raise ValueError unless the exponent is 1 or 2 and the smoothing is at least 0."""
    check_one_of('exponent', exponent, (1, 2))
    check_smoothing_terms(eps=eps, smooth=smooth)


def _dice(
    sums: RegionSums,
    tables: RegionTables,
    exponent: int,
    eps: float,
    smooth: float,
    regions: Regions,
) -> RegionLosses:
    """Compute the Dice loss of regions from their sums: miss / (miss + 2 overlap)."""
    overlap, miss, counted = region_totals(sums, regions)
    # Squares have eps in the denominator alone, as in OpenMMLab.
    alone = 2 * eps if exponent == 2 else 0.0
    both = smooth if exponent == 2 else smooth + eps
    least = least_smoothing(regions.activation, tables.pred.dtype, exponent)
    both += max(0.0, least - alone - both)
    miss = miss + alone
    loss = miss / (miss + 2 * overlap + both)
    return region_losses(loss, counted, regions, sums.overlap.shape[1])
