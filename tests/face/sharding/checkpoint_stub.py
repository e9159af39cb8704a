"""Small model with sharded classes, whose gradients follow from values, steps and rows alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.face.sharding.checkpoints import Peers
from mmdet_ext.face.sharding.shards import ClassShard, class_shard, is_writing_shards

WIDTH = 3


class StubMargin(nn.Module):
    """Margin of the stub, for its name."""


class StubHead(nn.Module):
    """Head with ``each`` centres per class, and an age per centre.

    With ``drawn``, the optimizer trains an empty parameter whose state has all rows, as that of a
    head with sampled classes.
    """

    def __init__(self, shard: ClassShard, each: int, drawn: bool = False) -> None:
        super().__init__()
        self.shard, self.rows_per_class = shard, each
        self.margin = StubMargin()
        rows = torch.arange(shard.first * each, shard.stop * each, dtype=torch.float32)
        table = torch.sin(rows[:, None] * WIDTH + torch.arange(WIDTH))
        self.register_buffer('ages', rows + 100)
        self.drawn = drawn
        if drawn:
            self.register_buffer('weight', table)
            self.weight_drawn = nn.Parameter(torch.empty(0, WIDTH))
        else:
            self.weight = nn.Parameter(table)

    def sharded_state(self) -> dict[str, Tensor]:
        return {'weight': self.weight, 'ages': self.ages}

    def sharded_parameters(self) -> dict[str, nn.Parameter]:
        return {'weight_drawn': self.weight_drawn} if self.drawn else {'weight': self.weight}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        assert is_writing_shards(), 'a state of one shard is none of the head'
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.drawn:
            del destination[f'{prefix}weight_drawn']

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        missing: list[str] = args[4]
        missing[:] = [name for name in missing if not name.endswith('_drawn')]


class StubModel(nn.Module):
    """Backbone of one layer with batch norm, and a `StubHead`."""

    def __init__(self, peers: Peers, classes: int = 10, each: int = 2, drawn: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.head = StubHead(class_shard(classes, peers.rank, peers.count), each, drawn)
        with torch.no_grad():
            for number, parameter in enumerate(self.backbone.parameters()):
                parameter.fill_(0.25 * (number + 1))

    def backward(self, step: int) -> None:
        """Set gradients that depend on values and the step, by operations that round alike."""
        for name, parameter in self.named_parameters():
            if not name.endswith('_drawn'):
                parameter.grad = parameter.detach() * 0.5 + (step + 1) * 0.125

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Train one step as MMEngine's models do; the backbone sees the same in all processes."""
        self.backward(optim_wrapper._inner_count)
        optim_wrapper.step()
        optim_wrapper._inner_count += 1
        return {'loss': self.head.weight.new_tensor(1.0)}

    def test_step(self, data: Any) -> list[Any]:
        """Return a prediction of nothing."""
        return [{}]


def optimizer_of(model: nn.Module, kind: str) -> torch.optim.Optimizer:
    """Return an optimizer with momentum; the backbone and the head have a group each."""
    groups: list[dict[str, Any]] = [
        dict(params=list(model.backbone.parameters()), lr=0.05),
        dict(params=list(model.head.parameters())),
    ]
    if kind == 'sgd':
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)
    return torch.optim.AdamW(groups, lr=0.1)


def train(model: StubModel, optimizer: torch.optim.Optimizer, first: int, stop: int) -> None:
    """Train from one step to below another."""
    for step in range(first, stop):
        model.backward(step)
        optimizer.step()


def snapshot(model: StubModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of all values of a process: weights, buffers and state of the optimizer."""
    found = {f'backbone.{key}': value for key, value in model.backbone.state_dict().items()}
    found |= {f'head.{key}': value for key, value in model.head.sharded_state().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f'{name}.{key}'] = torch.as_tensor(value)
    return {key: value.detach().clone() for key, value in found.items()}


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the snapshots of all processes as that of one; what is replicated must be equal."""
    found: dict[str, Tensor] = {}
    for key in parts[0]:
        values = [part[key] for part in parts]
        if key.startswith('head.') and values[0].dim():
            found[key] = torch.cat(values)
        else:
            assert all(torch.equal(value, values[0]) for value in values), key
            found[key] = values[0]
    return found
