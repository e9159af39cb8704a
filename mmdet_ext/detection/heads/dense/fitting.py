"""Fit of heads with their input and with assigners: what goes together, and what does not.

A head is given feature maps of levels, and ground truth of classes. What does not fit, a host
would train on in part or in silence: mmdet's heads leave out the levels beyond the shorter of two
lists, and take a label that no class has for the background.

Heads have anchors or points. Every anchor has a centre and the stride of its level, so that a head
with anchors serves rules for points too. A point has no sides, so that rules for anchors have no
meaning in a head with points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from torch import Tensor

from mmdet_ext.detection import assigners
from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions, Priors

#: What the rules for each form of priors need, in words.
_NEEDS = {
    'corners': 'anchors (boxes of their own sides)',
    'cells': 'anchors that form cells',
    'points': 'points with strides',
}


class ChecksInput(BaseDenseHead):  # type: ignore[misc]
    """Mixin in front of a head of mmdet that names what does not fit it, with both numbers."""

    def forward(self, x: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        """Run the head's ``forward`` on feature maps (B, D, H, W), one per level."""
        check_level_count(self, x)
        return super().forward(x, *args, **kwargs)

    def loss(
        self, x: Sequence[Tensor], batch_data_samples: Sequence[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Compute the losses of a batch, after a look at its sizes and labels."""
        check_strides(self, x, batch_data_samples)
        check_labels(self, batch_data_samples)
        return super().loss(x, batch_data_samples, *args, **kwargs)

    def predict(
        self, x: Sequence[Tensor], batch_data_samples: Sequence[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Predict for a batch, after a look at its sizes."""
        check_strides(self, x, batch_data_samples)
        return super().predict(x, batch_data_samples, *args, **kwargs)


def check_level_count(head: Any, maps: Sequence[Tensor]) -> None:
    """Raise ValueError unless a head has as many levels of priors as there are feature maps.

    Args:
        head: a head with a prior generator.
        maps: one per level.
    """
    levels = int(head.prior_generator.num_levels)
    if len(maps) != levels:
        raise ValueError(
            f'{type(head).__name__} has {levels} levels, with strides '
            f'{_strides(head)}, but got feature maps of {len(maps)} levels. Give the head '
            'one stride per map of the neck, or set num_outs of the neck'
        )


def check_strides(head: Any, maps: Sequence[Tensor], samples: Sequence[Any]) -> None:
    """Raise ValueError if a feature map is too large or too small for the stride of its level.

    A map should have the image's side, divided by the stride, as its own; padding may add or take
    a cell, or a quarter of them.

    Args:
        head: a head; without a prior generator nothing is checked.
        maps: feature maps (B, D, H, W), one per level.
        samples: mmdet's data samples, of which ``batch_input_shape`` is the size of the batch, px;
            without it nothing is checked.
    """
    if not hasattr(head, 'prior_generator'):
        return
    shape = samples[0].metainfo.get('batch_input_shape') if samples else None
    if shape is None or len(maps) != head.prior_generator.num_levels:
        return
    for number, (each, strides) in enumerate(zip(maps, _strides(head), strict=True)):
        wanted = [side / stride for side, stride in zip(shape, strides[::-1], strict=True)]
        found = tuple(each.shape[-2:])
        if any(
            abs(have - want) > max(1, want / 4) for have, want in zip(found, wanted, strict=True)
        ):
            raise ValueError(
                f'{type(head).__name__} has the stride {strides} in level {number}, which makes '
                f'{wanted[0]:g} x {wanted[1]:g} cells of a batch of {tuple(shape)} px, but got a '
                f'feature map of {found[0]} x {found[1]}. Give the head the strides of its '
                'feature maps, in their order'
            )


def check_labels(head: Any, samples: Sequence[Any]) -> None:
    """Raise ValueError if a label of the ground truth is no class of the head.

    Args:
        head: a head with ``num_classes``.
        samples: mmdet's data samples with ground truth.
    """
    labels = torch.cat([sample.gt_instances.labels for sample in samples])
    largest = int(labels.max()) if labels.numel() else -1
    if largest >= head.num_classes:
        raise ValueError(
            f'{type(head).__name__} has num_classes={head.num_classes}, but the ground truth has '
            f'the label {largest}, so that the data set has at least {largest + 1} classes. Set '
            'num_classes to the number of classes in metainfo of the data set'
        )


def _strides(head: Any) -> list[tuple[int, int]]:
    """Return the strides along x and y of each level, px."""
    return [tuple(pair) for pair in head.prior_generator.strides]


def check_fits(head: Any, assigner: object) -> None:
    """Raise ValueError if an assigner of ours can get no priors of its kind from a head.

    Args:
        head: a head with ``gives_points`` and a prior generator.
        assigner: any assigner. Those of mmdet, and those that do not say what they use
            (``predictions_used`` is None), are not checked.

    Raises:
        ValueError: naming what the head has, what the assigner needs, and the assigners that the
            head takes.
    """
    if not isinstance(assigner, BatchAssigner) or assigner.predictions_used is None:
        return
    levels = int(head.prior_generator.num_levels)
    anchors_needed = not assigner.uses_centers and assigner.prior_form != 'points'
    if assigner.one_level and levels > 1:
        has, needs = f'{levels} levels of priors', 'the points of a single level'
    elif head.gives_points and anchors_needed:
        has, needs = 'points with strides', _NEEDS[assigner.prior_form]
    else:
        return
    own = type(assigner).__name__
    names = [name + ' with other options' * (name == own) for name in _taken(head, levels)]
    raise ValueError(
        f'{type(head).__name__} has {has}, but {own} needs {needs}. Of our assigners, '
        f'{type(head).__name__} takes {", ".join(names)}. docs/assigners.md lists the heads of '
        'each assigner'
    )


def _taken(head: Any, levels: int) -> list[str]:
    """Return the names of our assigners that a head takes, with some of their options."""
    names = []
    for name in assigners.__all__:
        kind = getattr(assigners, name)
        if not _is_assigner(kind) or (kind.one_level and levels > 1):
            continue
        # A class whose options decide has a property here, which is no string.
        if (
            not head.gives_points
            or kind.uses_centers
            or kind.prior_form not in ('corners', 'cells')
        ):
            names.append(name)
    return names


def _is_assigner(kind: type) -> bool:
    """Return whether a component of the package is an assigner, not an overlap measure."""
    return issubclass(kind, BatchAssigner) and kind is not BatchAssigner


def fitted(assigner: BatchAssigner, geometry: BatchGeometry, generator: Any) -> BatchGeometry:
    """Return the batch with the priors in the form that the assigner takes.

    Args:
        assigner: an assigner of ours.
        geometry: priors as the head has them.
        generator: prior generator of the head, with the ``strides`` of its levels.

    Returns:
        BatchGeometry: the same, except for anchors and a rule for points: these are the
        centres of the anchors, with the strides of their levels.
    """
    if geometry.priors.points is not None or assigner.prior_form != 'points':
        return geometry
    return replace(geometry, priors=as_points(geometry.priors, generator))


def as_points(priors: Priors, generator: Any) -> Priors:
    """Return the centres of anchors as points, with the strides of their levels.

    Args:
        priors: anchors, with the sizes of all levels.
        generator: prior generator of the head, with the ``strides`` of its levels.
    """
    centers = priors.centers
    strides = centers.new_tensor(list(generator.strides))
    lengths = torch.tensor(priors.sizes, device=centers.device)
    rows = strides.repeat_interleave(lengths, 0, output_size=len(priors))
    return Priors(points=centers, strides=rows, level_sizes=priors.level_sizes)


def used_part(predictions: Predictions | None, used: tuple[str, ...] | None) -> Predictions | None:
    """Return the part of the predictions that an assigner uses, detached.

    Args:
        predictions: of the head.
        used: of 'scores' and 'boxes'; None for all.
    """
    if predictions is None or used == ():
        return None
    scores = used is None or 'scores' in used
    return Predictions(
        boxes=_detached(predictions.boxes) if used is None or 'boxes' in used else None,
        logits=_detached(predictions.logits) if scores else None,
        probabilities=_detached(predictions.probabilities) if scores else None,
    )


def uses_predicted_boxes(assigner: BatchAssigner) -> bool:
    """Return whether the overlaps that an assigner for points gives are those of predicted boxes.

    Those that do not say what they use are taken for such, as mmdet's rules for points are.
    """
    return assigner.predictions_used is None or 'boxes' in assigner.predictions_used


def _detached(table: Tensor | None) -> Tensor | None:
    return None if table is None else table.detach()


def valid_priors(
    priors: Tensor, flags: Tensor, img_metas: Sequence[dict[str, Any]], allowed_border: int
) -> Tensor | None:
    """Compute which priors each image has, (B, P) bool; None where each image has all."""
    shapes = [meta['img_shape'][:2] for meta in img_metas]
    height, width = priors.new_tensor(shapes).T[..., None]  # (B, 1) each
    valid = anchor_inside_flags(priors, flags, (height, width), allowed_border)
    if valid.all():
        return None
    if not valid.any(1).all():
        raise ValueError(
            'There is no valid anchor inside the image boundary, for images of img_shape '
            f'{[shape for shape, some in zip(shapes, valid.any(1), strict=True) if not some]}. '
            'Check the image size and anchor sizes, or set ``allowed_border`` to -1 to skip the '
            'condition'
        )
    return valid


def same_levels(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Return whether two images have the same priors; mmdet mostly gives them the same object."""
    return one is other or (
        len(one) == len(other)
        and all(a is b or torch.equal(a, b) for a, b in zip(one, other, strict=True))
    )
