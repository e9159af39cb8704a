"""Reader of weights that other projects saved, with errors that name the contents of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.data.reports import listed

StateDict = dict[str, Tensor]

#: Names that a message lists.
SHOWN = 6

#: Keys under which a training state may hold the weights of the network.
_NETWORK_KEYS = ('state_dict_backbone', 'state_dict', 'model', 'backbone')
#: Prefixes that distributed training and whole models add to the names of weights.
_WRAPPERS = ('module.', '_orig_mod.', 'backbone.')


class ConversionError(ValueError):
    """File that cannot be converted."""


def read_weights(path: Path) -> StateDict:
    """Read the weights of a network, by their names without wrappers such as 'module.'.

    Args:
        path: File with a state dict, alone or in a training state.

    Returns:
        The weights, on the CPU.

    Raises:
        ConversionError: If the file holds no state dict, or two weights have one name once the
            wrappers are removed.
        RuntimeError: If the file is refused or cannot be loaded, see `load_from_local`.
    """
    content = load_from_local(str(path), 'cpu')
    for key in _NETWORK_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ConversionError(
            f'{path} holds {described(content)}, expected a state dict: names with tensors'
        )
    odd = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise ConversionError(
            f'{path} holds {described(content)}, of which these are no tensors: '
            f'{names_listed(odd)}. Expected a state dict, alone or as one of '
            f'{", ".join(_NETWORK_KEYS)}'
        )
    names = Counter(_bare(str(key)) for key in content)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        raise ConversionError(
            f'{path} has several weights of one name once {", ".join(_WRAPPERS)} are taken off: '
            f'{names_listed(repeated)}'
        )
    return {_bare(str(key)): value.detach() for key, value in content.items()}


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise ConversionError, with names, if weights hold numbers that are NaN or infinite."""
    bad = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if bad:
        raise ConversionError(f'numbers that are not finite in {names_listed(bad)}')


def described(content: Any) -> str:
    """Describe the content of a file for a message."""
    if isinstance(content, Mapping):
        return f'{len(content)} entries ({names_listed(list(content))})'
    return f'a {type(content).__name__}'


def names_listed(names: Sequence[Any]) -> str:
    """List the first few names for a message, 'none' if there is none."""
    return listed(names, most=SHOWN) or 'none'


def _bare(key: str) -> str:
    """Remove the wrappers of a name.

    >>> _bare('module.backbone.bn1.weight'), _bare('layer1.0.bn1.weight')
    ('bn1.weight', 'layer1.0.bn1.weight')
    """
    for wrapper in _WRAPPERS * 2:
        key = key.removeprefix(wrapper)
    return key
