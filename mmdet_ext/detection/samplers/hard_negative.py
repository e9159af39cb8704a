"""Sampler of hard negatives, for heads that assign and then sample."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.samplers import RandomSampler, SamplingResult
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.detection.host import as_tensor
from mmdet_ext.detection.samplers.head_scores import HeadScores
from mmdet_ext.functional.numerics.checks import check_count, check_number
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class HardNegativeSampler(RandomSampler):  # type: ignore[misc]
    """Sampler of the negatives with the highest loss; positives are drawn at random.

    The positives are those of mmdet's ``RandomSampler``. The hardness of a negative is taken from
    the first of these that is there:

    1. ``pred_instances.losses``;
    2. ``pred_instances.scores``, which RoI heads have from the RPN;
    3. the keyword ``losses`` of `sample`;
    4. the last scores of the dense head that built the sampler. The hardness of a prior is then
       the cross entropy of background at these scores.

    No gradient flows through the choice.

    A forward hook keeps the head's scores from a forward pass, in training or with gradients on,
    until the last image of the batch is sampled. Each image must be sampled once, in the order of
    the batch, as mmdet's heads do it.

    Args:
        num: number of samples per image, at least 1.
        pos_fraction: largest share of ``num`` that positives take, in [0, 1]. If there are more
            positives, torch's generator draws among them, as in ``RandomSampler``.
        neg_pos_ub: largest number of negatives per positive; a negative number sets no bound. An
            image without positives counts as one with one positive.
        add_gt_as_proposals: whether the ground-truth boxes join the priors, as in RoI heads.
        context: the head, given by the head itself.

    Raises:
        ValueError: if ``num`` is under 1 or ``pos_fraction`` outside [0, 1].
    """

    def __init__(
        self,
        num: int,
        pos_fraction: float,
        neg_pos_ub: int = -1,
        add_gt_as_proposals: bool = False,
        context: Any = None,
    ) -> None:
        check_count('num', num)
        check_number('pos_fraction', pos_fraction, least=0, most=1)
        super().__init__(num, pos_fraction, neg_pos_ub, add_gt_as_proposals)
        # There is no reference to the head: the head holds the sampler and, by its hook, the
        # scores.
        self._head_scores: HeadScores | None = None
        if isinstance(context, BaseDenseHead):
            self._head_scores = HeadScores()
            context.register_forward_hook(self._head_scores.remember)

    @torch.no_grad()
    def sample(
        self,
        assign_result: AssignResult,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        losses: Tensor | None = None,
        **kwargs: Any,
    ) -> SamplingResult:
        """Sample one image.

        Args:
            assign_result: the ground truth of each prior.
            pred_instances: ``priors`` (P, 4), and where there are any ``losses`` or ``scores``,
                (P,) or (P, C). Losses are summed over C, the highest score of C counts.
            gt_instances: ``bboxes`` and ``labels``.
            losses: (P,) or (P, C), higher for harder priors; summed over C.
            **kwargs: further arguments of RoI heads (``feats``), which are not used.

        Returns:
            SamplingResult: indices and boxes of the samples, as of any sampler of mmdet.

        Raises:
            RuntimeError: if there is neither a loss nor a score of the priors.
            ValueError: if the losses or the head's scores do not fit the priors.
        """
        hardness = self._hardness(pred_instances, losses)
        added = len(gt_instances.bboxes) if self.add_gt_as_proposals else 0
        # Ground-truth boxes that join the priors come first. They are positives, so that their
        # hardness is never looked at.
        hardness = torch.cat([hardness.new_zeros(added), hardness])
        return super().sample(
            assign_result, pred_instances, gt_instances, hardness=hardness, **kwargs
        )

    def _hardness(self, pred: InstanceData, losses: Tensor | None) -> Tensor:
        """Return the hardness (P,) of each prior as a negative."""
        priors = as_tensor(pred.priors)
        given = _first_given(pred, losses)
        if given is not None:
            name, values = given
            if len(values) != len(priors):
                raise ValueError(
                    f'{name} has {len(values)} rows, but pred_instances.priors has '
                    f'{len(priors)}: give one loss per prior'
                )
            values = values.detach().float()
            if values.dim() == 1:
                return values
            return values.flatten(1).amax(1) if 'scores' in name else values.flatten(1).sum(1)
        if self._head_scores is None:
            raise RuntimeError(
                'HardNegativeSampler has nothing to find hard negatives by: pred_instances has '
                'neither losses nor scores, sample() got no losses, and the sampler was not '
                'built in a dense head. Make it the train_cfg.sampler of an anchor head '
                '(RPNHead, ...), give losses, or take OHEMSampler in a RoI head'
            )
        return self._head_scores.hardness(priors)

    def _sample_neg(
        self, assign_result: AssignResult, num_expected: int, hardness: Tensor, **kwargs: Any
    ) -> Tensor:
        """Choose the negatives of highest loss."""
        index = (assign_result.gt_inds == 0).nonzero().squeeze(1)
        if len(index) <= num_expected:
            return index
        return index[hardness[index].topk(max(0, num_expected)).indices]


def _first_given(pred: InstanceData, losses: Tensor | None) -> tuple[str, Tensor] | None:
    """Return the losses or scores that the caller gives, and their name; None without any."""
    for name in ('losses', 'scores'):
        if name in pred:
            return f'pred_instances.{name}', pred[name]
    return None if losses is None else ('losses', losses)
