#!/usr/bin/env bash
# mmcv: fuse_conv_bn changes what a head computes whose levels share convolutions, each with a norm of its own.
#
# Versions:  mmcv-lite 2.1.0, mmengine 0.10.7, torch 2.11.0
# Input:     two ConvModules of 8 channels with batch norm, one per level of a pyramid, whose convolution is
#            one object, as RTMDetSepBNHead with share_conv=True (its default, in all configs of RTMDet)
#            makes them. Statistics and factors of the norms are drawn at random, the modules are in
#            evaluation mode, and each level gets 8 channels of 16 x 16.
#            The same two modules with a convolution of their own each stand beside.
# Seen:      with own convolutions, outputs before and after fuse_conv_bn agree to 1e-5 of the largest number.
#            With a shared one they differ by more than a tenth of it, without an error or a warning: the
#            factors of every level are multiplied into the one weight, one after the other.
# Matters:   mmdet offers it for speed (--fuse-conv-bn of its benchmark, and of exporters built on it). A
#            fused RTMDet finds other boxes. Compare outputs before and after, on statistics that are
#            not the initial ones: with those the difference is almost nothing.
# Fails if any of this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" mmengine==0.10.7 mmcv-lite==2.1.0 torch==2.11.0 'setuptools<81' packaging
"$folder/venv/bin/python" -W ignore <<'PYTHON'
import sys

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.utils import fuse_conv_bn
from torch import nn


def levels(shared, seen):
    """Make one module per level, with norms that have seen data if asked for."""
    torch.manual_seed(0)
    modules = nn.ModuleList(
        ConvModule(8, 8, 3, padding=1, norm_cfg=dict(type='BN'), act_cfg=dict(type='SiLU'))
        for _ in range(2)
    )
    if shared:
        modules[1].conv = modules[0].conv
    for module in modules if seen else ():
        for values in (module.bn.running_var, module.bn.weight.data):
            values.uniform_(0.5, 2.0)
        for values in (module.bn.running_mean, module.bn.bias.data):
            values.normal_()
    return modules.eval()


@torch.no_grad()
def difference(**options):
    """Return the largest difference of an output by folding, as a share of the largest number."""
    modules = levels(**options)
    inputs = torch.randn(1, 8, 16, 16)
    before = torch.stack([module(inputs) for module in modules])
    after = torch.stack([module(inputs) for module in fuse_conv_bn(modules)])
    return float((after - before).abs().max() / before.abs().max())


own = difference(shared=False, seen=True)
shared = difference(shared=True, seen=True)
fresh = difference(shared=True, seen=False)
print(f'own convolutions {own:.1e}, shared {shared:.2f}, shared with initial norms {fresh:.1e}')
as_seen = own < 1e-5 and shared > 0.1 and fresh < 1e-3
sys.exit(print('as described') if as_seen else 'the behaviour has changed')
PYTHON
