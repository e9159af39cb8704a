"""Files of weights of Darknet: numbers without names, in the order of the network's layers.

A file holds:

1. Three integers of 32 bits: major, minor and revision.
2. The number of images seen in training: an integer of 64 bits from version 0.2 on, else of 32.
3. For each convolution, numbers of 32 bits: with a batch norm its bias, gain, mean and variance;
   without one the bias of the convolution. Then the weights, (out, in, height, width).

The first number that does not fit its layer moves all that follow, and nothing in the file says so.
Therefore a file is read only if its length is that of the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_ext.compat.weights import ConversionError
from mmdet_ext.utils.files import whole_file

#: A convolution, and the batch norm behind it; None where there is none.
DarknetLayer = tuple[nn.Conv2d, nn.BatchNorm2d | None]

#: Bytes of a number.
_NUMBER = 4
#: Version that is written: the first whose count of images has 64 bits.
_VERSION = (0, 2, 0)


def load_darknet(path: Path, layers: Sequence[DarknetLayer]) -> int:
    """Read a file of weights into layers.

    Args:
        path: The file.
        layers: Convolutions with their batch norms, in the order of Darknet's layers.

    Returns:
        The number of images seen in training.

    Raises:
        ConversionError: If the file has another length than the layers; nothing is read then.
        OSError: If it cannot be read.
    """
    content = Path(path).read_bytes()
    header, seen = _header(path, content)
    tensors = [tensor for layer in layers for tensor in _tensors(layer)]
    wanted = sum(tensor.numel() for tensor in tensors)
    found, rest = divmod(len(content) - header, _NUMBER)
    if found != wanted or rest:
        raise ConversionError(
            f'{path} holds {found} numbers' + (f' and {rest} bytes' if rest else '') + f' behind '
            f'its header of {header} bytes, but the {len(layers)} convolutions have {wanted}. '
            'Give the file of the same network with the same number of classes: a last '
            'convolution of YOLO has 3 x (5 + classes) channels'
        )
    numbers = torch.from_numpy(np.frombuffer(content, '<f4', offset=header).copy())
    if not bool(numbers.isfinite().all()):
        raise ConversionError(f'{path} holds numbers that are not finite: it is damaged')
    start = 0
    with torch.no_grad():
        for tensor in tensors:
            stop = start + tensor.numel()
            tensor.copy_(numbers[start:stop].view_as(tensor))
            start = stop
    return seen


def save_darknet(path: Path, layers: Sequence[DarknetLayer], seen: int = 0) -> None:
    """Write the weights of layers as a file of Darknet.

    Args:
        path: The file.
        layers: Convolutions with their batch norms, in the order of Darknet's layers.
        seen: Number of images seen in training.
    """
    with whole_file(Path(path)) as part, part.open('wb') as file:
        file.write(np.array(_VERSION, '<i4').tobytes())
        file.write(np.array([seen], '<u8').tobytes())
        for layer in layers:
            for tensor in _tensors(layer):
                file.write(tensor.detach().cpu().numpy().astype('<f4').tobytes())


def darknet_layers(network: nn.Module) -> list[DarknetLayer]:
    """List the convolutions of a network in the order of their registration.

    Args:
        network: Network whose batch norms are registered next to their convolutions, as in mmcv's
            ``ConvModule``, which registers the convolution first.

    Returns:
        Each convolution with the batch norm of the same parent, or None.
    """
    found: list[DarknetLayer] = []
    for parent in network.modules():
        parts = [part for part in parent.children() if isinstance(part, nn.Conv2d)]
        norms = [part for part in parent.children() if isinstance(part, nn.BatchNorm2d)]
        if len(parts) == 1 and len(norms) == 1:
            found.append((parts[0], norms[0]))
        else:
            found += [(part, None) for part in parts]
    if not found and isinstance(network, nn.Conv2d):
        return [(network, None)]
    return found


def _header(path: Path, content: bytes) -> tuple[int, int]:
    """Return the length of the header in bytes, and the number of images seen."""
    if len(content) < 20:
        raise ConversionError(f'{path} has {len(content)} bytes, less than a header of 20')
    major, minor, _ = (int(each) for each in np.frombuffer(content, '<i4', 3))
    long = major * 10 + minor >= 2 and major < 1000 and minor < 1000
    seen = np.frombuffer(content, '<u8' if long else '<u4', 1, offset=12)
    return (20 if long else 16), int(seen[0])


def _tensors(layer: DarknetLayer) -> list[Tensor]:
    """Return the tensors of a layer in the order of the file.

    Raises:
        ConversionError: If a convolution has neither a bias nor a batch norm, or both.
    """
    conv, norm = layer
    if (conv.bias is None) == (norm is None):
        raise ConversionError(
            f'{conv} has {"neither a bias nor" if norm is None else "both a bias and"} a batch '
            'norm; in Darknet each convolution has one of the two'
        )
    if norm is None:
        assert conv.bias is not None
        return [conv.bias, conv.weight]
    if norm.running_mean is None or norm.running_var is None:
        raise ConversionError(f'{norm} has no running statistics, which the file holds')
    return [norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.weight]
