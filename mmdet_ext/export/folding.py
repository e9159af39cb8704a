"""Batch norms folded into the convolutions before them, and branches merged into one convolution.

What may be folded is seen in a run of the network, not inferred from the order in which its modules
are listed: a norm is folded where each of its inputs is the whole output of a convolution, and
nothing else reads that output.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_ext.export.onnx_file import ExportError

#: Largest difference of an output by folding, as a share of its largest number. Rounding in float32
#: was seen to reach 7e-5 (98 norms, random weights); a wrong pair of RTMDet's head makes 0.7.
TOLERANCE = 1e-3
#: What is named where the outputs differ by a fold.
_FOLDS = 'a norm or a convolution that is read unseen: folding'
#: Forward passes of which the statistics that a batch norm keeps are all that matters.
PLAIN_NORMS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)

Reason = Literal[
    'takes no part in the run',
    'takes its statistics from the batch',
    'has a forward pass of its own',
    'follows no plain convolution',
    'shares its convolution with other norms',
    'follows a convolution with other readers',
    'follows a transposed convolution in groups',
]


class FoldedNorm(nn.Identity):
    """Place of a batch norm that was folded away: returns its input, and refuses training."""

    def train(self, mode: bool = True) -> FoldedNorm:
        """Set evaluation mode.

        Raises:
            RuntimeError: if ``mode`` is true, as the norm that would be trained is gone.
        """
        if mode:
            raise RuntimeError(
                'this network has folded batch norms, and cannot be trained: train the one from '
                'which it was made'
            )
        super().train(False)
        return self


@dataclass(frozen=True)
class Folding:
    """Result of `fold_batch_norms` and of `fold_network`.

    Args:
        folded: names of the batch norms that are gone.
        kept: name of a batch norm that stays -> why.
        merged: names of the modules whose branches were merged.
        difference: largest difference of an output, as a share of its largest number.
    """

    folded: tuple[str, ...] = ()
    kept: Mapping[str, Reason] = field(default_factory=dict)
    merged: tuple[str, ...] = ()
    difference: float = 0.0

    def reasons(self) -> dict[Reason, int]:
        """Return the number of batch norms that stay, by reason, the most frequent first."""
        return dict(Counter(self.kept.values()).most_common())

    def text(self) -> str:
        """Return one line with all numbers, as the tool prints it and the file carries it."""
        why = ', '.join(f'{reason}: {count}' for reason, count in self.reasons().items())
        return (
            f'modules with merged branches: {len(self.merged)}; '
            f'batch norms folded: {len(self.folded)}, kept: {len(self.kept)}'
            f'{f" ({why})" if why else ""}; outputs differ by {self.difference:.1e} of the largest'
        )


def fold_network(network: nn.Module, *inputs: Tensor) -> Folding:
    """Merge branches by `reparameterise`, then fold norms by `fold_batch_norms`, in place.

    Args:
        network: in evaluation mode.
        *inputs: of its forward pass.

    Returns:
        Folding: what was done; its difference is that of both steps together.

    Raises:
        ExportError: see `reparameterise` and `fold_batch_norms`.
    """
    before = _outputs(network, inputs)
    merged = reparameterise(network, *inputs)
    found = fold_batch_norms(network, *inputs)
    worst = _compare(before, _outputs(network, inputs), _FOLDS)
    return Folding(found.folded, found.kept, merged, worst)


def reparameterise(network: nn.Module, *inputs: Tensor) -> tuple[str, ...]:
    r"""Switch every module that has a deploy form to it, in place.

    A block of RepVGG sums a 3 x 3 convolution, a 1 x 1 convolution and the input itself, each with
    a norm. In evaluation mode all are linear, and a single 3 x 3 convolution computes the same. The
    modules do it themselves, by their ``switch_to_deploy()`` (mmpretrain's RepVGG, MobileOne,
    RepMLP, RepLKNet, LeViT). It is called on the outermost that has it, which switches those
    within. One that needs arguments (some of MMPose's) is not called, but those within it are.
    Afterwards the network is run again, and has to return the same numbers: mmpretrain's RepVGG
    with ``se_cfg`` loses its squeeze and excitation, and is refused.

    The result is for inference: it could be trained, but without norms and branches it would not
    train as before.

    Args:
        network: in evaluation mode.
        *inputs: of its forward pass, numbers that vary.

    Returns:
        tuple: names of the modules whose ``switch_to_deploy`` was called.

    Raises:
        ExportError: if the network is in training mode, a module refuses (RepVGG and MobileOne do
            with another norm than ``BN``), or an output differs by more than `TOLERANCE` of its
            largest number. The network is not to be used then.

    References:
        RepVGG: Making VGG-style ConvNets Great Again (https://arxiv.org/abs/2101.03697), figure 4.
    """
    _check_mode(network)
    merged = tuple(_outermost(network, ''))
    if not merged:
        return ()
    before = _outputs(network, inputs)
    for name in merged:
        try:
            network.get_submodule(name).switch_to_deploy()  # type: ignore[operator]
        except AssertionError as error:
            raise ExportError(f'the branches of {name or "the network"} stay: {error}') from error
    network.eval()  # modules made by the switch are in training mode
    _compare(before, _outputs(network, inputs), f'the deploy form of {", ".join(merged)}')
    return merged


def fold_batch_norms(network: nn.Module, *inputs: Tensor) -> Folding:
    r"""Fold every batch norm into the convolution before it, in place, where that is exact.

    With ``w`` and ``b`` of the convolution, and mean ``m``, variance ``v``, ``eps``, gain ``g`` and
    offset ``o`` of the norm, per output channel:

    .. math:: w' = w \frac{g}{\sqrt{v + eps}}, \quad b' = (b - m) \frac{g}{\sqrt{v + eps}} + o

    computed in float64. Pairs are found in one run of the network on ``inputs``. A norm is folded
    if each of its calls gets the whole output of a convolution that computes with its own
    ``weight``, and if nothing but this norm reads any output of that convolution. So heads whose
    convolution and norm serve several levels are folded; a convolution with one norm per level
    (RTMDet's), a norm before its convolution, and a convolution with a standardised weight are not.
    Groups, ``bias``, missing gain and offset, ``SyncBN`` and frozen norms change nothing.

    The run has to take the path that later runs take. Afterwards the network is run again: the
    numbers are the proof.

    The folded network is for inference alone. Its ``train()`` raises a RuntimeError.

    Args:
        network: in evaluation mode.
        *inputs: of its forward pass, such as images (B, 3, H, W). Numbers that vary, as zeros would
            prove little.

    Returns:
        Folding: names of the folded norms, the others with reasons, and the difference.

    Raises:
        ExportError: if the network is in training mode, or an output differs afterwards by more
            than `TOLERANCE` of its largest number. The network is not to be used then.
    """
    _check_mode(network)
    watch = _Watch(network)
    before = watch.run(network, inputs)
    names = {module: name for name, module in network.named_modules()}
    kept: dict[str, Reason] = {}
    folded: list[_BatchNorm] = []
    for norm in [each for each in names if isinstance(each, _BatchNorm)]:
        reason = watch.reason(norm)
        if reason:
            kept[names[norm]] = reason
        else:
            folded.append(norm)
    for norm in folded:
        for conv in watch.sources[norm]:
            assert conv is not None
            _fold(conv, norm)
    _replace(network, folded)
    worst = _compare(before, _outputs(network, inputs), _FOLDS) if folded else 0.0
    return Folding(tuple(names[norm] for norm in folded), kept, difference=worst)


class _Watch(TorchDispatchMode):
    """Record of a run: which convolution made the input of each norm, and who read its output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.owners: dict[int, list[_ConvNd]] = {}
        self.norms: list[_BatchNorm] = []
        for module in network.modules():
            if isinstance(module, _ConvNd):
                self.owners.setdefault(id(module.weight), []).append(module)
            elif isinstance(module, _BatchNorm):
                self.norms.append(module)
        #: Convolution that made a tensor, by its id: `alive` keeps ids from being used again.
        self.made: dict[int, _ConvNd] = {}
        self.alive: list[Tensor] = []
        #: Norms that read outputs of a convolution; None for all other readers.
        self.readers: dict[_ConvNd, set[_BatchNorm | None]] = {}
        #: Convolutions that made the inputs of a norm; None for anything else.
        self.sources: dict[_BatchNorm, set[_ConvNd | None]] = {}
        self.within: _BatchNorm | None = None

    def run(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """Run the network, and return its outputs."""
        with ExitStack() as hooks:
            for norm in self.norms:
                hooks.callback(norm.register_forward_pre_hook(self._enter).remove)
                hooks.callback(norm.register_forward_hook(self._leave).remove)
            with torch.no_grad(), self:
                results = network(*inputs)
        found = list(_tensors(results))
        for each in found:
            self._note(each, None)
        return [each.clone() for each in found]

    def reason(self, norm: _BatchNorm) -> Reason | None:
        """Return why a norm cannot be folded, or None."""
        if norm not in self.sources:
            return 'takes no part in the run'
        if type(norm).forward not in PLAIN_NORMS:
            return 'has a forward pass of its own'
        if norm.training or norm.running_mean is None or norm.running_var is None:
            return 'takes its statistics from the batch'
        for conv in self.sources[norm]:
            if conv is None:
                return 'follows no plain convolution'
            if None in self.readers[conv]:
                return 'follows a convolution with other readers'
            if self.readers[conv] != {norm}:
                return 'shares its convolution with other norms'
            if conv.transposed and conv.groups > 1:
                return 'follows a transposed convolution in groups'
        return None

    def _enter(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        self.within = norm
        self.sources.setdefault(norm, set()).add(self.made.get(id(inputs[0])))

    def _leave(self, norm: nn.Module, inputs: Any, output: Tensor) -> None:
        self.within = None

    def _note(self, tensor: Tensor, reader: _BatchNorm | None) -> None:
        conv = self.made.get(id(tensor))
        if conv is not None:
            self.readers.setdefault(conv, set()).add(reader)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note the readers of each tensor, run the operator, and note what a convolution made."""
        is_conv = func is torch.ops.aten.convolution.default
        for place, each in enumerate(args):
            for tensor in _tensors(each):
                self._note(tensor, self.within)
                if not (is_conv and place in (1, 2)):
                    for conv in self.owners.get(id(tensor), ()):  # a weight that is read otherwise
                        self.readers.setdefault(conv, set()).add(None)
        for tensor in _tensors(kwargs):
            self._note(tensor, None)
        result = func(*args, **(kwargs or {}))
        if is_conv:
            owners = self.owners.get(id(args[1]), [])
            if len(owners) == 1 and args[2] is owners[0].bias:
                self.made[id(result)] = owners[0]
                self.alive.append(result)
            elif owners:
                for conv in owners:
                    self.readers.setdefault(conv, set()).add(None)
        return result


def _fold(conv: _ConvNd, norm: _BatchNorm) -> None:
    """Give a convolution the weight and the bias that compute the norm too."""
    assert norm.running_mean is not None and norm.running_var is not None

    def double(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.detach().double()

    weight, bias = fuse_conv_bn_weights(
        conv.weight.detach().double(),
        double(conv.bias),  # type: ignore[arg-type]
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        double(norm.weight),  # type: ignore[arg-type]
        double(norm.bias),  # type: ignore[arg-type]
        conv.transposed,
    )
    kind, learns = conv.weight.dtype, conv.weight.requires_grad
    conv.weight = nn.Parameter(weight.detach().to(kind), requires_grad=learns)
    conv.bias = nn.Parameter(bias.detach().to(kind), requires_grad=learns)


def _replace(network: nn.Module, norms: Iterable[_BatchNorm]) -> None:
    """Put a `FoldedNorm` wherever one of the norms is registered."""
    gone = set(norms)
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child in gone:
                parent._modules[name] = FoldedNorm().eval()


def _outermost(module: nn.Module, name: str) -> Iterator[str]:
    """Yield the names of the outermost modules with a ``switch_to_deploy`` of no argument."""
    switch = getattr(module, 'switch_to_deploy', None)
    if callable(switch) and not getattr(module, 'deploy', False):
        needed = [
            each
            for each in inspect.signature(switch).parameters.values()
            if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
        ]
        if not needed:
            yield name
            return
    for child, part in module.named_children():
        yield from _outermost(part, f'{name}.{child}' if name else child)


def _check_mode(network: nn.Module) -> None:
    if network.training:
        raise ExportError('the network is in training mode: call its eval() before it is folded')


@torch.no_grad()
def _outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [each.clone() for each in _tensors(network(*inputs))]


def _compare(before: list[Tensor], after: list[Tensor], what: str) -> float:
    """Return the largest difference, as a share of the largest number of the output.

    Raises:
        ExportError: if it is above `TOLERANCE`, or a number has become NaN.
    """
    shares = [0.0]
    for old, new in zip(before, after, strict=True):
        if old.numel() and old.is_floating_point():
            largest = old.double().abs().max().clamp(min=torch.finfo(old.dtype).tiny)
            shares.append(float((new.double() - old.double()).abs().max() / largest))
    worst = max(shares)
    if not all(share <= TOLERANCE for share in shares):
        raise ExportError(
            f'{what} changes the outputs by {worst:.1e} of the largest number, more than '
            f'{TOLERANCE:g}. Export the network as it is'
        )
    return worst


def noise_like(example: Tensor) -> Tensor:
    """Return numbers of the normal distribution in the shape of an example, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(example.shape, generator=generator).to(example)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
