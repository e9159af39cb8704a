"""A head with split classes in one process: the values, the state and the draws of `MarginHead`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.face.heads import MarginHead, ShardedMarginHead
from mmdet_ext.face.sharding.collectives import ProcessEndedError, explained
from mmdet_ext.face.sharding.shards import ClassShard
from mmdet_ext.registry import MODELS
from tests._helpers.face.margin_heads import (
    ARC,
    PATHS,
    assert_near,
    batch,
    build_head,
    gradients,
    loss_of,
    samples,
)

SHARDED = dict(type='mmdet_ext.ShardedMarginHead', num_classes=7, in_channels=8)


def sharded_head(margin: Any = ARC, **options: Any) -> Any:
    torch.manual_seed(0)
    return MODELS.build({**SHARDED, 'margin': margin, **options})


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('case', cases_of('margin'), ids=repr)
def test_loss_and_gradients_of_one_process_are_those_of_the_whole_head(
    case: Any, path: str
) -> None:
    margin = dict(type=case.name, **case.options)
    whole = build_head(margin, path=path, num_subcenters=2, scale=9.0)
    nn.init.normal_(whole.weight, std=0.4)
    head = sharded_head(margin, path=path, num_subcenters=2, scale=9.0)
    head.load_state_dict(whole.state_dict())
    x, labels = torch.randn(12, 8), torch.arange(12) % 7
    assert_near(gradients(head, x, labels), gradients(whole, x, labels), 1e-6)


@pytest.mark.parametrize('rate', [1.0, 0.5])
def test_states_are_those_of_the_whole_head_and_load_both_ways(rate: float) -> None:
    whole, head = build_head(sample_rate=rate), sharded_head(sample_rate=rate)
    assert whole.state_dict().keys() == head.state_dict().keys()
    for giver, taker in ((whole, sharded_head()), (head, build_head(sample_rate=0.3))):
        taker.load_state_dict(giver.state_dict())
        assert torch.equal(taker.weight, giver.weight)


def test_one_process_holds_all_classes() -> None:
    head = sharded_head(num_subcenters=3)
    assert head.shard == ClassShard(0, 7, 7) and head.rows_per_class == 3
    assert list(head.sharded_state()) == list(head.sharded_parameters()) == ['weight']
    assert torch.equal(head.sharded_state()['weight'], head.weight)
    drawn = sharded_head(sample_rate=0.5)
    assert drawn.sharded_parameters() == {'weight_drawn': drawn.weight_drawn}
    alone = sharded_head(None, aux_losses=dict(type='TripletLoss'))
    assert alone.sharded_state() == alone.sharded_parameters() == {}


@pytest.mark.parametrize('processes', [2, 3, 5])
@pytest.mark.parametrize('classes', [3, 1024, 2500])
def test_initial_centres_do_not_depend_on_the_processes(
    processes: int, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sharded_head(num_classes=classes, num_subcenters=2).weight
    module = 'mmdet_ext.face.heads.sharded'
    monkeypatch.setattr(f'{module}.get_world_size', lambda: processes)
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(f'{module}.get_rank', lambda rank=rank: rank)
        parts.append(sharded_head(num_classes=classes, num_subcenters=2).weight)
    assert torch.equal(torch.cat(parts), whole)
    assert abs(float(whole.detach().std()) / 0.01 - 1) < 0.3 and len(whole.unique(dim=0)) > classes


def test_initial_centres_follow_the_seed_and_leave_random_numbers_alone() -> None:
    one = sharded_head().weight
    after = torch.rand(())
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(()))
    torch.manual_seed(1)
    assert not torch.equal(one, MODELS.build({**SHARDED, 'margin': ARC}).weight)


def test_a_sampled_step_moves_the_drawn_centres_alone() -> None:
    head = sharded_head(sample_rate=0.3, num_classes=400)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    x, labels = torch.randn(6, 8), torch.tensor([5, 5, 399, 0, 17, 5])
    moved = []
    for _ in range(3):
        before = head.weight.clone()
        loss_of(head, x, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        moved.append((head.weight != before).any(1).nonzero().squeeze(1))
        assert set(labels.tolist()) <= set(moved[-1].tolist())
        assert 70 < len(moved[-1]) < 180
    assert not torch.equal(moved[0], moved[1])
    assert head.state_dict()['weight_draws'] == 3


def test_other_sizes_of_the_group_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    head = sharded_head()
    monkeypatch.setattr('mmdet_ext.face.heads.sharded.get_world_size', lambda: 2)
    with pytest.raises(RuntimeError, match='was built for 1 processes, and 2 train'):
        head.loss((torch.randn(2, 8),), samples([0, 1]))


def test_predict_and_scores_are_those_of_the_whole_head() -> None:
    whole, head = build_head(), sharded_head()
    head.load_state_dict(whole.state_dict())
    x: Tensor = batch()[0].repeat(1, 2)[:, :8]
    assert torch.equal(head((x,)), whole((x,)))
    found = zip(head.predict((x,)), whole.predict((x,)), strict=True)
    assert all(torch.equal(one.embedding, other.embedding) for one, other in found)


def test_a_copy_of_the_head_trains_its_own_centres() -> None:
    head = sharded_head(sample_rate=0.5)
    other = copy.deepcopy(head)
    loss_of(other, torch.randn(6, 8), torch.arange(6)).backward()
    assert len(other.weight_drawn) and not len(head.weight_drawn)


def test_the_head_is_a_margin_head() -> None:
    assert issubclass(ShardedMarginHead, MarginHead)
    with pytest.raises(TypeError, match="no option 'num_class'; did you mean 'num_classes'"):
        sharded_head(num_class=3)


@pytest.mark.parametrize(
    'message',
    ['Connection closed by peer [127.0.0.1]:1', 'NCCL error', 'Timed out waiting 60000ms'],
)
def test_errors_of_an_exchange_are_explained(message: str) -> None:
    with pytest.raises(ProcessEndedError, match='another process') as raised, explained():
        raise RuntimeError(message)
    assert message in str(raised.value) and str(raised.value.__cause__) == message


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match='^shapes do not fit$'), explained():
        raise RuntimeError('shapes do not fit')
