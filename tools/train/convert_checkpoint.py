"""Bring the weights of other projects to the names of this one.

    python tools/train/convert_checkpoint.py insightface backbone.pth iresnet50.pth
    python tools/train/convert_checkpoint.py insightface checkpoint_gpu_0.pt iresnet50.pth \\
        --centres checkpoint_gpu_0.pt checkpoint_gpu_1.pt

What comes out is a checkpoint as MMEngine writes them: `load_from=FILE`, `mim test CONFIG
--checkpoint FILE`, or `init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix='backbone.')` of
the backbone read it. Every key and shape is checked before anything is written.

InsightFace feeds its networks RGB as (x - 127.5) / 127.5: with its weights, the config must say
`data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', std=127.5)`.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.face.backbones.common import image_size
from mmdet_ext.face.backbones.iresnet import STAGE_BLOCKS, IResNet
from mmdet_ext.utils.files import whole_file
from mmdet_ext.version import __version__

StateDict = dict[str, Tensor]

#: Under which a training state keeps the weights of the network.
_NETWORK_KEYS = ('state_dict_backbone', 'state_dict', 'model', 'backbone')
#: Under which one keeps the class centres. A plain tensor is them itself.
_CENTRE_KEYS = ('state_dict_softmax_fc', 'weight')
#: What distributed training and whole models put before the names.
_WRAPPERS = ('module.', '_orig_mod.', 'backbone.')
_COUNTER = '.num_batches_tracked'
_HALVINGS = 4
_SHOWN = 6


class ConversionError(ValueError):
    """A file that cannot be converted."""


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        args.run(args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def convert_insightface(args: argparse.Namespace) -> None:
    """Convert an IResNet of InsightFace's arcface_torch, and the class centres if they are given.

    Raises:
        ConversionError: if a file does not hold what it should.
    """
    sources = {args.source.resolve(), *(path.resolve() for path in args.centres)}
    if args.out.resolve() in sources:
        raise ConversionError(f'{args.out} would be written over what is read: name another file')
    weights = read_weights(args.source)
    depth = find_depth(weights) if args.depth == 'auto' else int(args.depth)
    options = iresnet_options(weights, depth, args.input_size)
    weights = checked_weights(weights, options)
    state = {f'{args.prefix}{key}': value for key, value in weights.items()}
    meta: dict[str, Any] = {
        'source': 'insightface',
        'source_file': args.source.name,
        'source_sha256': _sha256(args.source),
        'backbone': {'type': 'mmdet_ext.IResNet', **options},
        'mean': 127.5,
        'std': 127.5,
        'to_rgb': True,
        'mmdet_ext_version': __version__,
    }
    if args.centres:
        state['head.weight'] = read_centres(args.centres, options['num_features'])
        meta['num_classes'] = len(state['head.weight'])
    with whole_file(args.out) as part:
        torch.save({'meta': meta, 'state_dict': state}, part)
    print(summary(args, options, state))


def read_weights(path: Path) -> StateDict:
    """The network's weights in a file, by their names without wrappers such as 'module.'.

    Raises:
        ConversionError: if there are none, or two have one name once the wrappers are off.
    """
    content = load_from_local(str(path), 'cpu')
    for key in _NETWORK_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ConversionError(
            f'{path} holds {_described(content)}, expected a state dict: names with tensors'
        )
    odd = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise ConversionError(
            f'{path} holds {_described(content)}, of which these are no tensors: {_listed(odd)}. '
            f'Expected a state dict, alone or as one of {", ".join(_NETWORK_KEYS)}'
        )
    names = Counter(_bare(str(key)) for key in content)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        raise ConversionError(
            f'{path} has several weights of one name once {", ".join(_WRAPPERS)} are taken off: '
            f'{_listed(repeated)}'
        )
    return {_bare(str(key)): value.detach() for key, value in content.items()}


def find_depth(weights: Mapping[str, Tensor]) -> int:
    """The depth of an IResNet, from the number of blocks in its stages.

    Raises:
        ConversionError: if no depth has these numbers.
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
            f'{_listed(list(weights))}'
        )
    known = ', '.join(f'{depth}: {list(numbers)}' for depth, numbers in STAGE_BLOCKS.items())
    raise ConversionError(f'stages of {blocks} blocks are of no known depth. Known are {known}')


def iresnet_options(
    weights: Mapping[str, Tensor], depth: int, input_size: Sequence[int] | None = None
) -> dict[str, Any]:
    """Options of the `mmdet_ext.IResNet` that the weights are of, as far as shapes tell them.

    Args:
        weights: of the network.
        depth: of it.
        input_size: height and width of its pictures, px; by default the largest square that makes
            as many cells as the last layer has.

    Raises:
        ConversionError: if the shapes of stem and last layer are of no IResNet.
    """
    stem, last = weights.get('conv1.weight'), weights.get('fc.weight')
    if stem is None or last is None or stem.ndim != 4 or last.ndim != 2 or 0 in last.shape:
        raise ConversionError(
            "no 'conv1.weight' of four and 'fc.weight' of two dimensions are there, so this is no "
            f'IResNet with its embedding. There are: {_listed(list(weights))}'
        )
    channels = 8 * len(stem)
    side = math.isqrt(last.shape[1] // channels) if channels else 0
    if input_size is None and (not side or side * side * channels != last.shape[1]):
        raise ConversionError(
            f"'fc.weight' takes {last.shape[1]} numbers, which are not {channels} (8 times the "
            f"stem's channels) for each cell of a square map: if the network was not built for "
            'square pictures, name its --input-size'
        )
    options = {
        'depth': depth,
        'num_features': last.shape[0],
        'input_size': side * 2**_HALVINGS if input_size is None else tuple(input_size),
    }
    return options if len(stem) == 64 else {**options, 'base_channels': len(stem)}


def checked_weights(weights: Mapping[str, Tensor], options: Mapping[str, Any]) -> StateDict:
    """The weights in the order and number format of an `mmdet_ext.IResNet`.

    Counters of batches, which old versions of torch did not write, are 0 where they lack.

    Raises:
        ConversionError: if names lack or are too many, shapes differ, or numbers are not finite.
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
    found = [f'{len(keys)} {what}: {_listed(keys)}' for what, keys in problems.items() if keys]
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
    _check_finite(result)
    return result


def read_centres(paths: Sequence[Path], num_features: int) -> Tensor:
    """Class centres, (num_classes, num_features), from the shares of all ranks in their order.

    Raises:
        ConversionError: if a file holds no centres, or those of another length.
    """
    shares = []
    for path in paths:
        content = load_from_local(str(path), 'cpu')
        for key in _CENTRE_KEYS:
            if isinstance(content, Mapping) and key in content:
                content = content[key]
        if not isinstance(content, Tensor):
            raise ConversionError(
                f'{path} holds {_described(content)}, expected the class centres: a tensor, alone '
                f"or under 'weight' in 'state_dict_softmax_fc'"
            )
        if content.ndim != 2 or content.shape[1] != num_features:
            raise ConversionError(
                f'{path} has centres of shape {tuple(content.shape)}, expected '
                f"(classes, {num_features}), as long as the network's embedding"
            )
        shares.append(content.detach().float())
    centres = torch.cat(shares)
    _check_finite({'the class centres': centres})
    return centres


def summary(args: argparse.Namespace, options: Mapping[str, Any], state: StateDict) -> str:
    """What was written and how a config uses it."""
    height, width = image_size(options['input_size'])
    count = sum(
        value.numel()
        for key, value in state.items()
        if key.startswith(args.prefix) and not re.search(r'\.(running_\w+|num_batches_\w+)$', key)
    )
    lines = [
        f'IResNet-{options["depth"]}: {count:,} parameters, {options["num_features"]} numbers an '
        f'embedding, pictures of {height} x {width} px (height x width)',
    ]
    if 'head.weight' in state:
        lines.append(f'class centres: {len(state["head.weight"]):,}')
    written = ', '.join(f'{key}={value!r}' for key, value in options.items())
    lines += [
        f'{args.out}',
        '',
        'In a config:',
        "    data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', std=127.5),",
        f"    backbone=dict(type='mmdet_ext.IResNet', {written}),",
    ]
    return '\n'.join(lines)


def _bare(key: str) -> str:
    """A name without what wraps it.

    >>> _bare('module.backbone.bn1.weight'), _bare('layer1.0.bn1.weight')
    ('bn1.weight', 'layer1.0.bn1.weight')
    """
    for wrapper in _WRAPPERS * 2:
        key = key.removeprefix(wrapper)
    return key


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    bad = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if bad:
        raise ConversionError(f'numbers that are not finite in {_listed(bad)}')


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        return f'{len(content)} entries ({_listed(list(content))})'
    return f'a {type(content).__name__}'


def _listed(names: Sequence[Any]) -> str:
    shown = ', '.join(map(str, names[:_SHOWN]))
    return f'{shown}, and {len(names) - _SHOWN} more' if len(names) > _SHOWN else shown or 'none'


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sources = parser.add_subparsers(required=True, metavar='SOURCE')
    insightface = sources.add_parser(
        'insightface', help="IResNet-18, -34, -50 or -100 of InsightFace's arcface_torch"
    )
    insightface.add_argument(
        'source',
        type=Path,
        metavar='IN.pth',
        help='state dict of the network, or a training state that holds it',
    )
    insightface.add_argument('out', type=Path, metavar='OUT.pth', help='where the checkpoint goes')
    insightface.add_argument(
        '--depth',
        default='auto',
        choices=['auto', *map(str, STAGE_BLOCKS)],
        help='of the network (default: told from the names)',
    )
    insightface.add_argument(
        '--input-size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='of its pictures, px (default: the largest square that fits)',
    )
    insightface.add_argument(
        '--prefix',
        default='backbone.',
        metavar='TEXT',
        help='before each name (default: %(default)s, as in an ImageClassifier)',
    )
    insightface.add_argument(
        '--centres',
        nargs='+',
        type=Path,
        default=[],
        metavar='FILE',
        help='class centres, as head.weight: the files of all ranks, in the order of the ranks',
    )
    insightface.set_defaults(run=convert_insightface)
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
