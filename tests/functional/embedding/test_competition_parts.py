"""Class competition with parts of the classes: the parts together give that with all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.embedding.chunked_competition import LOWEST
from mmdet_ext.functional.embedding.competition import Competition, class_competition
from tests._helpers.face.competition import Bent, batch, each_option

COMPUTATIONS = ('plain', 'exact', 'kept')
each_computation = pytest.mark.parametrize('path', COMPUTATIONS)
CUTS = [(0, 11), (0, 4, 11), (0, 1, 5, 5, 11)]


def of_parts(
    x: Tensor, weight: Tensor, labels: Tensor, cut: tuple[int, ...], **options: Any
) -> Competition:
    """Return the competition with all classes from those with consecutive parts of them."""
    bias, centers = options.pop('class_bias', None), options.get('num_subcenters', 1)
    found = []
    for first, stop in zip(cut, cut[1:], strict=False):
        inside = (labels >= first) & (labels < stop)
        found.append(
            class_competition(
                x,
                weight[first * centers : stop * centers],
                torch.where(inside, labels - first, -1),
                class_bias=None if bias is None else bias[first:stop],
                elsewhere=True,
                **options,
            )
        )
    target, norm, others = (torch.stack(each) for each in zip(*found, strict=True))
    sigmoid = options.get('kind') == 'sigmoid'
    return Competition(
        target.sum(0), norm.sum(0), others.sum(0) if sigmoid else others.logsumexp(0)
    )


@each_option
@each_computation
@pytest.mark.parametrize('cut', CUTS, ids=str)
@pytest.mark.parametrize('centers', [1, 2])
def test_parts_give_values_and_gradients_of_the_whole(
    options: dict[str, Any], path: str, cut: tuple[int, ...], centers: int
) -> None:
    rule = options.get('others')
    x, weight, labels = (t.double() if t.is_floating_point() else t for t in batch(centers=centers))
    bias = torch.linspace(-1, 1, 11, dtype=torch.float64)
    leaves = [each.clone().requires_grad_() for each in (x, weight, bias)]
    options = dict(options, path=path, num_subcenters=centers, chunk=3)
    whole = class_competition(leaves[0], leaves[1], labels, class_bias=leaves[2], **options)
    if rule is not None:
        # Parts see the own similarities of all parts.
        options['others'] = lambda own: rule(whole.target.detach())
    parts = of_parts(leaves[0], leaves[1], labels, cut, class_bias=leaves[2], **options)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    factors = torch.randn(3, len(x), generator=torch.Generator().manual_seed(5)).double()
    found, expected = (
        torch.autograd.grad(
            sum((f * v).sum() for f, v in zip(factors, value, strict=True)),  # type: ignore[arg-type]
            leaves,
            retain_graph=True,
        )
        for value in (parts, whole)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@each_computation
@pytest.mark.parametrize('kind', ['softmax', 'sigmoid'])
@pytest.mark.parametrize('normalize', [True, False])
def test_a_part_without_classes_has_no_weight_and_no_gradient(
    path: str, kind: str, normalize: bool
) -> None:
    x = torch.randn(4, 6, requires_grad=True)
    weight, bias = torch.empty(0, 6, requires_grad=True), torch.empty(0, requires_grad=True)
    seen: list[Tensor] = []

    def rule(own: Tensor) -> Bent:
        seen.append(own)
        return Bent(own)

    found = class_competition(
        x,
        weight,
        torch.full((4,), -1),
        normalize_weight=normalize,
        class_bias=bias,
        kind=kind,  # type: ignore[arg-type]
        others=rule,
        path=path,  # type: ignore[arg-type]
        elsewhere=True,
    )
    assert torch.equal(found.target, torch.zeros(4)) and len(seen) == 1
    assert torch.equal(found.center_norm, torch.zeros(4))
    assert torch.equal(found.others, torch.full((4,), LOWEST if kind == 'softmax' else 0.0))
    grads = torch.autograd.grad(sum(each.sum() for each in found), [x, weight, bias])  # type: ignore[arg-type]
    assert not grads[0].any() and grads[1].shape == (0, 6) and grads[2].shape == (0,)


def test_labels_elsewhere_are_refused_without_the_option() -> None:
    x, weight = torch.randn(2, 6), torch.randn(3, 6)
    with pytest.raises(ValueError, match=r'labels must be from 0 to 2 .* from -1 to 1'):
        class_competition(x, weight, torch.tensor([-1, 1]))
    with pytest.raises(ValueError, match=r'labels must be from -1 to 2 .* from -2 to 1'):
        class_competition(x, weight, torch.tensor([-2, 1]), elsewhere=True)
