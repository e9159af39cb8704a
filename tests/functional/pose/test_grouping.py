"""Grouping loss: slow twins of each normalisation, gradients, and images without people."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.pose import GroupingNorm, grouping_loss


def batch(seed: int, dimension: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make maps of tags of two images, and the joints of four people."""
    generator = torch.Generator().manual_seed(seed)
    tags = torch.randn(2, dimension * 3, 5, 6, generator=generator, dtype=torch.float64)
    cells = torch.randint(30, (2, 4, 3), generator=generator)
    visible = torch.rand(2, 4, 3, generator=generator) > 0.4
    return tags, cells, visible


def slow_loss(
    tags: Tensor, cells: Tensor, visible: Tensor, norm: str, per_dimension: bool, sigma: float
) -> tuple[float, float]:
    """Compute pull and push of one image by loops over people and joints."""
    joints = cells.shape[1]
    maps = tags.reshape(-1, joints, tags.shape[1] * tags.shape[2])
    dimension = len(maps)
    people = []
    for person, shown in zip(cells.tolist(), visible.tolist(), strict=True):
        own = [maps[:, k, cell] for k, cell in enumerate(person) if shown[k]]
        if own:
            people.append(torch.stack(own))
    if not people:
        return 0.0, 0.0
    number, eps = len(people), 1e-6 if norm == 'mmpose' else 0
    means = [own.mean(0) for own in people]
    pull = 0.0
    for own, mean in zip(people, means, strict=True):
        square = float((own - mean).square().sum())
        pull += square / {'paper': 1, 'notes': len(own), 'mmpose': len(own) * dimension}[norm]
    push = 0.0
    for one in means:
        for other in means:
            square = (one - other).square() / (2 * sigma**2)
            push += float(torch.exp(-square).sum() if per_dimension else torch.exp(-square.sum()))
    if norm == 'mmpose':
        pairs = number * (number - 1) + eps
        return pull / (number + eps), push / pairs if number > 1 else 0.0
    return pull / number, push / number**2


@pytest.mark.parametrize('dimension', [1, 3])
@pytest.mark.parametrize('per_dimension', [True, False])
@pytest.mark.parametrize('norm', ['paper', 'notes', 'mmpose'])
def test_loss_is_that_of_the_formulas(
    norm: GroupingNorm, per_dimension: bool, dimension: int
) -> None:
    for seed in range(4):
        tags, cells, visible = batch(seed, dimension)
        pull, push = grouping_loss(
            tags,
            cells,
            visible,
            normalization=norm,
            distance='per_dimension' if per_dimension else 'vector',
            sigma=0.8,
        )
        for image in range(2):
            wanted = slow_loss(tags[image], cells[image], visible[image], norm, per_dimension, 0.8)
            assert float(pull[image]) == pytest.approx(wanted[0], abs=1e-10)
            assert float(push[image]) == pytest.approx(wanted[1], abs=1e-10)


@pytest.mark.parametrize('norm', ['paper', 'notes', 'mmpose'])
def test_gradients_are_those_of_finite_differences(norm: GroupingNorm) -> None:
    tags, cells, visible = batch(7, 2)

    def total(maps: Tensor) -> Tensor:
        pull, push = grouping_loss(maps, cells, visible, normalization=norm)
        return pull.sum() + push.sum()

    assert torch.autograd.gradcheck(total, (tags.requires_grad_(),))


@pytest.mark.parametrize('norm', ['paper', 'notes', 'mmpose'])
def test_an_image_without_people_costs_nothing_and_keeps_the_graph(norm: GroupingNorm) -> None:
    tags, cells, visible = batch(1, 1)
    visible[1] = False
    tags[0, :, 0, 0] = math.inf
    tags.requires_grad_()
    cells[0], cells[1] = 4, 0
    pull, push = grouping_loss(tags, cells, visible, normalization=norm)
    assert float(pull[1]) == float(push[1]) == 0
    (pull.sum() + push.sum()).backward()
    assert tags.grad is not None and tags.grad.isfinite().all() and not tags.grad[1].any()
    none = grouping_loss(tags, cells[:, :0], visible[:, :0], normalization=norm)
    assert not none.pull.any() and none.push.requires_grad


def test_tags_that_tell_people_apart_leave_the_constant_of_the_pair_with_itself() -> None:
    tags = torch.tensor([[[[0.0, 100.0, 200.0]]]])
    cells, visible = torch.tensor([[[0], [1], [2]]]), torch.ones(1, 3, 1, dtype=torch.bool)
    pushes = {'paper': 1 / 3, 'notes': 1 / 3, 'mmpose': 1 / 2}
    for norm, push in pushes.items():
        loss = grouping_loss(tags, cells, visible, normalization=norm)  # type: ignore[arg-type]
        assert float(loss.pull) == 0
        assert float(loss.push) == pytest.approx(push, rel=1e-5)


def test_wrong_arguments_are_named() -> None:
    tags, cells, visible = batch(0, 1)
    with pytest.raises(ValueError, match=r'cells must be from 0 to 29 .* got 30 to 30'):
        grouping_loss(tags, torch.full_like(cells, 30), torch.ones_like(visible))
    with pytest.raises(ValueError, match=r'cells must be integers \(B, N, K\)'):
        grouping_loss(tags, cells.float(), visible)
    with pytest.raises(ValueError, match=r'tags must be \(2, T \* 3, H, W\)'):
        grouping_loss(tags[:, :2], cells, visible)
    with pytest.raises(ValueError, match="normalization must be one of .* got 'mean'"):
        grouping_loss(tags, cells, visible, normalization='mean')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='sigma must be above 0'):
        grouping_loss(tags, cells, visible, sigma=0)
    # Cells of joints that do not count may be anything.
    grouping_loss(tags, torch.full_like(cells, -7), torch.zeros_like(visible))
