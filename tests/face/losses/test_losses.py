"""Metric-learning losses: beside mmdet's, logs, moving centres, two processes, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from torch import Tensor

from mmdet_ext.face.losses import CenterLoss, ContrastiveLoss, FeatureLoss, TripletLoss
from mmdet_ext.functional.embedding.distances import class_mean_center_loss
from mmdet_ext.registry import MODELS
from tests._helpers.two_ranks import run_on_two_ranks

OPTIONS: dict[str, dict[str, Any]] = {
    'CenterLoss': {'num_classes': 4, 'in_channels': 8},
    'ContrastiveLoss': {},
    'TripletLoss': {},
}
each_name = pytest.mark.parametrize('name', OPTIONS)


def build(name: str, **options: Any) -> Any:
    return MODELS.build({'type': f'mmdet_ext.{name}', **OPTIONS[name], **options})


def batch(seed: int, samples: int = 12, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return features (N, 8) of four identities in turn, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(samples, 8, generator=generator), torch.arange(samples) % 4


@pytest.mark.parametrize('scale', [0.05, 1.0, 30.0])
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'margin': 1.5},
        {'margin': 0},
        {'margin': 0.5, 'loss_weight': 3.0, 'hard_mining': True},
    ],
    ids=str,
)
def test_triplet_loss_has_the_value_and_gradient_of_mmdet(
    scale: float, options: dict[str, Any]
) -> None:
    from mmdet.registry import MODELS as STOCK

    stock = STOCK.build({'type': 'TripletLoss', **options})
    ours = build('TripletLoss', **options)
    for seed in range(5):
        x, y = batch(seed, scale=scale)
        leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        value, expected = ours(inputs=leaf, targets=y), stock(inputs=other, targets=y)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        value.backward(), expected.backward()
        torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-4, atol=1e-5)
        assert scale > 1 or options.get('margin') == 0 or value > 0


def test_positions_of_mmdets_options_are_kept() -> None:
    loss = TripletLoss(0.7, 2.0, True)
    assert (loss.margin, loss.loss_weight, loss.hard_mining) == (0.7, 2.0, True)
    assert 'mmdet' in (TripletLoss.__doc__ or '')


def test_one_identity_costs_nothing_where_mmdet_fails() -> None:
    from mmdet.registry import MODELS as STOCK

    x, _ = batch(0)
    x.requires_grad_()
    one = torch.zeros(12, dtype=torch.long)
    with pytest.raises((RuntimeError, IndexError)):
        STOCK.build({'type': 'TripletLoss'})(x, one)
    value = build('TripletLoss')(x, one)
    value.backward()
    assert value.item() == 0 and x.grad is not None and not x.grad.any()


def test_anchor_without_a_positive_does_not_count_as_in_mmdet() -> None:
    from mmdet.registry import MODELS as STOCK

    x, y = torch.tensor([[0.0], [0.0], [0.1]]), torch.tensor([0, 0, 1])
    assert build('TripletLoss')(x, y).item() == pytest.approx(0.2)
    assert STOCK.build({'type': 'TripletLoss'})(x, y).item() == pytest.approx(0.2, abs=1e-5)
    y = torch.tensor([0, 1, 2])
    assert build('TripletLoss')(x, y).item() == 0
    assert STOCK.build({'type': 'TripletLoss'})(x, y).item() > 0.2


def test_head_of_mmdet_accepts_the_triplet_loss() -> None:
    import mmdet.models  # noqa: F401
    from mmdet.registry import MODELS as HOST
    from mmdet.structures import ReIDDataSample

    config: dict[str, Any] = {
        'type': 'LinearReIDHead',
        'num_fcs': 1,
        'in_channels': 8,
        'fc_channels': 8,
        'out_channels': 4,
        'num_classes': 4,
        'norm_cfg': None,
        'act_cfg': {'type': 'ReLU'},
        'loss_cls': None,
    }
    x, y = batch(1)
    samples = [ReIDDataSample().set_gt_label(label) for label in y]
    values = []
    for name in ('TripletLoss', 'mmdet_ext.TripletLoss'):
        torch.manual_seed(0)
        head = HOST.build({**config, 'loss_triplet': {'type': name, 'margin': 0.3}})
        losses = head.loss((x,), samples)
        total, _ = BaseModel.parse_losses(None, losses)  # type: ignore[arg-type]
        values.append(total)
    torch.testing.assert_close(values[1], values[0], rtol=1e-5, atol=1e-6)
    assert values[0] > 0


@pytest.mark.parametrize('name', ['CenterLoss', 'ContrastiveLoss'])
def test_new_losses_have_names_that_the_hosts_lack(name: str) -> None:
    import mmdet.models  # noqa: F401
    import mmpretrain.models  # noqa: F401
    from mmdet.registry import MODELS as DET
    from mmpretrain.registry import MODELS as PRETRAIN

    assert name not in DET.module_dict and name not in PRETRAIN.module_dict
    assert DET.get(f'mmdet_ext.{name}') is PRETRAIN.get(f'mmdet_ext.{name}') is not None


@each_name
def test_weight_scales_only_the_loss(name: str) -> None:
    x, y = batch(2)
    once, thrice = build(name).losses(x, y), build(name, loss_weight=3.0).losses(x, y)
    assert once['loss'] > 0
    for key, value in once.items():
        torch.testing.assert_close(thrice[key], value * (3.0 if key == 'loss' else 1.0))
    assert build(name, loss_weight=0).losses(x, y)['loss'] == 0


@each_name
def test_only_the_loss_enters_the_total(name: str) -> None:
    x, y = batch(3)
    losses = build(name).losses(x.requires_grad_(), y)
    total, logged = BaseModel.parse_losses(None, {f'aux_{k}': v for k, v in losses.items()})
    assert total.equal(losses['loss']) and total.requires_grad
    assert set(logged) == {'loss', *(f'aux_{key}' for key in losses)}
    assert not any(value.requires_grad for key, value in losses.items() if key != 'loss')


def test_logged_counts_match_values_by_hand() -> None:
    x = torch.tensor([[0.0, 0], [3.0, 4.0], [3.0, 4.2], [30.0, 0.0]])
    y = torch.tensor([0, 0, 1, 1])
    triplet = build('TripletLoss', margin=1.0, mining='batch_all', log_counts=True)(x, y)
    # Distances to the positive, and to the negatives: anchor 0: 5, and 5.16 and 30. Anchor 1: 5,
    # and 0.2 and 27.3. Anchor 2: 27.3, and 5.16 and 0.2. Anchor 3: 27.3, and 30 and 27.29.
    assert {key: triplet[key].item() for key in ('easy', 'semi_hard', 'hard')} == {
        'easy': 3,
        'semi_hard': 1,
        'hard': 4,
    }
    contrastive = ContrastiveLoss()(x, y)
    assert isinstance(contrastive, dict)
    del contrastive['loss']
    assert {key: value.item() for key, value in contrastive.items()} == {
        'positive_pairs': 2,
        'negative_pairs': 4,
        'close_negative_pairs': 1,
    }
    center = CenterLoss(2, 2)(x, y)
    assert isinstance(center, dict)
    assert center['distance'].item() == pytest.approx((0 + 5 + 26.64**0.5 + 30) / 4)
    assert center['loss'].item() == pytest.approx((0 + 25 + 26.64 + 900) / 8)


@each_name
def test_options_are_printed(name: str) -> None:
    assert 'loss_weight=2.5' in repr(build(name, loss_weight=2.5))


@each_name
def test_empty_batches_keep_the_graph(name: str) -> None:
    x = torch.zeros(0, 8, requires_grad=True)
    losses = build(name).losses(x, torch.zeros(0, dtype=torch.long))
    losses['loss'].backward()
    assert {value.item() for value in losses.values()} == {0.0}


@each_name
def test_descent_on_free_points_separates_identities(name: str) -> None:
    """The centre loss starts with centres that are apart, because it does not separate them."""
    x, y = batch(4)
    x.requires_grad_()
    loss = build(name, **({'alpha': 0.0} if name == 'CenterLoss' else {'margin': 1.0}))
    if name == 'CenterLoss':
        loss.centers[:] = torch.eye(4, 8)
    optimizer = torch.optim.SGD([x], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        loss.losses(x, y)['loss'].backward()
        optimizer.step()
    table = torch.cdist(x.detach(), x.detach())
    same = y[:, None] == y
    assert table[same].max() < table[~same].min()


def test_centers_move_after_the_loss_and_only_in_training() -> None:
    loss = CenterLoss(5, 8, alpha=0.5)
    x, y = batch(5)
    centers = torch.zeros(5, 8)
    for step in range(3):
        x = x + step
        before = loss.centers.clone()
        expected = 0.5 * (x - centers[y]).square().sum() / len(x)
        leaf = x.clone().requires_grad_()
        losses = loss.losses(leaf, y)
        losses['loss'].backward()  # works, because the gradient does not need the moved centres
        torch.testing.assert_close(losses['loss'], expected)
        torch.testing.assert_close(leaf.grad, (x - centers[y]) / len(x))
        for j in range(4):
            mine = x[y == j]
            centers[j] -= 0.5 * (centers[j] - mine).sum(0) / (1 + len(mine))
        torch.testing.assert_close(loss.centers, centers)
        assert not loss.centers.equal(before)
    loss.eval()
    loss(x, y)
    torch.testing.assert_close(loss.centers, centers)
    assert not list(loss.parameters()) and set(loss.state_dict()) == {'centers'}


def test_centers_converge_to_the_means_of_identities() -> None:
    loss = CenterLoss(4, 8)
    x, y = batch(6)
    for _ in range(60):
        loss(x, y)
    means = torch.stack([x[y == j].mean(0) for j in range(4)])
    torch.testing.assert_close(loss.centers, means)


def test_overflow_moves_no_center() -> None:
    loss = CenterLoss(4, 8)
    x, y = batch(7)
    x[0] = torch.inf  # identity 0
    loss(x, y)
    assert not loss.centers[0].any() and loss.centers[1:].ne(0).all()


def test_half_precision_moves_centers_in_float32() -> None:
    loss, other = CenterLoss(4, 8), CenterLoss(4, 8)
    x, y = batch(8)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss.losses(x.half(), y)['loss']
    assert loss.centers.dtype == value.dtype == torch.float32
    assert value.equal(other.losses(x.half().float(), y)['loss'])
    assert loss.centers.equal(other.centers)


def test_learnable_form_is_the_sum_over_identities_of_the_mean_distance() -> None:
    loss = CenterLoss(4, 8, form='learnable', loss_weight=2.0)
    x, y = batch(9, samples=11)
    before = loss.centers.detach().clone()
    value = loss.losses(x, y)['loss']
    expected = sum((x[y == j] - before[j]).norm(dim=1).mean() for j in range(4))
    torch.testing.assert_close(value, 2 * expected)
    value.backward()
    assert loss.centers.equal(before) and loss.centers.grad is not None
    # The gradient is the mean of one unit vector per sample.
    unit = torch.nn.functional.normalize(before[0] - x[y == 0], dim=1).mean(0)
    torch.testing.assert_close(loss.centers.grad[0], 2 * unit)
    assert [name for name, _ in loss.named_parameters()] == ['centers']
    loss = CenterLoss(4, 8, form='learnable')
    with torch.no_grad():
        loss.centers[:] = x[:4]
    value = loss.losses(x[:4], y[:4])['loss']
    value.backward()
    assert value.item() == 0
    assert loss.centers.grad is not None and not loss.centers.grad.any()
    assert class_mean_center_loss(x[:4], y[:4], loss.centers).tolist() == [0.0] * 4


WORKER = """
import sys
import torch
import torch.distributed as dist
from mmdet_ext.face.losses import CenterLoss

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
loss = CenterLoss(50, 8)
for step in range(4):
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(9, 8, generator=generator), torch.randint(20, (9,), generator=generator)
    # Unequal parts, one of them empty in the last step.
    part = slice(0, 6 if step < 3 else 9) if rank == 0 else slice(6 if step < 3 else 9, 9)
    loss(x[part], y[part])
torch.save(loss.state_dict(), f'{folder}/{rank}.pth')
dist.destroy_process_group()
"""


@pytest.mark.subprocess
def test_two_processes_have_the_centers_of_one(tmp_path: Path) -> None:
    run_on_two_ranks(WORKER, tmp_path)
    first, second = (
        torch.load(tmp_path / f'{rank}.pth', weights_only=True)['centers'] for rank in range(2)
    )
    whole = CenterLoss(50, 8)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(9, 8, generator=generator), torch.randint(20, (9,), generator=generator)
        whole(x, y)
    assert first.equal(second)
    torch.testing.assert_close(first, whole.centers)
    assert whole.centers.any(1).sum() > 10


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('CenterLoss', {'alpha': 1.5}, 'alpha must be from 0 to 1, got 1.5'),
        ('CenterLoss', {'form': 'notes'}, "form must be one of .*'learnable'.*got 'notes'"),
        ('CenterLoss', {'num_classes': 0}, 'num_classes must be above 0'),
        ('CenterLoss', {'in_channels': -1}, 'in_channels must be above 0'),
        ('ContrastiveLoss', {'margin': 0}, 'margin must be above 0'),
        ('ContrastiveLoss', {'distance': 'l1'}, "distance must be one of .*got 'l1'"),
        ('TripletLoss', {'margin': -1}, 'margin must be above 0 and finite, got -1: 0 will do'),
        ('TripletLoss', {'mining': 'all'}, "mining must be one of .*got 'all'"),
        ('TripletLoss', {'distance': 'l1'}, 'distance must be one of'),
        ('TripletLoss', {'hard_mining': False}, "contradicts mining='batch_hard'.*'batch_all'"),
        *((name, {'loss_weight': -1.0}, 'loss_weight must be above 0') for name in OPTIONS),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **options)
    with pytest.raises(TypeError, match="no option 'loss_wieght'; did you mean 'loss_weight'"):
        build(name, loss_wieght=1.0)


def test_labels_and_features_that_do_not_fit_are_named() -> None:
    x, y = batch(10)
    for form in ('paper', 'learnable'):
        loss = CenterLoss(3, 8, form=form)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r'0 to 2 for num_classes=3, got 3 \(3 of 12'):
            loss(x, y)
        with pytest.raises(ValueError, match='in_channels'):
            loss(x[:, :5], y.clamp(max=2))
    assert loss.centers.shape == (3, 8)


def test_hard_mining_can_be_off_with_another_mining() -> None:
    x, y = batch(11)
    loss = TripletLoss(hard_mining=False, mining='batch_all')
    assert loss(x, y).equal(TripletLoss(mining='batch_all')(x, y))  # type: ignore[union-attr]


def test_loss_without_a_definition_is_named() -> None:
    with pytest.raises(NotImplementedError, match='FeatureLoss does not define losses'):
        FeatureLoss()(*batch(12))
