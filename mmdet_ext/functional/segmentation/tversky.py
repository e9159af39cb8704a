"""Tversky loss, which weighs false positives and false negatives."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.functional.numerics.bounds import at_least
from mmdet_ext.functional.numerics.checks import check_number, check_that
from mmdet_ext.functional.segmentation.ratios import (
    RegionLosses,
    check_smoothing_terms,
    least_smoothing,
    region_losses,
    region_totals,
)
from mmdet_ext.functional.segmentation.regions import Regions, region_tables, used_activation
from mmdet_ext.functional.segmentation.sums import SumForm, region_sums

__all__ = ['check_tversky', 'tversky_loss', 'tversky_region_losses']

#: Value below which a power below 1 continues as a straight line: its slope is infinite at 0.
LEAST_POWER = 1e-24

#: The classes of each image, by softmax.
CLASSES = Regions()


def tversky_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    gamma: float = 1.0,
    regions: Regions = CLASSES,
) -> Tensor:
    r"""Compute the Tversky loss of each region: Dice with weights of its two kinds of error.

    .. math::
        L = \left(1 - \frac{\sum_i w_i p_i t_i + s}{\sum_i w_i p_i t_i
            + \alpha \sum_i w_i p_i (1 - t_i) + \beta \sum_i w_i (1 - p_i) t_i + s}
            \right)^{1 / \gamma}

    with :math:`p` the probabilities of ``pred``, :math:`t` the ground truth of ``target``,
    :math:`w` the ``weight`` of the pixels :math:`i` of a region, :math:`\alpha` = ``alpha``,
    :math:`\beta` = ``beta``, :math:`s` = ``smooth`` and :math:`\gamma` = ``gamma``. With
    ``alpha`` = ``beta`` = 0.5 it is `dice_loss` with the exponent 1 and an ``eps`` of 2 s.

    Args:
        pred: as for `dice_loss`, logits.
        target: as for `dice_loss`.
        weight: as for `dice_loss`.
        alpha: factor of false positives, from 0.
        beta: factor of false negatives, from 0; above ``alpha``, the loss favours recall.
        smooth: smoothing of both parts, from 0.
        gamma: from 1; above 1 it is the focal Tversky loss, which raises small losses, and with
            them the gradient of small regions that are nearly right.
        regions: what a region is.

    Returns:
        Tensor: in [0, 1], float32 or float64, in the shape of `dice_loss`. Only ``pred`` has a
        gradient, which is finite in float16 too.

    Raises:
        ValueError: for shapes that do not fit, a negative factor or smoothing, a ``gamma`` below
            1, or ``activation`` 'none'; on a CPU, for a label beyond the classes with softmax.

    >>> import torch
    >>> tversky_loss(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]), smooth=0.)
    tensor([[0.4444, 0.6154]])

    That is 1 - 1.5 / (1.5 + 0.3 * 0.5 + 0.7 * 1.5) and 1 - 0.5 / (0.5 + 0.3 * 1.5 + 0.7 * 0.5).

    References:
        Salehi et al., Tversky loss function for image segmentation using 3D fully convolutional
        deep networks, 2017, equation 4, where alpha + beta = 1 is a choice of the experiments.
        Abraham and Khan, A novel focal Tversky loss function with improved attention U-Net for
        lesion segmentation, 2019, equation 4 (gamma).
    """
    return tversky_region_losses(pred, target, weight, alpha, beta, smooth, gamma, regions).loss


def tversky_region_losses(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    gamma: float = 1.0,
    regions: Regions = CLASSES,
) -> RegionLosses:
    """Compute `tversky_loss`, and which regions take part."""
    check_tversky(alpha, beta, smooth, gamma)
    if regions.activation == 'none':
        raise ValueError("activation must be 'softmax' or 'sigmoid': Tversky loss is of logits")
    tables = region_tables(pred, target, weight, regions)
    activation = used_activation(regions.activation, tables)
    form = SumForm(activation, 1, alpha, beta, ignore_index=regions.ignore_index)
    sums = region_sums(tables, form)
    overlap, miss, counted = region_totals(sums, regions)
    loss = miss / (miss + overlap + max(smooth, least_smoothing(activation, pred.dtype, 1)))
    if gamma != 1:
        loss = loss * at_least(loss, LEAST_POWER).pow(1 / gamma - 1)
    return region_losses(loss, counted, regions, sums.overlap.shape[1])


def check_tversky(alpha: float, beta: float, smooth: float, gamma: float) -> None:
    """Raise ValueError unless the options of Tversky loss are in their ranges."""
    check_number('alpha', alpha, least=0, finite=True)
    check_number('beta', beta, least=0, finite=True)
    check_that(alpha + beta > 0, 'alpha + beta', alpha + beta, 'above 0', 'no error would count')
    check_smoothing_terms(smooth=smooth)
    why = '1 / gamma is the exponent of the loss'
    check_number('gamma', gamma, 'at least 1 and finite', least=1, finite=True, why=why)
