"""Other implementations of ArcFace that bench_margin_head.py compares with ours.

Each maker takes features (N, D), centres (C, D) and labels (N,). It returns a function that
computes the loss and its gradients for features and centres.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MARGIN, SCALE = 0.5, 64.0
Step = Callable[[], tuple[Tensor, Tensor, Tensor]]
Maker = Callable[[Tensor, Tensor, Tensor], 'Step | None']


def step_of(features: Tensor, weight: Tensor, loss: Callable[[Tensor], Tensor]) -> Step:
    """Return a function that computes a loss forward and backward."""

    def run() -> tuple[Tensor, Tensor, Tensor]:
        x = features.detach().requires_grad_()
        weight.grad = None
        value = loss(x)
        value.backward()
        assert x.grad is not None and weight.grad is not None
        return value.detach(), x.grad, weight.grad

    return run


def mmpretrain_step(features: Tensor, centers: Tensor, labels: Tensor) -> Step:
    """Make a step of mmpretrain's head."""
    from mmpretrain.models.heads import ArcFaceClsHead
    from mmpretrain.structures import DataSample

    head = ArcFaceClsHead(len(centers), centers.shape[1], scale=SCALE, margins=MARGIN)
    head.norm_product.weight.data = centers.clone()
    samples = [DataSample().set_gt_label(int(label)) for label in labels]
    return step_of(features, head.norm_product.weight, lambda x: head.loss((x,), samples)['loss'])


def insightface_step(features: Tensor, centers: Tensor, labels: Tensor) -> Step:
    """Make a step that applies the paper's formula to the target's cosine, then cross entropy."""
    weight = nn.Parameter(centers.clone())
    rows = torch.arange(len(labels))

    def loss(x: Tensor) -> Tensor:
        cosine = F.linear(F.normalize(x), F.normalize(weight)).clamp(-1, 1)
        target = cosine[rows, labels]
        turned = torch.cos(torch.acos(target) + MARGIN)
        beyond_pi = target <= -torch.cos(torch.tensor(MARGIN))
        turned = torch.where(beyond_pi, target - MARGIN * torch.sin(torch.tensor(MARGIN)), turned)
        cosine[rows, labels] = turned
        return F.cross_entropy(SCALE * cosine, labels)

    return step_of(features, weight, loss)


def metric_learning_step(features: Tensor, centers: Tensor, labels: Tensor) -> Step | None:
    """Make a step of pytorch-metric-learning; return None, with a message, if it is absent."""
    try:
        from pytorch_metric_learning.losses import ArcFaceLoss
    except ImportError:
        print(
            'pytorch-metric-learning is not installed (`pip install pytorch-metric-learning`): '
            'left out',
            file=sys.stderr,
        )
        return None
    degrees = float(torch.rad2deg(torch.tensor(MARGIN, dtype=torch.float64)))
    loss = ArcFaceLoss(len(centers), centers.shape[1], margin=degrees, scale=SCALE)
    loss.W.data = centers.t().contiguous()
    step = step_of(features, loss.W, lambda x: loss(x, labels))

    def run() -> tuple[Tensor, Tensor, Tensor]:
        value, grad, weight_grad = step()
        return value, grad, weight_grad.t()

    return run


#: Makers by the name that the table shows.
OTHERS: dict[str, Maker] = {
    'mmpretrain.ArcFaceClsHead': mmpretrain_step,
    'ArcFace as InsightFace': insightface_step,
    'pytorch-metric-learning': metric_learning_step,
}
