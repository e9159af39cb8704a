"""Contract of the losses: behaviours that every registered loss has."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases import LOSSES, cast
from mmdet_ext.functional.numerics.reduction import AVG_FACTOR_EPS
from tests._helpers.tolerances import TOLERANCES


def ids(case: Case) -> str:
    return case.name + ''.join(f'-{v}' for v in case.options.values() if not isinstance(v, dict))


pytestmark = pytest.mark.parametrize('case', LOSSES, ids=ids)
PRECISIONS = pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str
)


def build(case: Case, **options: object) -> nn.Module:
    return MODELS.build({'type': f'mmdet_ext.{case.name}', **case.options, **options})


def inputs(case: Case, count: int = 7, seed: int = 0) -> tuple[Tensor, Any]:
    pred, target = case.inputs(torch.Generator().manual_seed(seed), count)
    return pred.requires_grad_(), target


def beside(weight: Tensor, each: Tensor) -> Tensor:
    """Reshape one weight per sample to the dimensions of the elements."""
    return weight.reshape(-1, *(1,) * (each.dim() - 1))


def test_reductions_agree_with_the_elements(case: Case) -> None:
    if case.together:
        pytest.skip(f'the elements of {case.name} depend on each other; see its own tests')
    loss = build(case, loss_weight=2.0)
    pred, target = inputs(case)
    each = loss(pred, target, reduction_override='none')
    assert len(each) == 7 and (each >= 0).all() and (each.reshape(7, -1).sum(-1) > 0).sum() >= 5
    weight = torch.linspace(0, 1, 7)
    weighted = each * beside(weight, each)
    tolerance = TOLERANCES[torch.float32]
    for value, expected in (
        (loss(pred, target), each.mean()),
        (loss(pred, target, reduction_override='sum'), each.sum()),
        (loss(pred, target, weight), weighted.sum() / each.numel()),
        (loss(pred, target, weight, avg_factor=3), weighted.sum() / (3 + AVG_FACTOR_EPS)),
        (loss(pred, target, weight, reduction_override='none'), weighted),
    ):
        torch.testing.assert_close(value, expected, **tolerance)
    half_weight = build(case, loss_weight=1.0)(pred, target)
    torch.testing.assert_close(half_weight * 2, loss(pred, target), **tolerance)


def test_weights_per_coordinate_count_by_their_mean(case: Case) -> None:
    if case.family != 'overlap':
        pytest.skip('heads give such weights only to losses (N,) of boxes (N, 4)')
    loss = build(case)
    pred, target = inputs(case)
    weight = torch.rand(7, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(pred, target, weight), loss(pred, target, weight.mean(-1)))


def test_no_elements_give_a_zero_with_a_graph(case: Case) -> None:
    pred, target = inputs(case, count=0)
    for avg_factor in (None, 0.0, 5.0):
        value = build(case)(pred, target, avg_factor=avg_factor)
        assert value.item() == 0 and value.requires_grad
        value.backward()


def test_zero_weights_give_a_zero_with_a_graph(case: Case) -> None:
    pred, target = inputs(case)
    value = build(case)(pred, target, torch.zeros(7), avg_factor=0.0)
    assert value.item() == 0
    value.backward()
    assert torch.equal(pred.grad, torch.zeros_like(pred))


def test_rows_of_weight_0_change_nothing(case: Case) -> None:
    """Pass all anchors, as heads do: ignored anchors have the weight 0."""
    generator = torch.Generator().manual_seed(4)
    pred, target = case.inputs(generator, 7)
    more, other = case.inputs(generator, 50)

    def joined(one: Any, another: Any) -> Any:
        if isinstance(one, tuple):
            return tuple(joined(*parts) for parts in zip(one, another, strict=True))
        return torch.cat([one, another])

    weight = torch.linspace(0.2, 1, 7)
    alone, among = pred.clone().requires_grad_(), joined(pred, more).requires_grad_()
    expected = build(case)(alone, target, weight, avg_factor=3)
    value = build(case)(among, joined(target, other), joined(weight, torch.zeros(50)), avg_factor=3)
    expected.backward()
    value.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(among.grad[:7], alone.grad)
    assert not among.grad[7:].any()


def test_sum_with_avg_factor_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match='avg_factor can not be used'):
        build(case)(*inputs(case), avg_factor=2.0, reduction_override='sum')


def test_unknown_reduction_keyword_option_and_weight_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="got 'median'"):
        build(case, reduction='median')
    for error in (ValueError, AssertionError):  # mmdet raises the latter
        with pytest.raises(error, match="got 'median'"):
            build(case)(*inputs(case), reduction_override='median')
    # The error comes before any computation, as in mmdet: the target may be of any kind.
    with pytest.raises(ValueError, match="got 'median'"):
        build(case)(inputs(case)[0], None, reduction_override='median')
    with pytest.raises(TypeError, match='lable'):
        build(case)(*inputs(case), lable=1)
    with pytest.raises(TypeError, match="no option 'los_weight'; did you mean 'loss_weight'"):
        build(case, los_weight=1.0)
    with pytest.raises(ValueError, match=r'weight of shape \(6,\) does not fit'):
        build(case)(*inputs(case), torch.ones(6))


def test_the_loss_at_the_optimum_is_exactly_0(case: Case) -> None:
    if not case.zero_at_target:
        pytest.skip(f'{case.name} is not 0 at the target')
    for make in (case.inputs, case.hard_inputs):
        _, target = make(torch.Generator().manual_seed(0), 200)
        pred = target.clone().requires_grad_()
        each = build(case)(pred, target, reduction_override='none')
        assert torch.equal(each, torch.zeros_like(each))
        each.sum().backward()
        assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gives_the_float64_value_of_its_inputs(
    case: Case, dtype: torch.dtype
) -> None:
    pred, target = inputs(case, count=500)
    pred, target = pred.detach().to(dtype), cast(target, dtype)
    value = build(case)(pred, target, reduction_override='none')
    assert value.dtype == torch.float32
    wide = pred.double(), cast(target, torch.float64)
    expected = build(case)(*wide, reduction_override='none')
    assert expected.dtype == torch.float64
    torch.testing.assert_close(value.double(), expected, **TOLERANCES[dtype])
    mixed = build(case)(pred, cast(target, torch.float32), reduction_override='none')
    torch.testing.assert_close(mixed.double(), expected, **TOLERANCES[dtype])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_of_the_hard_cases_is_right_within_rounding(
    case: Case, dtype: torch.dtype
) -> None:
    if case.options.get('activated'):
        pytest.skip(f'{case.name}: the logarithm of a probability has a larger floor in float16')
    pred, target = case.hard_inputs(torch.Generator().manual_seed(5), 2000)
    pred, target = pred.to(dtype), cast(target, dtype)
    value = build(case)(pred, target, reduction_override='none').double()
    wide = pred.double(), cast(target, torch.float64)
    expected = build(case)(*wide, reduction_override='none')
    torch.testing.assert_close(value, expected, rtol=torch.finfo(torch.float16).eps, atol=1e-5)


@PRECISIONS
@pytest.mark.parametrize('mixed', [False, True], ids=['', 'mixed'])
def test_the_hard_cases_give_finite_numbers(case: Case, dtype: torch.dtype, mixed: bool) -> None:
    pred, target = case.hard_inputs(torch.Generator().manual_seed(3), 20_000)
    leaf = pred.to(dtype).requires_grad_()
    each = build(case)(leaf, target if mixed else cast(target, dtype), reduction_override='none')
    each.sum().backward()
    assert torch.isfinite(each).all() and (each >= 0).all()
    assert torch.isfinite(leaf.grad).all()


def test_gradient_by_finite_differences(case: Case) -> None:
    if case.detaches:
        pytest.skip(f'part of the formula of {case.name} is constant; see its own tests')
    pred, target = inputs(case)
    loss, wide = build(case), cast(target, torch.float64)
    assert torch.autograd.gradcheck(
        lambda p: loss(p, wide, reduction_override='none'),
        pred.detach().double().requires_grad_(),
    )


@pytest.mark.parametrize('hard', [False, True], ids=['usual', 'edges'])
def test_branches_without_a_look_at_the_values_give_the_same(
    case: Case, hard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU looks at the values to save work; a compiler does not, nor does a GPU."""
    make = case.hard_inputs if hard else case.inputs
    pred, target = make(torch.Generator().manual_seed(0), 16)
    pred.requires_grad_()
    loss, found = build(case, reduction='none'), []
    for compiles in (False, True):
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda compiles=compiles: compiles)
        each = loss(pred, target)
        found.append((each, *torch.autograd.grad(each.sum(), pred)))
    torch.testing.assert_close(*found, equal_nan=False)


@pytest.mark.slow
def test_compiles_in_one_graph(case: Case) -> None:
    torch.compiler.reset()  # classes of one family share code, which may be compiled 8 times
    pred, target = inputs(case)
    loss = build(case)
    compiled = torch.compile(loss.elementwise, fullgraph=True, backend='aot_eager')
    gradients = []
    for call in (loss.elementwise, compiled):
        each = call(pred, target)
        gradients.append((each, *torch.autograd.grad(each.sum(), pred)))
    torch.testing.assert_close(*gradients)


def test_stays_on_the_device_of_its_inputs(case: Case) -> None:
    """Run on fake CUDA tensors, without a GPU."""
    pred, target = inputs(case)
    loss = build(case)

    def to_cuda(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(to_cuda(p) for p in part)
        return torch.empty(part.shape, dtype=part.dtype, device='cuda').fill_(0)

    with FakeTensorMode(allow_non_fake_inputs=True):
        leaf = to_cuda(pred.detach()).requires_grad_()
        assert loss(leaf, to_cuda(target)).device.type == 'cuda'


def test_inputs_and_state_do_not_change(case: Case) -> None:
    loss = build(case)
    pred, target = inputs(case)
    before = pred.detach().clone(), copy.deepcopy(target)
    first, second = loss(pred, target), loss(pred, target)
    first.backward()
    torch.testing.assert_close((pred.detach(), target), before, rtol=0, atol=0)
    assert torch.equal(first, second) and not loss.state_dict()
