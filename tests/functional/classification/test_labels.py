"""Labels as indices, and labels of weight 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.classification.labels import label_index, without_weightless


def test_labels_of_weight_0_become_ignored() -> None:
    label = torch.tensor([0, 3, 3, 1])
    for weight in (
        torch.tensor([1.0, 0.0, 2.0, 1.0]),
        torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]),  # per element
        torch.tensor([[1.0], [0.0], [1.0], [1.0]]),
    ):
        assert without_weightless(label, weight).tolist() == [0, -1, 3, 1]
    for weight in (None, torch.zeros(3), torch.zeros(2, 4)):
        assert without_weightless(label, weight) is label
    flags = without_weightless(torch.tensor([True, True]), torch.tensor([0, 1]))
    assert flags.tolist() == [-1, 1]


def test_pixels_count_where_any_class_has_a_weight() -> None:
    label, weight = torch.zeros(2, 4, 5).long(), torch.zeros(2, 3, 4, 5)
    weight[1, 2, 3, 4] = 1
    expected = torch.full((2, 4, 5), -1)
    expected[1, 3, 4] = 0
    assert torch.equal(without_weightless(label, weight), expected)
    # One weight per image.
    assert without_weightless(label, torch.tensor([0.0, 1.0])).amax((1, 2)).tolist() == [-1, 0]


def test_elements_of_weight_0_become_ignored() -> None:
    table = torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    for weight, expected in (
        (torch.tensor([0.0, 1.0]), [[-1.0, -1.0], [0.5, 0.0]]),
        (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [[0.0, -1.0], [-1.0, 0.0]]),
    ):
        assert without_weightless(table, weight).tolist() == expected


def test_an_index_stays_within_the_columns() -> None:
    label: Tensor = torch.tensor([[2, -1], [255, 0]])
    ignored = (label < 0) | (label == 255)
    assert label_index(label, ignored, 3).tolist() == [[2, 0], [0, 0]]
    assert label_index(label[:0], ignored[:0], 0).shape == (0, 2)
    with pytest.raises(ValueError, match='mask has the label 255, but pred has 3 columns.*mend it'):
        label_index(label, label < 0, 3, name='mask', remedy='mend it')
