"""Margins with running state: means of AdaFace and CurricularFace, annealing of SphereFace."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mmdet_ext.face.heads import MarginHead, build_margin
from tests._helpers.face.margin_heads import PATHS, batch, gradients, loss_of, make_head
from tests._helpers.two_ranks import run_on_two_ranks


def test_adaface_means_match_the_authors_program() -> None:
    """Clamp lengths to 0.001 and 100, divide by N - 1, and move the means before the margins."""
    head = make_head('AdaFace', momentum=0.1)
    mean, deviation = 20.0, 100.0
    for seed in range(4):
        x, labels = batch(seed)
        x[0] *= 1e3
        x[1] *= 0
        loss_of(head, x, labels)
        lengths = x.norm(dim=1).clamp(0.001, 100)
        mean = 0.1 * lengths.mean().item() + 0.9 * mean
        deviation = 0.1 * lengths.std().item() + 0.9 * deviation
        assert head.margin.mean.item() == pytest.approx(mean, rel=1e-5)
        assert head.margin.deviation.item() == pytest.approx(deviation, rel=1e-5)
    # One image has no deviation.
    loss_of(head, *(t[:1] for t in batch()))
    assert head.margin.deviation.item() == pytest.approx(deviation, rel=1e-5)
    assert head.margin.mean.item() != pytest.approx(mean, rel=1e-5)


def test_better_images_get_a_larger_additive_and_a_smaller_angular_margin() -> None:
    margin: Any = build_margin(dict(type='AdaFace', h=1.0), 3)
    margin.mean.fill_(10), margin.deviation.fill_(5)
    norm = torch.tensor([0.0, 5.0, 10.0, 15.0, 90.0])
    found = margin.cosine_margin(torch.full((5,), 0.5), norm, torch.zeros(5, dtype=torch.long))
    t = math.acos(0.5)
    expected = [math.cos(t + 0.4 * k) - 0.4 * (1 - k) for k in (1, 1, 0, -1, -1)]
    assert found.tolist() == pytest.approx(expected, abs=2e-4)


def test_curricularface_moves_its_pace_in_training_alone() -> None:
    for path in PATHS:
        head = make_head('CurricularFace', path=path, momentum=0.1)
        pace = 0.0
        for seed in range(4):
            x, labels = batch(seed)
            own = F.cosine_similarity(x, head.weight[labels]).mean().item()
            pace += 0.1 * (own - pace)
            loss_of(head, x, labels)
            assert head.margin.pace.item() == pytest.approx(pace, abs=1e-6)
        head.eval()
        loss_of(head, *batch(9))
        assert head.margin.pace.item() == pytest.approx(pace, abs=1e-6)


@pytest.mark.parametrize('path', PATHS)
def test_curricularface_keeps_the_pace_of_each_batch_until_its_backward_pass(path: str) -> None:
    """Each gradient uses the pace at which its batch was scored, not the last pace."""
    (x, labels), (other, other_labels) = batch(1), batch(2)
    head = make_head('CurricularFace', path=path, momentum=0.5)
    first, second = loss_of(head, x, labels), loss_of(head, other, other_labels)
    (first + second).backward()
    again = make_head('CurricularFace', path=path, momentum=0.5)
    loss_of(again, x, labels).backward()
    loss_of(again, other, other_labels).backward()
    torch.testing.assert_close(head.weight.grad, again.weight.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', ['AdaFace', 'CurricularFace'])
@pytest.mark.parametrize('bad', [math.nan, math.inf])
@pytest.mark.parametrize('path', PATHS)
def test_overflow_does_not_enter_the_means(name: str, bad: float, path: str) -> None:
    """In mixed precision a scaler skips the step after an overflow, but buffers were changed."""
    head = make_head(name, path=path)
    x, labels = batch()
    x[3, 2] = bad
    loss_of(head, x, labels)
    assert all(value.isfinite() for value in head.margin.buffers())
    assert loss_of(head, *batch(1)).isfinite()


@pytest.mark.parametrize('name', ['AdaFace', 'CurricularFace'])
def test_half_precision_means_move(name: str) -> None:
    head = make_head(name, momentum=0.5).half()
    before = [value.item() for value in head.margin.buffers()]
    value, *grads = gradients(head, batch()[0].half(), batch()[1])
    assert value.isfinite() and all(g.isfinite().all() for g in grads)
    after = [value.item() for value in head.margin.buffers()]
    assert all(new != old for new, old in zip(after, before, strict=True))


def test_annealing_falls_to_lambda_min_and_stops_in_evaluation() -> None:
    head = make_head('SphereFace', lambda_max=1000, lambda_min=5, gamma=0.12, power=1)
    margin = head.margin
    assert margin.annealing() == 1000
    for step in range(1, 4):
        loss_of(head, *batch())
        assert margin.annealing().item() == pytest.approx(1000 / (1 + 0.12 * step))
    head.eval()
    loss_of(head, *batch())
    assert margin.step == 3
    margin.step.fill_(10_000)
    assert margin.annealing() == 5
    # With m = 4 and lambda = 5 the score is 5/6 of the cosine and 1/6 of psi.
    t = torch.tensor([0.3, 1.0, 2.0, 3.0])
    found = margin.cosine_margin(torch.cos(t), torch.ones(4), torch.zeros(4, dtype=torch.long))
    k = torch.floor(4 * t.double() / math.pi)
    psi = (-1) ** k * torch.cos(4 * t.double()) - 2 * k
    expected = (5 * torch.cos(t.double()) + psi) / 6
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('name', 'buffers'),
    [
        ('AdaFace', {'margin.mean', 'margin.deviation'}),
        ('CurricularFace', {'margin.pace'}),
        ('SphereFace', {'margin.step'}),
        ('LSoftmax', {'margin.step'}),
    ],
)
def test_checkpoints_keep_the_running_state(name: str, buffers: set[str], tmp_path: Path) -> None:
    head = make_head(name)
    for seed in range(3):
        loss_of(head, *batch(seed))
    torch.save(head.state_dict(), tmp_path / 'head.pth')
    other = make_head(name, seed=7)
    other.load_state_dict(torch.load(tmp_path / 'head.pth', weights_only=True))
    assert set(head.state_dict()) == {'weight', *buffers}
    for one, two in zip(gradients(head, *batch(9)), gradients(other, *batch(9)), strict=True):
        assert one.equal(two)
    assert all(head.state_dict()[key].equal(other.state_dict()[key]) for key in buffers)


WORKER = """
import sys
import torch
import torch.distributed as dist
from types import SimpleNamespace
from mmdet_ext.face.heads import MarginHead

class Sample(SimpleNamespace):
    __contains__ = SimpleNamespace.__dict__.get('__contains__') or (lambda self, name: hasattr(self, name))

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
kept = {}
for name in ('AdaFace', 'CurricularFace'):
    torch.manual_seed(0)
    head = MarginHead(13, 6, dict(type=name, momentum=0.1))
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        x = 3 * torch.randn(10, 6, generator=generator)
        y = torch.randint(13, (10,), generator=generator)
        # In the last step one rank has no samples.
        part = slice(5 * rank, 5 * rank + 5) if step < 3 else slice(0, 10 if rank == 0 else 0)
        losses = head.loss((x[part],), [Sample(gt_label=v.view(1)) for v in y[part]])
        kept.setdefault(name, []).append([b.item() for b in head.margin.buffers()])
torch.save(kept, f'{folder}/{rank}.pth')
dist.destroy_process_group()
"""  # noqa: E501


@pytest.mark.subprocess
def test_running_means_are_equal_on_two_processes(tmp_path: Path) -> None:
    run_on_two_ranks(WORKER, tmp_path)
    first, second = (torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(2))
    assert first == second
    # The mean of the means of two halves of equal size is the mean of the batch.
    torch.manual_seed(0)
    head = MarginHead(13, 6, dict(type='CurricularFace'))
    mean, deviation, pace = 20.0, 100.0, 0.0
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        x = 3 * torch.randn(10, 6, generator=generator)
        labels = torch.randint(13, (10,), generator=generator)
        lengths = x.norm(dim=1)
        mean += 0.1 * (lengths.mean().item() - mean)
        deviation += 0.1 * (lengths.view(2, 5).std(1).mean().item() - deviation)
        pace += 0.1 * (F.cosine_similarity(x, head.weight[labels]).mean().item() - pace)
        assert first['AdaFace'][step] == pytest.approx([mean, deviation], rel=1e-5)
        assert first['CurricularFace'][step] == pytest.approx([pace], abs=1e-6)
    assert first['AdaFace'][3][0] != first['AdaFace'][2][0]
