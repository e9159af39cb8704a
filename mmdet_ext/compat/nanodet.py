"""Weights of NanoDet-Plus as its authors' code saves them, by the names of `mmdet_ext.NanoDetPlus`.

A training checkpoint of pytorch-lightning holds the weights twice: ``model.`` those that were
trained, and ``avg_model.`` their running average, by which a validation goes. The file
``nanodet_model_best.pth`` holds the average alone, without a prefix. In ``model_last.ckpt`` the
average is that of the last validation, up to ten epochs old.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.compat.weights import ConversionError, StateDict, check_finite, described

#: Which of two sets of weights is taken.
Weights = Literal['averaged', 'trained']
PREFIXES: dict[Weights, str] = {'averaged': 'avg_model.', 'trained': 'model.'}

#: Parts of the names of the authors' code, as regular expressions, and ours.
_SEPARABLE = (
    (r'\.depthwise\.', '.depthwise_conv.conv.'),
    (r'\.dwnorm\.', '.depthwise_conv.bn.'),
    (r'\.pointwise\.', '.pointwise_conv.conv.'),
    (r'\.pwnorm\.', '.pointwise_conv.bn.'),
)
_GHOSTS = (
    (r'\.blocks\.', '.'),
    (r'\.ghost1\.', '.expand.'),
    (r'\.ghost2\.', '.project.'),
    (r'\.primary_conv\.0\.', '.primary.conv.'),
    (r'\.primary_conv\.1\.', '.primary.bn.'),
    (r'\.cheap_operation\.0\.', '.cheap.conv.'),
    (r'\.cheap_operation\.1\.', '.cheap.bn.'),
    (r'\.shortcut\.0\.', '.shortcut.depthwise_conv.conv.'),
    (r'\.shortcut\.1\.', '.shortcut.depthwise_conv.bn.'),
    (r'\.shortcut\.2\.', '.shortcut.pointwise_conv.conv.'),
    (r'\.shortcut\.3\.', '.shortcut.pointwise_conv.bn.'),
    (r'\.extra_lvl_in_conv\.', '.extra_in.'),
    (r'\.extra_lvl_out_conv\.', '.extra_out.'),
)
#: Names of the modules, and what else changes within them.
_MODULES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    'backbone.': ('backbone.', ()),
    'fpn.': ('neck.', _SEPARABLE + _GHOSTS),
    'head.': ('bbox_head.', (*_SEPARABLE, (r'\.distribution_project\.', '.integral.'))),
    'aux_fpn.': ('aux_neck.', _SEPARABLE + _GHOSTS),
    'aux_head.': ('aux_head.', ()),
}


def read_nanodet(path: Path, weights: Weights = 'averaged') -> tuple[StateDict, str]:
    """Read the weights of NanoDet-Plus by the names of `mmdet_ext.NanoDetPlus`.

    Args:
        path: A checkpoint, or a file with the weights alone.
        weights: Which weights of a checkpoint that has both. A file with one set has no choice.

    Returns:
        The weights on the CPU, and which they are, in words.

    Raises:
        ConversionError: If the file holds other things, or numbers that are not finite.
        FileNotFoundError: If there is no such file.
        RuntimeError: If the file is refused or cannot be loaded, see `load_from_local`.
    """
    content = load_from_local(str(path), 'cpu')
    if isinstance(content, Mapping) and isinstance(content.get('state_dict'), Mapping):
        content = content['state_dict']
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ConversionError(
            f'{path} holds {described(content)}, expected a checkpoint of NanoDet-Plus: a '
            'state_dict of names with tensors'
        )
    own, which = _chosen({str(key): value.detach() for key, value in content.items()}, weights)
    found = {our_name(key): value for key, value in own.items()}
    unknown = [key for key in own if not key.startswith(tuple(_MODULES))]
    if unknown or 'bbox_head.gfl_cls.0.weight' not in found:
        raise ConversionError(
            f'{path} holds {described(own)}, expected NanoDet-Plus: weights of backbone, fpn and '
            'head, whose head has a convolution gfl_cls per level. NanoDet before Plus has '
            'another network'
        )
    check_finite(found)
    # The larger head of this package has a constant that the authors' has not.
    if 'aux_head.gfl_reg.weight' in found:
        values = len(found['aux_head.gfl_reg.weight']) // 4
        found['aux_head.integral.project'] = torch.linspace(0, values - 1, values)
    return found, which


def our_name(key: str) -> str:
    """Return the name in `mmdet_ext.NanoDetPlus` of a weight of the authors' code.

    >>> our_name('fpn.top_down_blocks.0.blocks.0.ghost1.primary_conv.0.weight')
    'neck.top_down_blocks.0.0.expand.primary.conv.weight'
    >>> our_name('head.cls_convs.0.1.dwnorm.bias'), our_name('backbone.conv1.0.weight')
    ('bbox_head.cls_convs.0.1.depthwise_conv.bn.bias', 'backbone.conv1.0.weight')
    """
    for start, (ours, changes) in _MODULES.items():
        if key.startswith(start):
            key = ours + key[len(start) :]
            for pattern, name in changes:
                key = re.sub(pattern, name, key)
            return key
    return key


def _chosen(content: StateDict, weights: Weights) -> tuple[StateDict, str]:
    """Return the weights of a prefix, without it, and which they are."""
    sets = {
        name: {
            key[len(prefix) :]: value for key, value in content.items() if key.startswith(prefix)
        }
        for name, prefix in PREFIXES.items()
    }
    if sets[weights]:
        return sets[weights], f'the {weights} weights'
    for name, own in sets.items():
        if own:
            return own, f'the {name} weights, as it has no {weights} ones'
    return content, 'its only weights'
