"""Other implementations of ArcFace that bench_margin_head.py and face_scale.py compare with ours.

Each maker takes features (N, D), centres (C, D) and labels (N,). It returns a function that
computes the loss and its gradients for features and centres. `PartialFC` trains the centres, too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.functional.embedding.class_sampling import draw_classes

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
        cosine[rows, labels] = turned(cosine[rows, labels])
        return F.cross_entropy(SCALE * cosine, labels)

    return step_of(features, weight, loss)


def turned(cosine: Tensor) -> Tensor:
    """Return cos(t + m) of cosines cos t; beyond pi, cos t - m sin m."""
    beyond_pi = cosine <= -math.cos(MARGIN)
    moved = torch.cos(torch.acos(cosine) + MARGIN)
    return torch.where(beyond_pi, cosine - MARGIN * math.sin(MARGIN), moved)


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


class PartialFC:
    """Sampled softmax as *Partial FC* (An et al., CVPR 2022) describes it, holding its logits.

    A step draws classes, copies their centres, normalises the copy, and computes::

        logits = s m(clamp(<x / |x|, w / |w|>))         the margin m on the own logit alone
        loss   = mean(-log softmax(logits)_y)           the table of probabilities is saved

    SGD then updates the drawn centres with a copy of their momentum, and both are written back.

    Args:
        centers: (C, D); kept and trained.
        rate: share of the classes to draw.
        sgd: options of `torch.optim.SGD`.
    """

    def __init__(self, centers: Tensor, rate: float, sgd: dict[str, Any]) -> None:
        self.weight, self.rate, self.draws = centers, rate, 0
        self.active = nn.Parameter(centers if rate == 1 else centers[:0])
        self.optimizer = torch.optim.SGD([self.active], **sgd)
        if rate < 1:
            self.momentum = torch.zeros_like(centers)

    def step(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Train one step; return the loss and the gradient of the features."""
        x = features.detach().requires_grad_()
        if self.rate < 1:
            drawn, labels = self.draw(labels)
            self.active.data = self.weight[drawn]
        value = self.loss(x, labels)
        value.backward()
        state = self.optimizer.state[self.active]
        if self.rate < 1:
            state['momentum_buffer'] = self.momentum[drawn]
        self.optimizer.step()
        if self.rate < 1:
            self.weight.index_copy_(0, drawn, self.active.detach())
            self.momentum.index_copy_(0, drawn, state.pop('momentum_buffer'))
            self.active.data = self.weight[:0]
        self.optimizer.zero_grad()
        assert x.grad is not None
        return value.detach(), x.grad

    def draw(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Draw what our head draws in the same step, so that results can be compared."""
        generator = torch.Generator()
        generator.manual_seed((torch.initial_seed() * 1_000_003 + self.draws) % 2**63)
        self.draws += 1
        count = max(round(self.rate * len(self.weight)), 1)
        return draw_classes(labels, len(self.weight), count, generator)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss; what autograd need not save is freed on the way."""
        cosine = F.linear(F.normalize(x), F.normalize(self.active)).clamp(-1, 1)
        rows = torch.arange(len(labels))
        cosine[rows, labels] = turned(cosine[rows, labels])
        return _SavedProbabilities.apply(SCALE * cosine, labels)  # type: ignore[no-any-return]


class _SavedProbabilities(torch.autograd.Function):
    """Mean cross entropy that overwrites the logits with probabilities and saves these."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        own = logits.gather(1, labels[:, None])
        highest = logits.amax(1, keepdim=True)
        total = logits.sub_(highest).exp_().sum(1, keepdim=True)
        ctx.save_for_backward(logits.div_(total), labels)
        return (total.log_() + highest - own).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        table, labels = ctx.saved_tensors
        table[torch.arange(len(table)), labels] -= 1
        return table.mul_(grad / len(table)), None
