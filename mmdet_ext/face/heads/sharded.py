"""Margin head whose class centres are split over the processes of a distributed training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn

from mmdet_ext.face.heads.margin_head import MarginHead
from mmdet_ext.face.heads.sampled import Choice
from mmdet_ext.face.margins.base import Margin
from mmdet_ext.face.sharding import collectives
from mmdet_ext.face.sharding.shards import ClassShard, class_shard, is_writing_shards
from mmdet_ext.functional.embedding.chunked_competition import OtherScores
from mmdet_ext.functional.embedding.class_sampling import draw_by_key, mixed
from mmdet_ext.functional.embedding.competition import Competition
from mmdet_ext.registry import MODELS

# Initial centres are drawn in blocks of so many classes, each from a generator of its own.
_BLOCK = 1024


@MODELS.register_module()
class ShardedMarginHead(MarginHead):
    """`MarginHead` of which each process holds, and trains, the centres of a part of the classes.

    The processes are those that MMEngine was started with, by any launcher; without a process
    group there is one, which holds all classes. With R processes, process r has the classes
    C_r and the batch is that of all processes together. Each process compares the whole batch
    with its classes, and they exchange the own cosines and one number per sample::

        others_r = log sum_{j in C_r, j != y} exp(s cos t_j)
        L        = -log( exp(s m(cos t_y)) / (exp(s m(cos t_y)) + sum_r exp(others_r)) )

    ``loss`` is the mean over the whole batch, the same on all processes, and that of a
    `MarginHead` with all classes to rounding. A process needs memory for its C / R centres, their
    gradient and their optimizer's state. ``aux_losses`` are computed from the batch of each
    process, as in `MarginHead`, and their gradients averaged.

    Several processes need ``model_wrapper_cfg=dict(type='mmdet_ext.ShardedHeadDDP')``, and
    ``mmdet_ext.ShardedCheckpointHook`` in place of ``CheckpointHook``. The state of one process is
    that of a `MarginHead`, which loads it, and the other way round.

    The options are those of `MarginHead`. With ``sample_rate`` below 1, each class is drawn by
    itself, so that the share of drawn classes is the rate in expectation, and the draw does not
    depend on the number of processes. Initial centres do not depend on it either.

    Attributes:
        shard: classes that this process holds.
        rows_per_class: ``num_subcenters``.
        weight: centres of the classes of ``shard``, (shard.count * num_subcenters, embedding
            channels).
        taken_over: whether a `ShardedHeadDDP` leaves the centres to this process.

    Raises:
        RuntimeError: in several processes, for a loss without `ShardedHeadDDP`, for scores of all
            classes (``forward``), and for ``state_dict`` outside of ``ShardedCheckpointHook``.

    References:
        An et al., Partial FC: Training 10 Million Identities on a Single Machine, 2020, section 3.
    """

    shard: ClassShard
    rows_per_class: int
    taken_over = False

    def sharded_state(self) -> dict[str, Tensor]:
        """Return the tensors of ``state_dict`` that hold rows of ``shard``, by name."""
        return {} if self.margin is None else {'weight': self.weight.detach()}

    def sharded_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that the optimizer of this process trains alone, by name."""
        if self.margin is None:
            return {}
        name = 'weight' if self.sampled is None else 'weight_drawn'
        return {name: cast(nn.Parameter, getattr(self, name))}

    def forward(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the scores of all classes without the margin, (N, num_classes).

        Raises:
            RuntimeError: in several processes, as each has the scores of its classes alone.
        """
        if self.margin is not None and self.processes > 1:
            raise RuntimeError(
                f'each of {self.processes} processes has the scores of its own classes alone: for '
                'those of all, load the checkpoint in one process. Embeddings (predict) need no '
                'centres'
            )
        return super().forward(feats)

    def loss(
        self, feats: Tensor | Sequence[Tensor], data_samples: Sequence[Any], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute the losses of the batches of all processes, as `MarginHead` does of its own.

        Raises:
            ValueError: as in `MarginHead`.
            RuntimeError: in several processes without `ShardedHeadDDP`, and where the processes
                are not those that the head was built in.
            ProcessEndedError: a RuntimeError, where another process ended.
        """
        processes = get_world_size()
        if self.margin is not None and processes != self.processes:
            raise RuntimeError(
                f'ShardedMarginHead was built for {self.processes} processes, and {processes} '
                'train: build the model after the process group, with as many processes'
            )
        if self.margin is not None and processes > 1 and not self.taken_over:
            raise RuntimeError(
                'another wrapper would write the centres of process 0 over all others: set '
                "model_wrapper_cfg=dict(type='mmdet_ext.ShardedHeadDDP')"
            )
        return super().loss(feats, data_samples, **kwargs)

    def _add_centers(self) -> None:
        self.processes = get_world_size()
        self.shard = class_shard(self.num_classes, get_rank(), self.processes)
        self.rows_per_class = self.num_subcenters
        super()._add_centers()

    def _initial_centers(self) -> Tensor:
        first, stop, _ = self.shard
        each, seed = self.num_subcenters, torch.initial_seed()
        table = torch.empty(self.shard.count * each, self.embedding_channels)
        blocks = range(first // _BLOCK, -(-stop // _BLOCK) if stop > first else 0)
        # A table that holds no numbers needs none, as where sizes of a model are counted.
        for block in () if table.is_meta else blocks:
            begin = block * _BLOCK
            generator = torch.Generator('cpu').manual_seed(mixed(seed, block))
            rows = torch.empty(_BLOCK * each, self.embedding_channels, device='cpu')
            rows.normal_(std=0.01, generator=generator)
            low, high = max(first, begin), min(stop, begin + _BLOCK)
            inside = slice((low - first) * each, (high - first) * each)
            table[inside] = rows[(low - begin) * each : (high - begin) * each]
        return table

    def _choice(self) -> Choice:
        return _ShardShare(self.shard, self.sample_rate)

    def _gathered(self, x: Tensor, norm: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.processes == 1:
            return x, norm, labels
        sizes = collectives.batch_sizes(len(labels), labels.device)
        labels = collectives.gathered(labels, sizes)
        return *collectives.gathered_features(x, norm, sizes), labels

    def _summed(self, count: Tensor) -> Tensor:
        return collectives.summed(count)

    def _compete(
        self,
        x: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        others: Callable[[Tensor], OtherScores] | None,
    ) -> Competition:
        centers, classes, places = self._chosen(labels)
        if bias is not None:
            bias = collectives.own_part(bias, self.shard.first, self.shard.stop)
            bias = bias if classes is None else bias[classes]

        def of_all(own: Tensor) -> OtherScores:
            """Return the rule for the own cosines, of which this process has a part."""
            assert others is not None
            return others(collectives.summed(own))

        # The same on all processes, whose backward passes exchange in the same order.
        largest = -(-self.num_classes // self.processes) * self.num_subcenters
        path = self._computation(len(labels), largest)
        rule = None if others is None else of_all
        part = self._competition(x, centers, places, bias, rule, path, elsewhere=True)
        return collectives.combined(part, cast(Margin, self.margin).kind)

    def _chosen(self, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        if self.sampled is not None and self.training:
            return self.sampled.draw(labels)
        first, stop, _ = self.shard
        inside = (labels >= first) & (labels < stop)
        return self.weight, None, torch.where(inside, labels - first, -1)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.margin is not None and self.processes > 1 and not is_writing_shards():
            raise RuntimeError(
                f'the state of this process has the centres of {self.shard.count} of '
                f'{self.shard.total} classes: a checkpoint of it would lose all others. Set '
                "default_hooks=dict(checkpoint=dict(type='mmdet_ext.ShardedCheckpointHook')); in "
                'own code, call state_dict within mmdet_ext.face.sharding.shards.writing_shards()'
            )
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # A table of all classes, as one process writes it, gives each process its rows.
        table = state_dict.get(f'{prefix}weight')
        each = self.num_subcenters
        if table is not None and self.processes > 1 and len(table) == self.shard.total * each:
            state_dict[f'{prefix}weight'] = table[self.shard.first * each : self.shard.stop * each]
        super()._load_from_state_dict(state_dict, prefix, *args)


class _ShardShare:
    """Choice of a share of the classes of a shard, the same classes for any cut into shards."""

    def __init__(self, shard: ClassShard, rate: float) -> None:
        self.shard, self.rate = shard, rate

    def __call__(self, labels: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        """Return the drawn classes, counted from the first of the shard, and the labels' places.

        A label of another shard has the place -1.
        """
        first, stop, _ = self.shard
        return draw_by_key(labels, first, stop, self.rate, mixed(torch.initial_seed(), draws))
