"""Weights of YOLOv5, layout v6, by the names of this package.

A file of YOLOv5 holds a whole network as an object, whose layers have numbers in the place of
names: ``model.0`` to ``model.24``. MMYOLO has names of its own. Both are read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mmdet_ext.compat.stand_ins import Recorded, module_weights, read_recorded
from mmdet_ext.compat.weights import ConversionError, StateDict, check_finite, names_listed

#: Number of a layer, and its name here.
LAYERS = {
    '0': 'backbone.stages.0',
    '1': 'backbone.stages.1.0',
    '2': 'backbone.stages.1.1',
    '3': 'backbone.stages.2.0',
    '4': 'backbone.stages.2.1',
    '5': 'backbone.stages.3.0',
    '6': 'backbone.stages.3.1',
    '7': 'backbone.stages.4.0',
    '8': 'backbone.stages.4.1',
    '9': 'backbone.stages.4.2',
    '10': 'neck.reduces.0',
    '13': 'neck.ups.0',
    '14': 'neck.reduces.1',
    '17': 'neck.ups.1',
    '18': 'neck.halves.0',
    '20': 'neck.downs.0',
    '21': 'neck.halves.1',
    '23': 'neck.downs.1',
    '24.m': 'bbox_head.convs_pred',
}
#: Names of MMYOLO, and those here.
MMYOLO = {
    'backbone.stem': 'backbone.stages.0',
    **{f'backbone.stage{stage}': f'backbone.stages.{stage}' for stage in range(1, 5)},
    'neck.reduce_layers.2': 'neck.reduces.0',
    'neck.top_down_layers.0.0': 'neck.ups.0',
    'neck.top_down_layers.0.1': 'neck.reduces.1',
    'neck.top_down_layers.1': 'neck.ups.1',
    **{f'neck.downsample_layers.{index}': f'neck.halves.{index}' for index in range(2)},
    **{f'neck.bottom_up_layers.{index}': f'neck.downs.{index}' for index in range(2)},
    'bbox_head.head_module.convs_pred': 'bbox_head.convs_pred',
}
#: Names within a layer: in YOLOv5 or MMYOLO, and here.
_POOLING = {'cv1': 'reduce', 'cv2': 'merge', 'conv1': 'reduce', 'conv2': 'merge'}
_BLOCK = {
    'cv1': 'entry',
    'cv2': 'bypass',
    'cv3': 'merge',
    'main_conv': 'entry',
    'short_conv': 'bypass',
    'final_conv': 'merge',
}
_INNER = {'cv1': '0', 'cv2': '1', 'conv1': '0', 'conv2': '1'}
#: Prefixes that distributed training and whole models add to the numbers of layers.
_WRAPPERS = ('module.', '_orig_mod.', 'model.')
#: Keys under which a file may hold the network, the averaged weights of a training first.
_NETWORK_KEYS = ('ema', 'model', 'state_dict')


class YOLOv5File(NamedTuple):
    """Content of a file of weights.

    Attributes:
        weights: float32 tensors by the names of this package.
        anchors: (levels, anchors, 2) width and height, in cells; None where the file has none.
        classes: names of the classes; None where the file has none.
        part: key under which the network was found; '' where it is the file itself.
    """

    weights: StateDict
    anchors: Tensor | None
    classes: tuple[str, ...] | None
    part: str


def read_yolov5(path: Path) -> YOLOv5File:
    """Read a file of YOLOv5 or MMYOLO, or a plain state dict of either.

    Nothing of the file is run: see :mod:`mmdet_ext.compat.stand_ins`.

    Args:
        path: Such as ``yolov5s.pt``.

    Returns:
        The weights by the names of this package. Whether they are those of a network is for the
        caller to check.

    Raises:
        ConversionError: If the file holds no weights, those of another layout, or numbers that are
            not finite.
        FileNotFoundError: If there is none.
    """
    content = read_recorded(path)
    part, network = _network(path, content)
    weights = module_weights(network) if isinstance(network, Recorded) else _tensors(path, network)
    own = _without_wrappers(weights)
    _check_layout(path, own)
    anchors = own.pop('24.anchors', None)
    own.pop('24.anchor_grid', None)
    table = LAYERS if '0.conv.weight' in own else MMYOLO
    renamed = {_renamed(name, table): value for name, value in own.items()}
    check_finite({name: value for name, value in renamed.items() if value.is_floating_point()})
    return YOLOv5File(
        weights={
            name: value.float() if value.is_floating_point() else value
            for name, value in renamed.items()
        },
        anchors=None if anchors is None else anchors.float(),
        classes=_class_names(network),
        part=part,
    )


def _network(path: Path, content: Any) -> tuple[str, Any]:
    """Return the key of the network, and the network: a record, or a dict of tensors."""
    if isinstance(content, Recorded):
        return '', content
    if not isinstance(content, Mapping) or not content:
        raise ConversionError(
            f'{path} holds a {type(content).__name__}, expected a network or a state dict'
        )
    for key in _NETWORK_KEYS:
        value = content.get(key)
        if isinstance(value, Recorded) or (isinstance(value, Mapping) and value):
            return key, value
    return '', content


def _tensors(path: Path, content: Mapping[Any, Any]) -> StateDict:
    odd = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise ConversionError(
            f'{path} has entries that are no tensors: {names_listed(odd)}. Expected a state dict, '
            f'alone or as one of {", ".join(_NETWORK_KEYS)}'
        )
    return {str(key): value for key, value in content.items()}


def _without_wrappers(weights: StateDict) -> StateDict:
    """Take off the prefixes in front of the numbers of layers, which all names have."""
    names = list(weights)
    start = 0
    while True:
        found = [w for w in _WRAPPERS if all(name.startswith(w, start) for name in names)]
        if not found or not names:
            return {name[start:]: value for name, value in weights.items()}
        start += len(found[0])


def _check_layout(path: Path, own: StateDict) -> None:
    """Raise ConversionError, with what the layers are, for a network of another layout."""
    known = 'Only the detection networks of YOLOv5, layout v6, with three levels are read'
    reasons = (
        ('0.conv.conv.weight' in own, 'begins with a Focus layer: it has the layout of release 5'),
        ('33.m.0.weight' in own, 'has four levels (P6)'),
        (any(name.startswith('24.proto') for name in own), 'segments (it has prototype masks)'),
        ('9.linear.weight' in own or '10.linear.weight' in own, 'classifies images'),
        (
            any('.dfl.' in name or re.match(r'\d+\.cv[23]\.0\.0\.', name) for name in own),
            'has no anchors: it is a YOLOv5u, a YOLOv8 or newer',
        ),
        (
            '0.conv.bias' in own,
            'has its batch norms fused into the convolutions. Give the file before the fusion',
        ),
    )
    for holds, reason in reasons:
        if holds:
            raise ConversionError(f'{path} holds a network that {reason}. {known}')
    if '0.conv.weight' not in own and 'backbone.stem.conv.weight' not in own:
        raise ConversionError(
            f'{path} holds weights of another network: {len(own)} of them '
            f'({names_listed(sorted(own))}), none of which is model.0.conv.weight as in YOLOv5, or '
            f'backbone.stem.conv.weight as in MMYOLO. {known}'
        )


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """Return the name of a weight here; an unknown name as it is.

    >>> _renamed('4.m.1.cv2.bn.weight', LAYERS), _renamed('9.cv1.conv.weight', LAYERS)
    ('backbone.stages.2.1.blocks.1.1.bn.weight', 'backbone.stages.4.2.reduce.conv.weight')
    >>> _renamed('neck.top_down_layers.1.short_conv.bn.bias', MMYOLO)
    'neck.ups.1.bypass.bn.bias'
    """
    layer = max((key for key in table if name.startswith(f'{key}.')), key=len, default=None)
    if layer is None:
        return name
    own, rest = table[layer], name.removeprefix(f'{layer}.').split('.')
    if table is MMYOLO and own.startswith('backbone.stages.') and own != 'backbone.stages.0':
        own, rest = f'{own}.{rest[0]}', rest[1:]
    inner = re.fullmatch(r'(m|blocks)\.(\d+)\.(\w+)', '.'.join(rest[:3]))
    if inner and inner[3] in _INNER:
        return '.'.join([own, 'blocks', inner[2], _INNER[inner[3]], *rest[3:]])
    names = _POOLING if own == 'backbone.stages.4.2' else _BLOCK
    return '.'.join([own, names.get(rest[0], rest[0]), *rest[1:]])


def _class_names(network: Any) -> tuple[str, ...] | None:
    """Return the names of the classes that a recorded network has, a list or a dict by number."""
    if not isinstance(network, Recorded):
        return None
    names = network.attributes.get('names')
    if isinstance(names, dict):
        whole = all(isinstance(number, int) for number in names)
        names = [names[key] for key in sorted(names)] if whole else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def block_counts(weights: Mapping[str, Tensor]) -> list[int]:
    """Return the number of residual blocks of each stage, and of the first join of the neck.

    Args:
        weights: By the names of this package.
    """
    layers = [*(f'backbone.stages.{stage}.1' for stage in range(1, 5)), 'neck.ups.0']
    found: dict[str, set[str]] = {layer: set() for layer in layers}
    for name in weights:
        layer, blocks, rest = name.partition('.blocks.')
        if blocks and layer in found:
            found[layer].add(rest.partition('.')[0])
    return [len(found[layer]) for layer in layers]
