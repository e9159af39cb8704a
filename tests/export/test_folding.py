"""Batch norms folded into convolutions: which are, which stay and why, and what stays equal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvWS2d, fuse_conv_bn
from torch import Tensor, nn

from mmdet_ext.export.folding import (
    Folding,
    fold_batch_norms,
    fold_network,
    noise_like,
    reparameterise,
)
from mmdet_ext.export.onnx_file import ExportError

Run = Callable[[Any, Tensor], Any]


class Net(nn.Module):
    """Network of given parts and of a given way through them."""

    def __init__(self, run: Run, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.way = run

    def forward(self, images: Tensor) -> Any:
        return self.way(self, images)


class Doubling(nn.BatchNorm2d):
    """Norm with a forward pass of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def conv(channels: int = 4, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, channels, 3, padding=1, **options)


def chain(net: Any, x: Tensor) -> Tensor:
    return net.norm(net.conv(x)).relu()


def levels(net: Any, x: Tensor) -> list[Tensor]:
    return [chain(net, x), chain(net, x[..., ::2, ::2])]


def of_two(net: Any, x: Tensor) -> Tensor:
    return net.norm(net.conv(x)) + net.norm(net.conv2(x))


FOLDED: dict[str, tuple[Run, dict[str, nn.Module]]] = {
    'plain': (chain, dict(conv=conv(bias=False), norm=nn.BatchNorm2d(4))),
    'bias': (chain, dict(conv=conv(), norm=nn.BatchNorm2d(4))),
    'groups': (chain, dict(conv=conv(8, groups=2), norm=nn.BatchNorm2d(8))),
    'depthwise': (chain, dict(conv=conv(8, groups=4), norm=nn.BatchNorm2d(8))),
    'no gain and offset': (chain, dict(conv=conv(), norm=nn.BatchNorm2d(4, affine=False))),
    'SyncBN': (chain, dict(conv=conv(), norm=nn.SyncBatchNorm(4))),
    'frozen': (chain, dict(conv=conv(), norm=nn.BatchNorm2d(4).requires_grad_(False))),
    'reflected border': (
        chain,
        dict(conv=conv(padding_mode='reflect'), norm=nn.BatchNorm2d(4)),
    ),
    'transposed': (chain, dict(conv=nn.ConvTranspose2d(4, 6, 2, 2), norm=nn.BatchNorm2d(6))),
    'dropout between': (
        lambda net, x: net.norm(net.dropout(net.conv(x))),
        dict(conv=conv(), dropout=nn.Dropout(), norm=nn.BatchNorm2d(4)),
    ),
    'both for two levels': (levels, dict(conv=conv(), norm=nn.BatchNorm2d(4))),
    'norm of two convolutions': (of_two, dict(conv=conv(), conv2=conv(), norm=nn.BatchNorm2d(4))),
    'listed in another order': (chain, dict(norm=nn.BatchNorm2d(4), conv=conv())),
}

KEPT: dict[str, tuple[Run, dict[str, nn.Module], str]] = {
    'before its convolution': (
        lambda net, x: net.conv(net.norm(x)),
        dict(conv=conv(), norm=nn.BatchNorm2d(4)),
        'follows no plain convolution',
    ),
    'not called': (
        lambda net, x: net.conv(x),
        dict(conv=conv(), norm=nn.BatchNorm2d(4)),
        'takes no part in the run',
    ),
    'standardised weight': (
        chain,
        dict(conv=ConvWS2d(4, 4, 3), norm=nn.BatchNorm2d(4)),
        'follows no plain convolution',
    ),
    'activation between': (
        lambda net, x: net.norm(net.conv(x).relu()),
        dict(conv=conv(), norm=nn.BatchNorm2d(4)),
        'follows no plain convolution',
    ),
    'activation in place between': (
        lambda net, x: net.norm(net.conv(x).relu_()),
        dict(conv=conv(), norm=nn.BatchNorm2d(4)),
        'follows a convolution with other readers',
    ),
    'shortcut before the norm': (
        lambda net, x: (y := net.conv(x)) + net.norm(y),
        dict(conv=conv(), norm=nn.BatchNorm2d(4)),
        'follows a convolution with other readers',
    ),
    'map returned too': (
        lambda net, x: dict(maps=[y := net.conv(x)], normed=net.norm(y)),
        dict(conv=conv(), norm=nn.BatchNorm2d(4)),
        'follows a convolution with other readers',
    ),
    'one call without the norm': (
        lambda net, x: [net.norm(net.conv(x)), net.conv(x + 1)],
        dict(conv=conv(), norm=nn.BatchNorm2d(4)),
        'follows a convolution with other readers',
    ),
    'weight read otherwise': (
        lambda net, x: net.norm(net.conv(x)) * net.conv.weight.sum(),
        dict(conv=conv(), norm=nn.BatchNorm2d(4)),
        'follows a convolution with other readers',
    ),
    'statistics of the batch': (
        chain,
        dict(conv=conv(), norm=nn.BatchNorm2d(4, track_running_stats=False)),
        'takes its statistics from the batch',
    ),
    'own forward pass': (
        chain,
        dict(conv=conv(), norm=Doubling(4)),
        'has a forward pass of its own',
    ),
    'transposed in groups': (
        chain,
        dict(conv=nn.ConvTranspose2d(4, 6, 2, 2, groups=2), norm=nn.BatchNorm2d(6)),
        'follows a transposed convolution in groups',
    ),
}


def per_level() -> Net:
    """Return a convolution for two levels, each with a norm, as in RTMDet's head."""

    def run(net: Any, x: Tensor) -> list[Tensor]:
        return [net.first(x), net.second(x[..., ::2, ::2])]

    shared = conv()
    return Net(
        run,
        first=nn.Sequential(shared, nn.BatchNorm2d(4)),
        second=nn.Sequential(shared, nn.BatchNorm2d(4)),
    )


def prepared(net: nn.Module) -> nn.Module:
    """Give norms numbers far from those they begin with."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values in (module.running_mean, module.weight, module.bias):
                if values is not None:
                    values.data.normal_(0, 2, generator=generator)
            if module.running_var is not None:
                module.running_var.uniform_(0.1, 5, generator=generator)
    return net.eval()


def tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    parts = found.values() if isinstance(found, dict) else found
    return [each for part in parts for each in tensors(part)]


def folded(net: nn.Module, dtype: torch.dtype, tolerance: float) -> Folding:
    """Fold a network, and require its outputs to stay, on other images than those it ran on."""
    net = prepared(net).to(dtype)
    example = noise_like(torch.empty(2, 4, 8, 10, dtype=dtype))
    images = example.flip(0) * 3 + 1
    with torch.no_grad():
        before = tensors(net(images))
        found = fold_batch_norms(net, example)
        after = tensors(net(images))
    for old, new in zip(before, after, strict=True):
        assert (new - old).abs().max() <= tolerance * old.abs().max()
    return found


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize('name', FOLDED)
def test_a_norm_of_whole_outputs_of_a_convolution_is_folded(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    run, parts = FOLDED[name]
    net = copy.deepcopy(Net(run, **parts))
    found = folded(net, dtype, tolerance)
    assert (found.folded, dict(found.kept)) == (('norm',), {})
    assert not any('running' in key for key in net.state_dict())


@pytest.mark.parametrize('name', KEPT)
def test_another_norm_stays_with_its_reason(name: str) -> None:
    run, parts, reason = KEPT[name]
    found = folded(copy.deepcopy(Net(run, **parts)), torch.float64, 0.0)
    assert (found.folded, dict(found.kept), found.difference) == ((), {'norm': reason}, 0.0)


def test_a_norm_that_trains_on_in_a_network_of_evaluation_stays() -> None:
    net = prepared(Net(chain, conv=conv(), norm=nn.BatchNorm2d(4)))
    net.norm.train()
    found = fold_batch_norms(net, torch.randn(2, 4, 8, 8))
    assert dict(found.kept) == {'norm': 'takes its statistics from the batch'}


def test_norms_that_share_a_convolution_stay_where_the_host_folds_both_into_it() -> None:
    found = folded(per_level(), torch.float64, 0.0)
    assert set(found.kept.values()) == {'shares its convolution with other norms'}
    assert found.reasons() == {'shares its convolution with other norms': 2}
    assert 'folded: 0, kept: 2 (shares its convolution with other norms: 2)' in found.text()
    net, images = prepared(per_level()), torch.randn(2, 4, 8, 10)
    before = net(images)
    after = fuse_conv_bn(copy.deepcopy(net))(images)
    assert all((new - old).abs().max() > 0.1 for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize('name', ['before its convolution', 'standardised weight'])
def test_the_host_folds_by_the_order_of_modules(name: str) -> None:
    run, parts, _ = KEPT[name]
    net, images = prepared(copy.deepcopy(Net(run, **parts))), torch.randn(2, 4, 8, 10)
    before = net(images)
    assert (fuse_conv_bn(net)(images) - before).abs().max() > 0.1


def test_the_host_refuses_a_norm_without_gain() -> None:
    with pytest.raises(TypeError):
        fuse_conv_bn(nn.Sequential(conv(), nn.BatchNorm2d(4, affine=False)).eval())


def test_a_fold_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)).eval()
    numbers = {'0.weight': 2, '0.bias': 1, '1.running_mean': 3, '1.running_var': 3}
    numbers |= {'1.weight': 5, '1.bias': 6}
    for name, value in numbers.items():
        net.state_dict()[name].fill_(value)
    fold_batch_norms(net, torch.randn(1, 1, 2, 2))
    # 2 * 5 / sqrt(3 + 1), and (1 - 3) * 5 / sqrt(3 + 1) + 6.
    assert {name: value.item() for name, value in net.state_dict().items()} == {
        '0.weight': 5.0,
        '0.bias': 1.0,
    }


def test_a_folded_network_refuses_training_and_an_unfolded_one_folding() -> None:
    net = nn.Sequential(conv(), nn.BatchNorm2d(4))
    with pytest.raises(ExportError, match='in training mode'):
        fold_batch_norms(net, torch.randn(1, 4, 8, 8))
    with pytest.raises(ExportError, match='in training mode'):
        reparameterise(net, torch.randn(1, 4, 8, 8))
    fold_batch_norms(net.eval(), torch.randn(1, 4, 8, 8))
    assert not net.eval().training
    with pytest.raises(RuntimeError, match='has folded batch norms, and cannot be trained'):
        net.train()


def test_a_norm_that_runs_from_a_hidden_place_is_found_by_the_numbers() -> None:
    net = prepared(Net(chain, conv=conv(), norm=nn.BatchNorm2d(4)))
    held = [net.norm]  # not replaced, as it is no entry of a module
    net.way = lambda net, x: held[0](net.conv(x))
    with pytest.raises(ExportError, match='read unseen: folding changes the outputs by'):
        fold_batch_norms(net, torch.randn(1, 4, 8, 8))


@pytest.mark.parametrize('kind', ['RepVGG', 'MobileOne'])
def test_branches_become_one_convolution(kind: str) -> None:
    models = pytest.importorskip('mmpretrain.models')
    if kind == 'RepVGG':
        arch = dict(num_blocks=[1, 2], width_factor=[1, 1], group_layer_map={2: 2}, se_cfg=None)
        net = models.RepVGG(
            arch, base_channels=8, strides=(2, 1), dilations=(1, 1), out_indices=(0, 1)
        )
    else:
        arch = dict(
            num_blocks=[1, 2, 1, 1],
            width_factor=[0.25] * 4,
            num_conv_branches=[2] * 4,
            num_se_blocks=[0, 1, 0, 0],
        )
        net = models.MobileOne(arch, out_indices=(0, 1))
    net = prepared(nn.ModuleDict(dict(inner=net)))
    net.forward = lambda x: net.inner(x)
    net = net.double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = net.inner(images)
    found = fold_network(net, images)
    assert found.merged == ('inner',) and found.difference < 1e-12
    assert not any(isinstance(each, nn.BatchNorm2d) for each in net.modules())
    for old, new in zip(before, net.inner(images), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10 * float(old.abs().max()))


def test_branches_that_a_module_cannot_merge_are_named() -> None:
    models = pytest.importorskip('mmpretrain.models')
    arch = dict(num_blocks=[1], width_factor=[1], group_layer_map=None, se_cfg=None)
    norm = dict(type='GN', num_groups=1)
    net = models.RepVGG(
        arch, base_channels=4, strides=(1,), dilations=(1,), out_indices=(0,), norm_cfg=norm
    )
    with pytest.raises(ExportError, match='the branches of 0 stay: Switch is not allowed'):
        reparameterise(nn.Sequential(net).eval(), torch.randn(1, 3, 16, 16))


def test_a_deploy_form_that_loses_a_part_is_refused_by_the_numbers() -> None:
    models = pytest.importorskip('mmpretrain.models')
    arch = dict(num_blocks=[1], width_factor=[1], group_layer_map=None, se_cfg=dict(ratio=2))
    net = nn.Sequential(
        models.RepVGG(arch, base_channels=4, strides=(1,), dilations=(1,), out_indices=(0,))
    )
    images = torch.randn(1, 3, 16, 16)
    with pytest.raises(ExportError, match='the deploy form of 0 changes the outputs by'):
        reparameterise(net.eval(), images)
