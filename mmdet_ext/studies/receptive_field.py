"""Receptive fields of the layers of a network, by formula and by gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mmdet_ext.studies.pixel_field import Field

#: Height of the images on which fields are measured. Fields are square, so that one axis suffices.
_HEIGHT = 64
_MOST_WIDTH = 2048
_WIDTH_STEP = 128


@dataclass(frozen=True)
class Layer:
    """Convolution or pooling of a network.

    Attributes:
        name: Name of the module.
        map_size: Height and width of its map for the image that was asked for.
        field: Receptive field of its centre unit by the formula in px; None behind an
            interpolation, other than by the nearest unit and a whole factor, and infinite behind a
            pooling over the whole map.
        measured: Extent of the gradient of its centre unit in px, infinite for a whole image.
        agrees: Whether the formula gives the very pixels that have a gradient; None without one.
    """

    name: str
    map_size: tuple[int, int]
    field: float | None
    measured: float
    agrees: bool | None


class _Trace(TorchFunctionMode):
    """Mode in which a network is linear and positive, and each map knows its field.

    Weights are replaced by equal positive numbers, norms are left out, and the maximum of a window
    is replaced by its mean: otherwise a pixel that matters could have a gradient of 0 by chance.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fields: dict[int, Field | None] = {}
        self._alive: list[Tensor] = []

    def note(self, tensor: Tensor, field: Field | None) -> None:
        """Store the field of a map, which stays alive so that its identity is its own."""
        self._alive.append(tensor)
        self._fields[id(tensor)] = field

    def field_of(self, tensor: Tensor) -> Field | None:
        """Return the field of a map, None where the formula gives none."""
        return self._fields[id(tensor)]

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        maps = [item for item in _tensors([*args, *kwargs.values()]) if id(item) in self._fields]
        if not maps:
            return func(*args, **kwargs)
        change = _CHANGES.get(func)
        known = [self._fields[id(item)] for item in maps]
        field = None if None in known else known[0]
        for other in known[1:]:
            # Maps that were reshaped have no common units, and no formula.
            apart = field and other and not field.meets(other)
            field = None if apart else field and other and field.joined(other)
        if change is None:
            result = func(*args, **kwargs)
        else:
            result, field = change(field, *args, **kwargs)
        for item in _tensors([result]):
            self.note(item, field)
        return result


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _last(value: Any) -> int:
    """Return the number for the width of an option that may be a pair."""
    return int(value[-1] if isinstance(value, (list, tuple)) else value)


def _conv(
    field: Field | None,
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor, Field | None]:
    even = torch.full_like(weight, 1 / weight[0].numel())
    result = torch.conv2d(x, even, None, stride, padding, dilation, groups)
    numbers = (_last(option) for option in (stride, padding, dilation))
    return result, field and field.window(weight.shape[-1], *numbers)


def _max_pool(
    field: Field | None,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    **_: Any,
) -> tuple[Tensor, Field | None]:
    stride = stride or kernel_size
    if _last(dilation) != 1:
        raise ValueError(f'dilation of a max pooling is {dilation}; only 1 is supported')
    result = functional.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)
    return result, field and field.window(_last(kernel_size), _last(stride), _last(padding))


def _avg_pool(
    field: Field | None, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, **_: Any
) -> tuple[Tensor, Field | None]:
    return _max_pool(field, x, kernel_size, stride, padding)


def _pad(
    field: Field | None, x: Tensor, pad: Sequence[int], *args: Any, **kwargs: Any
) -> tuple[Tensor, Field | None]:
    moved = field and field.window(1, 1, padding=pad[0])
    return functional.pad(x, pad, *args, **kwargs), moved


def _take(field: Field | None, x: Tensor, index: Any) -> tuple[Tensor, Field | None]:
    # Only an index whose last part stands for the width moves the columns: x[..., ::2].
    full = isinstance(index, tuple) and (len(index) == x.ndim or index[0] is Ellipsis)
    column = index[-1] if full else None
    result = x[index]
    if not isinstance(column, slice) or field is None:
        return result, field
    begin, _, step = column.indices(x.shape[-1])
    return result, field.window(1, step, padding=-begin)


def _whole(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Field | None]]:
    def run(field: Field | None, *args: Any, **kwargs: Any) -> tuple[Tensor, Field | None]:
        return function(*args, **kwargs), field and Field(whole=True)

    return run


def _interpolate(field: Field | None, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    result = functional.interpolate(x, *args, **kwargs)
    factor, rest = divmod(result.shape[-1], x.shape[-1])
    mode = kwargs.get('mode', args[2] if len(args) > 2 else 'nearest')
    if not field or rest or not mode.startswith('nearest'):
        return result, None
    return result, field.upsampled(factor)


def _conv_transpose(
    field: Field | None,
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> tuple[Tensor, Field | None]:
    even = torch.full_like(weight, 1 / weight[0].numel())
    options = (stride, padding, output_padding, groups, dilation)
    result = torch.conv_transpose2d(x, even, None, *options)
    kernel, step = weight.shape[-1], _last(stride)
    if not field or kernel < step or _last(dilation) != 1:
        return result, None
    return result, field.transposed(kernel, step, _last(padding))


def _unshuffle(field: Field | None, x: Tensor, factor: int) -> tuple[Tensor, Field | None]:
    return functional.pixel_unshuffle(x, factor), field and field.window(factor, factor)


def _identity(field: Field | None, x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Field | None]:
    return x, field


_CHANGES: dict[Any, Callable[..., tuple[Tensor, Field | None]]] = {
    torch.conv2d: _conv,
    functional.conv2d: _conv,
    torch.max_pool2d: _max_pool,
    functional.max_pool2d: _max_pool,
    functional.avg_pool2d: _avg_pool,
    functional.batch_norm: _identity,
    functional.pixel_unshuffle: _unshuffle,
    functional.pad: _pad,
    Tensor.__getitem__: _take,
    functional.adaptive_avg_pool2d: _whole(functional.adaptive_avg_pool2d),
    torch.mean: _whole(torch.mean),
    Tensor.mean: _whole(Tensor.mean),
    functional.interpolate: _interpolate,
    torch.conv_transpose2d: _conv_transpose,
    functional.conv_transpose2d: _conv_transpose,
}


def layer_fields(network: nn.Module, size: tuple[int, int]) -> list[Layer]:
    """Compute the size of the map and the receptive field of each convolution and pooling.

    The field is computed twice: by the formula, carried along with the maps and joined where
    branches meet, and by the gradient of one unit by the pixels, on an image wider than all
    fields. For this the network is made linear with equal positive weights, and maxima become
    means, so that each pixel that can matter has a gradient; the weights are not changed.

    Args:
        network: Network from images (1, 3, H, W) to maps, such as a backbone of a detector.
        size: Height and width of the image for the sizes of the maps, px.

    Returns:
        list[Layer]: the layers in the order of their calls.

    Raises:
        ValueError: If the network has no convolution.
    """
    # A copy: the outermost pixels have the product of all weights, which single precision loses.
    network = copy.deepcopy(network).double()
    network.eval()
    maps = [(out.shape[-2], out.shape[-1]) for _, out in _run(network, *size)[2]]
    if not maps:
        raise ValueError('network has no convolution; give one that has, such as a backbone')
    trace, _, outputs = _run(network, _HEIGHT, _WIDTH_STEP)
    fields = [trace.field_of(out) for _, out in outputs]
    needed = max((f.size + 2 * f.shift for f in fields if f and not f.whole), default=0)
    # Where the formula gives no bound.
    needed = needed * 4 if None in fields else needed
    width = min(_MOST_WIDTH, _WIDTH_STEP * math.ceil((needed + 1) / _WIDTH_STEP))
    trace, image, outputs = _run(network, _HEIGHT, width)
    layers = []
    for map_size, (name, out) in zip(maps, outputs, strict=True):
        # One unit for a whole image has no place in it: a branch of weights per channel.
        if out.shape[-2:] == (1, 1):
            continue
        field, seen = trace.field_of(out), _seen(image, out)
        expected = field and field.pixels(out.shape[-1] // 2, width)
        agrees = None if expected is None else expected == seen
        measured = math.inf if seen == (0, width - 1) else seen[1] - seen[0] + 1
        size_by_formula = None if field is None else field.width(out.shape[-1] // 2)
        layers.append(Layer(name, map_size, size_by_formula, measured, agrees))
    return layers


def _run(
    network: nn.Module, height: int, width: int
) -> tuple[_Trace, Tensor, list[tuple[str, Tensor]]]:
    """Run the network, made linear, on an image of ones; return the maps of its layers."""
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    outputs: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_hook(
            lambda _module, _args, out, name=name: outputs.append((name, out))
        )
        for name, module in network.named_modules()
        if isinstance(module, kinds)
    ]
    image = torch.ones(1, 3, height, width, dtype=torch.float64, requires_grad=True)
    trace = _Trace()
    trace.note(image, Field())
    try:
        with trace:
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return trace, image, outputs


def _seen(image: Tensor, out: Tensor) -> tuple[int, int]:
    """Return the first and the last column that the centre unit of a map depends on."""
    unit = out[..., out.shape[-2] // 2, out.shape[-1] // 2].sum()
    (slope,) = torch.autograd.grad(unit, image, retain_graph=True)
    columns = slope[0].abs().sum(dim=(0, 1)).nonzero()
    return int(columns[0]), int(columns[-1])
