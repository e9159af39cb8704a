"""YOLOv1: cells, responsible boxes and equation 3, against loops over every cell and box."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.yolo.v1 import (
    YOLOV1Losses,
    decode_yolov1,
    owned_boxes,
    responsible_box,
    split_yolov1,
    yolov1_loss,
)

CLASSES = 4


def make_batch(seed: int, grid: tuple[int, int], per_cell: int = 2) -> tuple[Tensor, ...]:
    """Return a table of predictions, and boxes, labels and mask of three images."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.rand(3, *grid, 5 * per_cell + CLASSES, generator=generator) - 0.2
    center, sides = torch.rand(2, 3, 7, 2, generator=generator)
    sides = 0.05 + 0.5 * sides
    boxes = torch.cat([center - sides / 2, center + sides / 2], -1)
    labels = torch.randint(CLASSES, (3, 7), generator=generator)
    valid = torch.arange(7) < torch.tensor([7, 3, 0])[:, None]
    return table, boxes, labels, valid


def iou(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    union = sum(areas) - shared
    return shared / union if union > 0 else 0.0


def center_form(box: list[float]) -> list[float]:
    left, top, right, bottom = box
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def slow_loss(
    table: Tensor, boxes: Tensor, labels: Tensor, valid: Tensor, per_cell: int
) -> list[list[float]]:
    """Compute the five sums of each image, cell by cell and box by box."""
    images, rows, columns = table.shape[:3]
    result = []
    for image in range(images):
        xy = wh = of_object = of_background = of_classes = 0.0
        for row in range(rows):
            for column in range(columns):
                numbers = table[image, row, column].tolist()
                predicted = [numbers[5 * k : 5 * k + 5] for k in range(per_cell)]
                owned = None
                for box, label, real in zip(
                    boxes[image].tolist(), labels[image].tolist(), valid[image], strict=True
                ):
                    x, y = (box[0] + box[2]) / 2 * columns, (box[1] + box[3]) / 2 * rows
                    if real and owned is None and (math.floor(x), math.floor(y)) == (column, row):
                        owned = box, label, x - column, y - row
                best = None
                if owned is not None:
                    corners = []
                    for x, y, w, h, _ in predicted:
                        cx, cy = (column + x) / columns, (row + y) / rows
                        half = w * w / 2, h * h / 2
                        corners.append([cx - half[0], cy - half[1], cx + half[0], cy + half[1]])
                    overlaps = [iou(each, owned[0]) for each in corners]
                    gaps = [
                        sum(
                            (a - b) ** 2
                            for a, b in zip(center_form(each), center_form(owned[0]), strict=True)
                        )
                        for each in corners
                    ]
                    best = overlaps.index(max(overlaps))
                    if max(overlaps) == 0:
                        best = gaps.index(min(gaps))
                    (left, top, right, bottom), label, x, y = owned
                    own = predicted[best]
                    xy += (own[0] - x) ** 2 + (own[1] - y) ** 2
                    wh += (own[2] - math.sqrt(right - left)) ** 2
                    wh += (own[3] - math.sqrt(bottom - top)) ** 2
                    of_object += (own[4] - overlaps[best]) ** 2
                    for k, value in enumerate(numbers[5 * per_cell :]):
                        of_classes += (value - (k == label)) ** 2
                of_background += sum(each[4] ** 2 for k, each in enumerate(predicted) if k != best)
        result.append([5 * xy, 5 * wh, of_object, 0.5 * of_background, of_classes])
    return result


@pytest.mark.parametrize('grid', [(7, 7), (2, 3), (1, 1)])
@pytest.mark.parametrize('per_cell', [1, 2, 3])
@pytest.mark.parametrize('seed', [0, 1])
def test_losses_equal_loops_over_cells_and_boxes(
    grid: tuple[int, int], per_cell: int, seed: int
) -> None:
    batch = make_batch(seed, grid, per_cell)
    losses = yolov1_loss(split_yolov1(batch[0].double(), per_cell), *batch[1:])
    expected = torch.tensor(slow_loss(*batch, per_cell), dtype=torch.float64)
    torch.testing.assert_close(torch.stack(losses, 1), expected, rtol=1e-5, atol=1e-6)
    of_objects = [0, 1, 2, 4]
    assert (expected[0, of_objects] > 0).all() and (expected[2, of_objects] == 0).all()


def test_a_batch_is_the_stack_of_its_images() -> None:
    table, boxes, labels, valid = make_batch(3, (5, 5))
    together = yolov1_loss(split_yolov1(table), boxes, labels, valid)
    for image, count in enumerate(valid.sum(1).tolist()):
        alone = yolov1_loss(
            split_yolov1(table[image, None]),
            boxes[image, None, :count],
            labels[image, None, :count],
            valid[image, None, :count],
        )
        torch.testing.assert_close(
            torch.stack(alone)[:, 0], torch.stack(together)[:, image], rtol=1e-5, atol=1e-6
        )


def test_the_optimum_costs_nothing() -> None:
    table, box = torch.zeros(1, 2, 2, 7), torch.tensor([[[0.5, 0.0, 1.0, 0.25]]])
    table[0, 0, 1] = torch.tensor([0.5, 0.25, math.sqrt(0.5), 0.5, 1.0, 0.0, 1.0])
    losses = yolov1_loss(split_yolov1(table, 1), box, torch.tensor([[1]]), torch.tensor([[True]]))
    torch.testing.assert_close(torch.stack(losses), torch.zeros(5, 1), rtol=0, atol=1e-6)


def test_the_target_of_the_confidence_has_no_gradient() -> None:
    table, *truth = make_batch(1, (3, 3))
    cells = split_yolov1(table.requires_grad_())
    (grad,) = torch.autograd.grad(yolov1_loss(cells, *truth).object.sum(), table)
    assert grad[..., [4, 9]].any()
    assert not grad[..., [0, 1, 2, 3, 5, 6, 7, 8, 10]].any()


def test_gradients_of_all_terms_equal_finite_differences() -> None:
    table, *truth = make_batch(2, (2, 2))
    table = table.double().requires_grad_()

    def fixed(rows: Tensor) -> Tensor:
        losses = yolov1_loss(split_yolov1(rows), *truth)
        return losses.center + losses.size + losses.no_object + losses.classes

    assert torch.autograd.gradcheck(fixed, table)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('value', [0.0, -1.0, 300.0])
def test_any_finite_prediction_has_a_finite_gradient(dtype: torch.dtype, value: float) -> None:
    """Sides of 0 and negative roots too."""
    _, *truth = make_batch(4, (3, 3))
    table = torch.full((3, 3, 3, 14), value, dtype=dtype, requires_grad=True)
    losses = yolov1_loss(split_yolov1(table), *truth)
    assert all(term.dtype == torch.float32 and term.isfinite().all() for term in losses)
    (grad,) = torch.autograd.grad(sum(term.sum() for term in losses), table)
    assert grad.isfinite().all()


def test_images_without_boxes_learn_background_alone() -> None:
    table = torch.rand(2, 3, 3, 14)
    none = torch.zeros(2, 0)
    losses = yolov1_loss(split_yolov1(table), torch.zeros(2, 0, 4), none.long(), none.bool())
    expected = 0.5 * table[..., [4, 9]].square().flatten(1).sum(1)
    torch.testing.assert_close(losses.no_object, expected)
    for name in set(YOLOV1Losses._fields) - {'no_object'}:
        assert not getattr(losses, name).any(), name


def test_boxes_without_area_or_outside_of_the_image_have_no_cell() -> None:
    boxes = torch.tensor(
        [
            [0.2, 0.2, 0.2, 0.4],  # no width
            [0.4, 0.4, 0.2, 0.6],  # inverted
            [0.9, 0.4, 1.3, 0.6],  # the centre lies beyond the right border
            [-0.4, 0.1, 0.2, 0.3],  # and beyond the left one
            [0.8, 0.8, 1.2, 1.2],  # on the corner, which is outside
        ]
    )[None]
    assert (owned_boxes(boxes, torch.ones(1, 5, dtype=torch.bool), (2, 2)) == -1).all()


def test_the_first_of_several_boxes_owns_a_cell() -> None:
    box = torch.tensor([0.1, 0.1, 0.3, 0.3])
    boxes = torch.stack([box + 0.6, box + 0.01, box])[None]
    valid = torch.tensor([[True, True, True]])
    assert owned_boxes(boxes, valid, (2, 2))[0].tolist() == [[1, -1], [-1, 0]]
    valid[0, 1] = False
    assert owned_boxes(boxes, valid, (2, 2))[0].tolist() == [[2, -1], [-1, 0]]


def test_ties_and_boxes_apart_have_a_responsible_box() -> None:
    own = torch.tensor([0.4, 0.4, 0.6, 0.6]).view(1, 1, 1, 4)
    far, near = [0.0, 0.0, 0.1, 0.1], [0.2, 0.2, 0.3, 0.3]
    boxes = torch.tensor([far, near, near]).view(1, 1, 1, 3, 4)
    best, overlap = responsible_box(boxes, own)
    assert best.flatten().tolist() == [False, True, False] and not overlap.any()
    best, _ = responsible_box(own[..., None, :].expand(1, 1, 1, 3, 4), own)
    assert best.flatten().tolist() == [True, False, False]


def test_boxes_are_decoded_cell_by_cell() -> None:
    table = torch.zeros(1, 2, 4, 1, 4)
    table[0, 1, 2, 0] = torch.tensor([0.5, 1.0, 0.5, -0.5])
    expected = [2.5 / 4 - 0.125, 1.0 - 0.125, 2.5 / 4 + 0.125, 1.0 + 0.125]
    assert decode_yolov1(table)[0, 1, 2, 0].tolist() == expected


def test_a_tiny_object_has_its_overlap() -> None:
    """A box of 1 x 1 px in an image of 4000 px is no union of 0."""
    side = 1 / 4000
    own = torch.tensor([0.5, 0.5, 0.5 + side, 0.5 + side])
    half = torch.tensor([0.5, 0.5, 0.5 + side / 2, 0.5 + side])
    _, overlap = responsible_box(half.view(1, 1, 1, 1, 4), own.view(1, 1, 1, 4))
    assert float(overlap) == pytest.approx(0.5, abs=1e-2)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r'D above 10 = 5 x 2 boxes, got \(1, 7, 7, 10\)'):
        split_yolov1(torch.zeros(1, 7, 7, 10))
    table, *truth = make_batch(0, (2, 2))
    with pytest.raises(ValueError, match='lambda_noobj must be at least 0 and finite, got -1'):
        yolov1_loss(split_yolov1(table), *truth, lambda_noobj=-1)
    with pytest.raises(ValueError, match='lambda_coord must be'):
        yolov1_loss(split_yolov1(table), *truth, lambda_coord=float('nan'))
