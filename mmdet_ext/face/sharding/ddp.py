"""Wrapper of distributed models that leaves shards to the process that holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from mmengine.model import MMDistributedDataParallel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmdet_ext.face.sharding.clipping import share_decisions
from mmdet_ext.face.sharding.collectives import explained
from mmdet_ext.face.sharding.shards import ClassShard, ShardedModule, writing_shards
from mmdet_ext.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class ShardedHeadDDP(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` for models with a `ShardedMarginHead`.

    It is set by ``model_wrapper_cfg=dict(type='mmdet_ext.ShardedHeadDDP')``. Shards are neither
    broadcast nor averaged; all other parameters are treated as in ``MMDistributedDataParallel``.
    In ``train_step``, clipping uses the norm of the gradients of all processes, and a loss scaler
    skips a step on all of them if one has a gradient that is not finite. Where another process
    ends, the error says so.

    Args:
        module: the model.
        detect_anomalous_params: as in ``MMDistributedDataParallel``.
        **kwargs: options of ``DistributedDataParallel``, such as ``find_unused_parameters``. On a
            CPU, ``device_ids`` is ignored, because MMEngine's runner sets it everywhere.
    """

    def __init__(
        self, module: nn.Module, detect_anomalous_params: bool = False, **kwargs: Any
    ) -> None:
        heads = _sharded_modules(module)
        names: list[str] = []
        params: list[nn.Parameter] = []
        for prefix, head in heads.items():
            own = {**head.sharded_state(), **head.sharded_parameters()}
            names += [f'{prefix}.{name}' if prefix else name for name in own]
            params += head.sharded_parameters().values()
        if all(param.device.type == 'cpu' for param in module.parameters()):
            kwargs['device_ids'] = None
        ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(module, names)
        super().__init__(module, detect_anomalous_params, **kwargs)
        # The parameters are kept beside their ids, which are theirs as long as they live.
        self._sharded = params
        for head in heads.values():
            cast(Any, head).taken_over = True
        if names and hasattr(module, 'init_weights'):
            self._start = _Start(module, frozenset(names))

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Train a step, as ``MMDistributedDataParallel`` does.

        Raises:
            ProcessEndedError: a RuntimeError, where another process ended.
        """
        if hasattr(self, '_start'):
            self._start.end()
        share_decisions(optim_wrapper, frozenset(map(id, self._sharded)))
        with explained():
            return super().train_step(data, optim_wrapper)


class _Start:
    """Start of a training, in which MMEngine's runner broadcasts what ``state_dict`` gives.

    The runner initialises the weights, asks the model for its ``state_dict``, and broadcasts each
    tensor of it. The one call of ``state_dict`` after ``init_weights`` gets no shards.
    """

    def __init__(self, module: nn.Module, shards: frozenset[str]) -> None:
        self.module, self.shards = module, shards
        self.initialise: Callable[[], None] = cast(Any, module).init_weights
        self.waiting = False
        cast(Any, module).init_weights = self._init_weights

    def _init_weights(self) -> None:
        self.initialise()
        cast(Any, self.module).state_dict = self._replicated
        self.waiting = True

    def _replicated(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        self.end()
        with writing_shards():
            state = self.module.state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if name not in self.shards}

    def end(self) -> None:
        """Let ``state_dict`` be the model's own again."""
        if self.waiting:
            del self.module.__dict__['state_dict']
            self.waiting = False


def _sharded_modules(model: nn.Module) -> dict[str, ShardedModule]:
    """Return the modules of a model that hold a part of the classes, by name."""
    return {
        name: cast(ShardedModule, module)
        for name, module in model.named_modules()
        if isinstance(getattr(module, 'shard', None), ClassShard)
    }
