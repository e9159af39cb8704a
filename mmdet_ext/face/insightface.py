"""Conversion of InsightFace's checkpoints (arcface_torch) to `mmdet_ext.IResNet` and its head.

Every key and shape is checked before anything is written. InsightFace feeds its networks RGB as
(x - 127.5) / 127.5; the metadata of the written checkpoint says so.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.compat.weights import (
    ConversionError,
    StateDict,
    check_finite,
    described,
    names_listed,
    read_weights,
)
from mmdet_ext.face.backbones.common import image_size
from mmdet_ext.face.backbones.iresnet import STAGE_BLOCKS, IResNet
from mmdet_ext.utils.files import whole_file
from mmdet_ext.version import __version__

#: Keys under which a training state keeps the class centres; a plain tensor is the centres.
_CENTRE_KEYS = ('state_dict_softmax_fc', 'weight')
_COUNTER = '.num_batches_tracked'
#: Number of times that the network halves height and width.
_HALVINGS = 4


@dataclass(frozen=True)
class Conversion:
    """Checkpoint that was written.

    Attributes:
        out: Path of the checkpoint.
        options: Options of the `mmdet_ext.IResNet`.
        parameters: Number of parameters of the network.
        classes: Number of class centres, None without them.
    """

    out: Path
    options: dict[str, Any]
    parameters: int
    classes: int | None

    def summary(self) -> str:
        """Format the contents of the checkpoint, and the lines of a config that uses it."""
        height, width = image_size(self.options['input_size'])
        lines = [
            f'IResNet-{self.options["depth"]}: {self.parameters:,} parameters, '
            f'{self.options["num_features"]} numbers an embedding, images of {height} x {width} px '
            '(height x width)',
        ]
        if self.classes is not None:
            lines.append(f'class centres: {self.classes:,}')
        written = ', '.join(f'{key}={value!r}' for key, value in self.options.items())
        lines += [
            f'{self.out}',
            '',
            'In a config:',
            "    data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', std=127.5),",
            f"    backbone=dict(type='mmdet_ext.IResNet', {written}),",
        ]
        return '\n'.join(lines)


def convert_insightface(
    source: Path,
    out: Path,
    *,
    depth: int | None = None,
    input_size: Sequence[int] | None = None,
    prefix: str = 'backbone.',
    centres: Sequence[Path] = (),
) -> Conversion:
    """Convert an IResNet, and the class centres if they are given.

    Args:
        source: File with the state dict of the network, or with a training state.
        out: The checkpoint to write.
        depth: Depth of the network, by default inferred from the names of its weights.
        input_size: Height and width of its images in px, see `iresnet_options`.
        prefix: Text before each name in the checkpoint.
        centres: Files with the class centres of all ranks, in the order of the ranks; they become
            head.weight.

    Raises:
        ConversionError: If a file does not hold what it should, or ``out`` is one of the sources.
        RuntimeError: If a file is refused or cannot be loaded.
    """
    if out.resolve() in {source.resolve(), *(path.resolve() for path in centres)}:
        raise ConversionError(f'{out} would be written over what is read: name another file')
    weights = read_weights(source)
    options = iresnet_options(weights, find_depth(weights) if depth is None else depth, input_size)
    weights = checked_weights(weights, options)
    parameters = sum(
        value.numel()
        for key, value in weights.items()
        if not re.search(r'\.(running_\w+|num_batches_\w+)$', key)
    )
    state = {f'{prefix}{key}': value for key, value in weights.items()}
    meta: dict[str, Any] = {
        'source': 'insightface',
        'source_file': source.name,
        'source_sha256': _sha256(source),
        'backbone': {'type': 'mmdet_ext.IResNet', **options},
        'mean': 127.5,
        'std': 127.5,
        'to_rgb': True,
        'mmdet_ext_version': __version__,
    }
    if centres:
        state['head.weight'] = read_centres(centres, options['num_features'])
        meta['num_classes'] = len(state['head.weight'])
    with whole_file(out) as part:
        torch.save({'meta': meta, 'state_dict': state}, part)
    return Conversion(out, options, parameters, meta.get('num_classes'))


def find_depth(weights: Mapping[str, Tensor]) -> int:
    """Infer the depth of an IResNet from the number of blocks in its stages.

    Raises:
        ConversionError: If no depth has these numbers.
    """
    blocks = [0, 0, 0, 0]
    for key in weights:
        found = re.match(r'layer([1-4])\.(\d+)\.', key)
        if found:
            stage = int(found[1]) - 1
            blocks[stage] = max(blocks[stage], int(found[2]) + 1)
    for depth, numbers in STAGE_BLOCKS.items():
        if tuple(blocks) == numbers:
            return depth
    if not any(blocks):
        raise ConversionError(
            "no keys such as 'layer1.0.conv1.weight' are there, so this is no IResNet. There are: "
            f'{names_listed(list(weights))}'
        )
    known = ', '.join(f'{depth}: {list(numbers)}' for depth, numbers in STAGE_BLOCKS.items())
    raise ConversionError(f'stages of {blocks} blocks are of no known depth. Known are {known}')


def iresnet_options(
    weights: Mapping[str, Tensor], depth: int, input_size: Sequence[int] | None = None
) -> dict[str, Any]:
    """Infer the options of the `mmdet_ext.IResNet` from the shapes of its weights.

    Args:
        weights: Weights of the network by name.
        depth: Depth of the network.
        input_size: Height and width of its images in px; by default the largest square that gives
            as many cells as the last layer has.

    Raises:
        ConversionError: If the shapes of the stem and the last layer fit no IResNet.
    """
    stem, last = weights.get('conv1.weight'), weights.get('fc.weight')
    if stem is None or last is None or stem.ndim != 4 or last.ndim != 2 or 0 in last.shape:
        raise ConversionError(
            "no 'conv1.weight' of four and 'fc.weight' of two dimensions are there, so this is no "
            f'IResNet with its embedding. There are: {names_listed(list(weights))}'
        )
    channels = 8 * len(stem)
    side = math.isqrt(last.shape[1] // channels) if channels else 0
    if input_size is None and (not side or side * side * channels != last.shape[1]):
        raise ConversionError(
            f"'fc.weight' takes {last.shape[1]} numbers, which are not {channels} (8 times the "
            f"stem's channels) for each cell of a square map: if the network was not built for "
            'square images, name its --input-size'
        )
    options = {
        'depth': depth,
        'num_features': last.shape[0],
        'input_size': side * 2**_HALVINGS if input_size is None else tuple(input_size),
    }
    return options if len(stem) == 64 else {**options, 'base_channels': len(stem)}


def checked_weights(weights: Mapping[str, Tensor], options: Mapping[str, Any]) -> StateDict:
    """Check the weights, and return them in the order and dtypes of an `mmdet_ext.IResNet`.

    Counters of batches may be absent, as in checkpoints of old versions of torch; they become 0.

    Args:
        weights: Weights of the network by name.
        options: Options of the `mmdet_ext.IResNet`.

    Raises:
        ConversionError: If names are missing or unexpected, shapes differ, or numbers are not
            finite.
    """
    with torch.device('meta'):  # shapes without memory or time
        wanted = IResNet(**options).state_dict()
    missing = [key for key in wanted if key not in weights and not key.endswith(_COUNTER)]
    unexpected = [key for key in weights if key not in wanted]
    shapes = [
        f'{key} {tuple(weights[key].shape)} for {tuple(value.shape)}'
        for key, value in wanted.items()
        if key in weights and weights[key].shape != value.shape
    ]
    problems = {'missing': missing, 'unexpected': unexpected, 'of another shape': shapes}
    found = [f'{len(keys)} {kind}: {names_listed(keys)}' for kind, keys in problems.items() if keys]
    if found:
        raise ConversionError(
            f'the weights are not those of an IResNet of depth {options["depth"]}; '
            + '; '.join(found)
        )
    result = {
        key: weights[key].to(value.dtype, copy=True)
        if key in weights
        else torch.zeros_like(value, device='cpu')
        for key, value in wanted.items()
    }
    check_finite(result)
    return result


def read_centres(paths: Sequence[Path], num_features: int) -> Tensor:
    """Read the class centres from the shares of all ranks, in the order of the ranks.

    Args:
        paths: One file per rank.
        num_features: Length of an embedding.

    Returns:
        The centres in float32, shape (num_classes, num_features).

    Raises:
        ConversionError: If a file holds no centres, or centres of another length.
    """
    shares = []
    for path in paths:
        content = load_from_local(str(path), 'cpu')
        for key in _CENTRE_KEYS:
            if isinstance(content, Mapping) and key in content:
                content = content[key]
        if not isinstance(content, Tensor):
            raise ConversionError(
                f'{path} holds {described(content)}, expected the class centres: a tensor, alone '
                f"or under 'weight' in 'state_dict_softmax_fc'"
            )
        if content.ndim != 2 or content.shape[1] != num_features:
            raise ConversionError(
                f'{path} has centres of shape {tuple(content.shape)}, expected '
                f"(classes, {num_features}), as long as the network's embedding"
            )
        shares.append(content.detach().float())
    centres = torch.cat(shares)
    check_finite({'the class centres': centres})
    return centres


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
