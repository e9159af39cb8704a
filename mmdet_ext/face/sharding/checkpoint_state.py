"""State of a training as two parts: rows of classes, which are sharded, and all else.

All else is equal in all processes, and stored once. Of a sharded tensor, each process has
``shard.count * rows_per_class`` rows. Rows of one class are joined to one, so that the cut over any
number of processes falls between classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmdet_ext.face.sharding.checkpoint_peers import Peers
from mmdet_ext.face.sharding.shards import ShardedModule, class_shard, writing_shards

#: Parts of a checkpoint with these endings are states of the model, or of a copy of it.
_STATE = 'state_dict'
# A head with ``sample_rate`` below 1 trains ``weight_drawn`` in place of ``weight``, and its state
# has the number of its draws. Heads resume each other's training, whatever their rate.
_DRAWN = '_drawn'
_DRAWS = 'weight_draws'


@dataclass(frozen=True)
class Rows:
    """Form of a sharded tensor.

    Attributes:
        module: name of the sharded module in the model.
        rows_per_class: rows per class.
        trailing: shape without the first dimension.
    """

    module: str
    rows_per_class: int
    trailing: tuple[int, ...]

    @property
    def width(self) -> int:
        """Return the number of values per class."""
        return self.rows_per_class * math.prod(self.trailing)


@dataclass
class TrainingState:
    """State of a training as one process has it.

    Attributes:
        content: what is equal in all processes, as MMEngine's checkpoints have it; 'optimizer'
            holds the packed optimizers by name.
        tensors: rows of this process, (n * rows_per_class, ...), by key.
        rows: their forms, by key.
    """

    content: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)

    def whole(self) -> dict[str, Any]:
        """Return the content with the sharded tensors of models back in it."""
        whole = dict(self.content)
        for key, value in self.tensors.items():
            part, _, name = key.partition('/')
            if part.endswith(_STATE):
                if whole[part] is self.content[part]:
                    whole[part] = dict(whole[part])
                whole[part][name] = value
        return whole


def sharded_modules(model: nn.Module) -> dict[str, ShardedModule]:
    """Return the sharded modules of a model, by name."""
    wanted = ('shard', 'rows_per_class', 'sharded_state', 'sharded_parameters')
    return {
        name: cast(ShardedModule, module)
        for name, module in model.named_modules()
        if all(hasattr(module, each) for each in wanted)
    }


def optimizers_of(optimizer: Any) -> dict[str, Any]:
    """Return optimizers or their wrappers by name; a single one has the name ''.

    Args:
        optimizer: an optimizer, MMEngine's wrapper of one or of several, or None.
    """
    if optimizer is None:
        return {}
    return dict(optimizer.items()) if hasattr(optimizer, 'optim_wrappers') else {'': optimizer}


def _type_name(optimizer: Any) -> str:
    """Return the class name of an optimizer, with or without a wrapper."""
    return type(getattr(optimizer, 'optimizer', optimizer)).__name__


def take_state(
    model: nn.Module, content: Mapping[str, Any], optimizer: Any, peers: Peers
) -> TrainingState:
    """Return the state of a training; its tensors are those of the model, not copies.

    All processes must call it.

    Args:
        model: without a wrapper for distributed training.
        content: parts of the checkpoint: 'state_dict', taken under ``writing_shards()``, and others
            such as 'meta' and 'ema_state_dict'.
        optimizer: as in `optimizers_of`.
        peers: processes of the training.

    Raises:
        ValueError: for a sharded tensor with another number of rows, and for a parameter of the
            optimizer that the model does not have.
    """
    with peers.together():
        modules = sharded_modules(model)
        for name, module in modules.items():
            usual = class_shard(module.shard.total, peers.rank, peers.count)
            if module.shard != usual:
                raise ValueError(
                    f'{name!r} holds {module.shard}, a checkpoint of {peers.count} processes '
                    f'stores {usual}: build the model after the process group'
                )
        owners = _owners(modules)
        state = TrainingState({})
        for part, values in content.items():
            if not part.endswith(_STATE):
                state.content[part] = values
                continue
            kept = state.content[part] = {}
            for name, value in values.items():
                owner = owners.get(name.removeprefix('module.'))
                if owner is None:
                    kept[name] = value
                else:
                    _add_rows(state, f'{part}/{name}', value, owner, modules[owner])
        packed = state.content['optimizer'] = {}
        for name, each in optimizers_of(optimizer).items():
            packed[name] = _packed_optimizer(state, name, each, model, modules)
    _complete_rows(state, modules, peers)
    return state


def _owners(modules: Mapping[str, ShardedModule]) -> dict[str, str]:
    """Return the names of modules by the names of their sharded tensors in the model's state."""
    with writing_shards():
        return {
            _joined(owner, name): owner
            for owner, module in modules.items()
            for name in module.sharded_state()
        }


def _joined(owner: str, name: str) -> str:
    return f'{owner}.{name}' if owner else name


def _add_rows(
    state: TrainingState, key: str, value: Tensor, owner: str, module: ShardedModule
) -> None:
    """Add a sharded tensor to a state."""
    expected = module.shard.count * module.rows_per_class
    if value.dim() == 0 or len(value) != expected:
        raise ValueError(
            f'{key} is {tuple(value.shape)}, and {owner!r} holds {module.shard.count} classes with '
            f'{module.rows_per_class} rows each: {expected} rows are needed'
        )
    state.tensors[key] = value
    state.rows[key] = Rows(owner, module.rows_per_class, tuple(value.shape[1:]))


def trained_rows(modules: Mapping[str, ShardedModule]) -> dict[int, tuple[str, str]]:
    """Return the module and the name in checkpoints of each sharded parameter, by its ``id``."""
    return {
        id(parameter): (owner, _joined(owner, name).removesuffix(_DRAWN))
        for owner, module in modules.items()
        for name, parameter in module.sharded_parameters().items()
    }


def stored_names(
    optimizer: Any, model: nn.Module, modules: Mapping[str, ShardedModule]
) -> list[str]:
    """List the names in checkpoints of an optimizer's parameters, in its order.

    Raises:
        ValueError: for a parameter that is none of the model.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    names.update((key, name) for key, (_, name) in trained_rows(modules).items())
    listed = []
    for number, group in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(group['params']):
            if id(parameter) not in names:
                raise ValueError(
                    f'parameter {place} of group {number} of the optimizer is none of the '
                    f"model's, of shape {tuple(parameter.shape)}: build the optimizer from the "
                    'model that is trained'
                )
            listed.append(names[id(parameter)])
    return listed


def _packed_optimizer(
    state: TrainingState,
    label: str,
    optimizer: Any,
    model: nn.Module,
    modules: Mapping[str, ShardedModule],
) -> dict[str, Any]:
    """Return the state of an optimizer by names of parameters; add its rows to ``state``."""
    names = stored_names(optimizer, model, modules)
    owners = {name: owner for owner, name in trained_rows(modules).values()}
    rest = dict(optimizer.state_dict())
    values = {names[place]: dict(entry) for place, entry in rest.pop('state').items()}
    groups = [
        {**group, 'params': [names[place] for place in group['params']]}
        for group in rest.pop('param_groups')
    ]
    for name, entry in values.items():
        if name not in owners:
            continue
        for item in [key for key, value in entry.items() if _has_rows(value)]:
            owner = owners[name]
            key = f'optimizer/{label}/{name}/{item}'
            _add_rows(state, key, entry.pop(item), owner, modules[owner])
    return {'type': _type_name(optimizer), 'groups': groups, 'state': values, 'rest': rest}


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _complete_rows(
    state: TrainingState, modules: Mapping[str, ShardedModule], peers: Peers
) -> None:
    """Give each process what the optimizer has for sharded parameters in any.

    An optimizer has no state before the first gradient, which comes later where a process holds no
    class, or none that was drawn. Rows start with 0; of counts, such as steps, the highest stays.
    """
    if peers.group is None:
        return
    names = {name for _, name in trained_rows(modules).values()}
    numbers = {
        (label, name): entry
        for label, packed in state.content['optimizer'].items()
        for name, entry in packed['state'].items()
        if name in names
    }
    numbers = on_cpu(numbers)
    dtypes = {key: (state.rows[key], value.dtype) for key, value in state.tensors.items()}
    for other_dtypes, other_numbers in peers.gather((dtypes, numbers)):
        for key, (rows, dtype) in other_dtypes.items():
            if key not in state.tensors:
                count = modules[rows.module].shard.count * rows.rows_per_class
                state.tensors[key] = torch.zeros(count, *rows.trailing, dtype=dtype)
                state.rows[key] = rows
        for (label, name), entry in other_numbers.items():
            mine = state.content['optimizer'][label]['state'].setdefault(name, {})
            for item, value in entry.items():
                known = mine.get(item)
                if known is None or (value is not None and value > known):
                    mine[item] = value


def on_cpu(content: Any) -> Any:
    """Return nested containers with their tensors on the CPU, without a graph."""
    if isinstance(content, Tensor):
        return content.detach().cpu()
    if isinstance(content, Mapping):
        return {key: on_cpu(value) for key, value in content.items()}
    if type(content) in (list, tuple):
        return type(content)(on_cpu(value) for value in content)
    return content


def check_fits(model: nn.Module, state: TrainingState, source: str) -> None:
    """Raise ValueError unless a model has the names and shapes of a state that was read.

    Args:
        model: without a wrapper.
        state: its ``tensors`` have the rows of this process.
        source: of the state, for the message.
    """
    found = state.whole()[_STATE]
    with writing_shards():
        wanted = model.state_dict()
    problems = []
    for title, names in (
        ('it lacks', wanted.keys() - found.keys()),
        ('the model lacks', found.keys() - wanted.keys()),
    ):
        names = sorted(name for name in names if not name.endswith(_DRAWS))
        if names:
            problems.append(f'{title} {_listed(names)}')
    for name in sorted(wanted.keys() & found.keys()):
        shapes = [getattr(part[name], 'shape', None) for part in (found, wanted)]
        if shapes[0] != shapes[1]:
            problems.append(f'{name} is {_shape(shapes[0])} there, {_shape(shapes[1])} here')
    if problems:
        raise ValueError(
            f'{source} is of another model: {"; ".join(problems)}. Nothing was loaded. Load it '
            'into the model that wrote it; for the backbone alone use tools/face/export_sharded.py'
        )


def _shape(shape: Any) -> str:
    return 'no tensor' if shape is None else str(tuple(shape))


def _listed(names: list[str]) -> str:
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return ', '.join(names[:5]) + more


def optimizer_states(
    model: nn.Module, state: TrainingState, optimizer: Any, source: str
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield optimizers, each with the ``state_dict`` that a state has for it.

    Raises:
        ValueError: if a state is of other optimizers or of other parameters.
    """
    modules = sharded_modules(model)
    packed, wanted = state.content.get('optimizer', {}), optimizers_of(optimizer)
    if packed.keys() != wanted.keys():
        raise ValueError(
            f'{source} has the optimizers {sorted(packed)}, this training {sorted(wanted)}; '
            'nothing was loaded'
        )
    for label, each in wanted.items():
        if packed[label]['type'] != _type_name(each):
            raise ValueError(
                f'{source} was trained by {packed[label]["type"]}, this training uses '
                f'{_type_name(each)}; nothing was loaded. Resume with the same optimizer, or load '
                'the weights alone: load_from without resume'
            )
        names = stored_names(each, model, modules)
        groups, start = [], 0
        stored = packed[label]['groups']
        for number, group in enumerate(each.param_groups):
            here = names[start : start + len(group['params'])]
            there = stored[number]['params'] if number < len(stored) else []
            if set(here) != set(there) or len(stored) != len(each.param_groups):
                missing = sorted(set(here) ^ set(there))
                raise ValueError(
                    f'{source}: group {number} of the optimizer has other parameters '
                    f'({_listed(missing) or "another number of groups"}), nothing was loaded. '
                    'Keep paramwise_cfg and frozen layers as they were'
                )
            groups.append({**stored[number], 'params': list(range(start, start + len(here)))})
            start += len(here)
        values = {}
        for place, name in enumerate(names):
            start_key = f'optimizer/{label}/{name}/'
            entry = dict(packed[label]['state'].get(name, {}))
            entry.update(
                (key.removeprefix(start_key), value)
                for key, value in state.tensors.items()
                if key.startswith(start_key)
            )
            if entry:
                values[place] = entry
        yield each, {'state': values, 'param_groups': groups, **packed[label]['rest']}
