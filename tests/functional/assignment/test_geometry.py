"""Batch geometry and assignment: padding, checks, labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.synthetic import random_geometry
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions, Priors


@pytest.fixture
def geometry() -> BatchGeometry:
    return random_geometry(torch.Generator().manual_seed(0), (2, 0, 3), ignored=True)


def test_lists_are_padded_and_masked(geometry: BatchGeometry) -> None:
    assert geometry.gt_valid.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert geometry.gt_boxes.shape == (3, 3, 4) and geometry.gt_labels.dtype == torch.int64
    boxes = [torch.rand(2, 4), torch.rand(0, 4)]
    labels = [torch.tensor([4, 2]), torch.tensor([], dtype=torch.int64)]
    built = BatchGeometry.from_lists(geometry.priors, boxes, labels)
    assert torch.equal(built.gt_boxes[0], boxes[0])
    assert built.gt_labels[0].tolist() == [4, 2]
    assert built.gt_valid.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize('others', [0, 1])
def test_labels_of_no_box_may_have_any_empty_shape(geometry: BatchGeometry, others: int) -> None:
    boxes = [torch.zeros(0, 4)] + others * [torch.tensor([[0.0, 0.0, 8.0, 8.0]])]
    labels = [torch.zeros(0, 2, dtype=torch.int64)] + others * [torch.tensor([3])]
    built = BatchGeometry.from_lists(geometry.priors, boxes, labels)
    assert built.gt_labels.shape == (1 + others, others)
    with pytest.raises(ValueError, match='gt_labels must have shape'):
        BatchGeometry.from_lists(geometry.priors, boxes, [torch.zeros(2, 2, dtype=torch.int64)])


def test_derived_tensors_are_computed_once(geometry: BatchGeometry) -> None:
    priors = geometry.priors
    assert priors.grids is priors.grids
    assert priors.centers is priors.centers
    assert priors.rows is priors.corners
    assert all(grid is not None for grid in priors.grids)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda g: {'gt_boxes': g.gt_boxes[:, :2]}, r'gt_boxes must have shape \(3, 3, 4\)'),
        (lambda g: {'gt_labels': g.gt_labels[:2]}, r'gt_labels must have shape \(3, 3\)'),
        (lambda g: {'gt_labels': g.gt_labels.float()}, 'gt_labels must be int64'),
        (lambda g: {'gt_valid': g.gt_valid.long()}, 'gt_valid must be a bool tensor'),
        (lambda g: {'ignore_valid': None}, 'must be given together'),
        (lambda g: {'ignore_boxes': g.ignore_boxes[:, :1]}, 'ignore_boxes must have shape'),
        (lambda g: {'prior_valid': torch.ones(3, 7) > 0}, 'prior_valid must have shape'),
        (lambda g: {'gt_centers': g.gt_boxes}, r'gt_centers must have shape \(3, 3, 2\)'),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_named(
    geometry: BatchGeometry, change, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(geometry, **change(geometry))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'corners': torch.ones(5, 4), 'level_sizes': (3, 4)}, r'corners must have shape \(7, 4\)'),
        ({'corners': torch.ones(5, 2)}, r'corners must have shape \(5, 4\)'),
        ({'points': torch.ones(5, 2), 'strides': torch.ones(3, 2)}, 'strides must have shape'),
        ({'points': torch.ones(5, 2)}, 'points and strides must be given together'),
        ({}, 'either corners or points'),
        (
            {'corners': torch.ones(5, 4), 'points': torch.ones(5, 2), 'strides': torch.ones(5, 2)},
            'either corners or points',
        ),
    ],
)
def test_priors_that_do_not_fit_are_named(fields: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Priors(**fields)


def test_priors_of_the_other_form_are_refused() -> None:
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0]])
    priors = Priors(points=points, strides=torch.full((2, 2), 8.0))
    assert priors.rows.tolist() == [[4, 4, 8, 8], [12, 4, 8, 8]] and len(priors) == 2
    assert torch.equal(priors.centers, points)
    with pytest.raises(ValueError, match='must be anchors .*, got points with strides'):
        priors.as_corners()
    anchors = Priors(corners=priors.rows)
    assert torch.equal(anchors.centers, torch.tensor([[6.0, 6.0], [10.0, 6.0]]))
    with pytest.raises(ValueError, match='must be points with strides .*, got corners'):
        anchors.as_points()


def test_scores_are_read_as_logits_or_as_probabilities() -> None:
    logits = torch.linspace(-4, 4, 9).view(1, 3, 3)
    by_logits = Predictions(logits=logits)
    assert by_logits.as_logits() is logits and by_logits.num_classes == 3
    assert torch.equal(by_logits.as_probabilities(), logits.sigmoid())
    by_probabilities = Predictions(probabilities=logits.sigmoid())
    assert by_probabilities.as_probabilities() is by_probabilities.probabilities
    torch.testing.assert_close(by_probabilities.as_logits(), logits)
    with pytest.raises(ValueError, match='logits or probabilities, got both'):
        Predictions(logits=logits, probabilities=logits)
    with pytest.raises(ValueError, match='must have boxes, got none'):
        by_logits.as_boxes()


def test_assignment_returns_labels_and_masks() -> None:
    assignment = Assignment(torch.tensor([[1, -1, -2, 0]]), torch.tensor([[0.5, 0.0, 0.0, 0.7]]))
    assert assignment.labels(torch.tensor([[7, 9]])).tolist() == [[9, -1, -1, 7]]
    assert assignment.positive_mask.tolist() == [[True, False, False, True]]
    assert assignment.ignore_mask.tolist() == [[False, False, True, False]]
    empty = Assignment(torch.full((1, 2), -1), torch.zeros(1, 2))
    assert empty.labels(torch.zeros(1, 0, dtype=torch.int64)).tolist() == [[-1, -1]]
    with pytest.raises(ValueError, match=r'must both be \(B, P\)'):
        Assignment(torch.zeros(2, 3), torch.zeros(3, 2))
