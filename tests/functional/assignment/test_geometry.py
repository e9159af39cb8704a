"""Batch geometry and assignment: padding, checks, labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmdet_ext.catalog.synthetic import random_geometry
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry


@pytest.fixture
def geometry() -> BatchGeometry:
    return random_geometry(torch.Generator().manual_seed(0), (2, 0, 3), ignored=True)


def test_lists_are_padded_and_masked(geometry: BatchGeometry) -> None:
    assert geometry.gt_valid.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert geometry.gt_boxes.shape == (3, 3, 4) and geometry.gt_labels.dtype == torch.int64
    boxes = [torch.rand(2, 4), torch.rand(0, 4)]
    labels = [torch.tensor([4, 2]), torch.tensor([], dtype=torch.int64)]
    built = BatchGeometry.from_lists(geometry.priors, geometry.level_sizes, boxes, labels)
    assert torch.equal(built.gt_boxes[0], boxes[0])
    assert built.gt_labels[0].tolist() == [4, 2]
    assert built.gt_valid.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize('others', [0, 1])
def test_labels_of_no_box_may_have_any_empty_shape(geometry: BatchGeometry, others: int) -> None:
    boxes = [torch.zeros(0, 4)] + others * [torch.tensor([[0.0, 0.0, 8.0, 8.0]])]
    labels = [torch.zeros(0, 2, dtype=torch.int64)] + others * [torch.tensor([3])]
    built = BatchGeometry.from_lists(geometry.priors, geometry.level_sizes, boxes, labels)
    assert built.gt_labels.shape == (1 + others, others)
    with pytest.raises(ValueError, match='gt_labels must have shape'):
        BatchGeometry.from_lists(
            geometry.priors, geometry.level_sizes, boxes, [torch.zeros(2, 2, dtype=torch.int64)]
        )


def test_terms_are_computed_once(geometry: BatchGeometry) -> None:
    assert geometry.grids is geometry.grids
    assert geometry.prior_centers is geometry.prior_centers
    assert all(grid is not None for grid in geometry.grids)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda g: {'level_sizes': (3, 4)}, r'priors must have shape \(7, 4\)'),
        (lambda g: {'gt_boxes': g.gt_boxes[:, :2]}, r'gt_boxes must have shape \(3, 3, 4\)'),
        (lambda g: {'gt_labels': g.gt_labels[:2]}, r'gt_labels must have shape \(3, 3\)'),
        (lambda g: {'gt_labels': g.gt_labels.float()}, 'gt_labels must be int64'),
        (lambda g: {'gt_valid': g.gt_valid.long()}, 'gt_valid must be a bool tensor'),
        (lambda g: {'ignore_valid': None}, 'must be given together'),
        (lambda g: {'ignore_boxes': g.ignore_boxes[:, :1]}, 'ignore_boxes must have shape'),
        (lambda g: {'strides': torch.ones(3)}, 'strides must have shape'),
    ],
)
def test_what_does_not_fit_is_named(geometry: BatchGeometry, change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(geometry, **change(geometry))


def test_assignment_tells_labels_and_masks() -> None:
    assignment = Assignment(torch.tensor([[1, -1, -2, 0]]), torch.tensor([[0.5, 0.0, 0.0, 0.7]]))
    assert assignment.labels(torch.tensor([[7, 9]])).tolist() == [[9, -1, -1, 7]]
    assert assignment.positive_mask.tolist() == [[True, False, False, True]]
    assert assignment.ignore_mask.tolist() == [[False, False, True, False]]
    empty = Assignment(torch.full((1, 2), -1), torch.zeros(1, 2))
    assert empty.labels(torch.zeros(1, 0, dtype=torch.int64)).tolist() == [[-1, -1]]
    with pytest.raises(ValueError, match=r'must both be \(B, P\)'):
        Assignment(torch.zeros(2, 3), torch.zeros(3, 2))
