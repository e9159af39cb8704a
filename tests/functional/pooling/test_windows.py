"""Windows of the image as cells: by the centres of receptive fields."""

from __future__ import annotations

import pytest
import torch

from mmdet_ext.functional.pooling.windows import window_cells


def slow_cells(box: list[float], stride: float, height: int, width: int) -> list[int]:
    """Look at each cell: its centre is inside, or it is the nearest."""
    found = []
    for low, high, most in ((box[0], box[2], width), (box[1], box[3], height)):
        inside = [cell for cell in range(most) if low < cell * stride < high]
        centre = (low + high) / 2
        if not inside:
            # Of two cells equally near the later one.
            inside = [min(range(most), key=lambda k: (abs(k * stride - centre), -k))]
        found.append((inside[0], inside[-1]))
    (left, right), (top, bottom) = found
    return [left, top, right, bottom]


@pytest.mark.parametrize('stride', [4, 16, 7.5])
def test_equals_a_look_at_each_cell(stride: float) -> None:
    generator = torch.Generator().manual_seed(0)
    height, width = 7, 9
    corner = torch.rand(300, 2, generator=generator) * torch.tensor([width, height]) * stride
    sides = torch.rand(300, 2, generator=generator) ** 2 * 5 * stride
    boxes = torch.cat([corner, corner + sides], 1)
    boxes[:50] = boxes[:50].round()  # corners on centres
    expected = [slow_cells(box, stride, height, width) for box in boxes.tolist()]
    assert window_cells(boxes, stride, height, width).tolist() == expected


def test_a_corner_on_a_centre_excludes_that_cell() -> None:
    assert window_cells(torch.tensor([[16.0, 16, 64, 48]]), 16, 8, 8).tolist() == [[2, 2, 3, 2]]


def test_every_window_has_a_cell_of_the_map() -> None:
    boxes = torch.tensor(
        [
            [5.0, 5, 5, 5],  # no area
            [-90, -90, -50, -50],  # before the map
            [900, 900, 950, 950],  # behind it
            [30, 30, 10, 10],  # inverted
            [-1e9, -1e9, 1e9, 1e9],
            [float('nan')] * 4,
            [float('-inf'), 0, float('inf'), 9],
        ]
    )
    cells = window_cells(boxes, 16, 4, 6)
    assert (cells[:, :2] >= 0).all() and (cells[:, 2:] >= cells[:, :2]).all()
    assert (cells[:, 2] < 6).all() and (cells[:, 3] < 4).all()
    assert cells[:5].tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [5, 3, 5, 3],
        [1, 1, 1, 1],
        [0, 0, 5, 3],
    ]


def test_no_boxes_have_no_cells() -> None:
    assert window_cells(torch.zeros(0, 4), 16, 4, 6).shape == (0, 4)


def test_bad_input_is_named() -> None:
    box = torch.zeros(1, 4)
    with pytest.raises(ValueError, match='stride must be above 0 and finite, got 0'):
        window_cells(box, 0, 4, 4)
    with pytest.raises(ValueError, match='height must be at least 1, got 0'):
        window_cells(box, 16, 0, 4)
    with pytest.raises(ValueError, match=r'boxes must be \(N, 4\), got \(1, 5\)'):
        window_cells(torch.zeros(1, 5), 16, 4, 4)
