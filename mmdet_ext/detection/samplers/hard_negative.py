"""Sampling of hard negatives in heads that assign and sample."""

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
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class HardNegativeSampler(RandomSampler):  # type: ignore[misc]
    """Samples the negatives of highest loss; the positives at random, as stock's RandomSampler.

    How hard a negative is, is looked for in this order: ``pred_instances.losses``;
    ``pred_instances.scores``, as RoI heads have them of the RPN; the keyword ``losses`` of
    `sample`; the scores that the head, in which the sampler was built, gave last. Of these, a
    prior's loss is the cross entropy of calling it background. Gradients do not flow through the
    choice.

    The head's scores are kept by a forward hook from its forward pass, in training or where
    gradients are on, until its last picture is sampled: pictures are sampled once each and in
    their order, as stock heads do it.

    Args:
        num: samples a picture.
        pos_fraction: share of ``num`` that positives may take. More than that are drawn by
            torch's generator, as in stock's RandomSampler.
        neg_pos_ub: negatives a positive at most, negative for no bound. A picture without
            positives counts as one with one.
        add_gt_as_proposals: whether the boxes join the priors, as RoI heads have it.
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
        if num < 1:
            raise ValueError(f'num must be at least 1, got {num}')
        if not 0 <= pos_fraction <= 1:
            raise ValueError(f'pos_fraction must be in [0, 1], got {pos_fraction}')
        super().__init__(num, pos_fraction, neg_pos_ub, add_gt_as_proposals)
        # No reference to the head: the head holds the sampler, and by its hook the scores.
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
        """Sample one picture.

        Args:
            assign_result: of the priors.
            pred_instances: ``priors`` (P, 4); ``losses`` (P,) or (P, C), or ``scores`` alike,
                where there are any.
            gt_instances: ``bboxes`` and ``labels``.
            losses: (P,) or (P, C), the higher the harder; summed over C.
            **kwargs: what RoI heads give to any sampler (``feats``), not needed here.

        Returns:
            SamplingResult: as stock's samplers give it.

        Raises:
            RuntimeError: if there is nothing to tell hard negatives by.
            ValueError: if the losses or the head's scores do not fit the priors.
        """
        hardness = self._hardness(pred_instances, losses)
        added = len(gt_instances.bboxes) if self.add_gt_as_proposals else 0
        # Boxes that join the priors come first, and are positive.
        hardness = torch.cat([hardness.new_zeros(added), hardness])
        return super().sample(
            assign_result, pred_instances, gt_instances, hardness=hardness, **kwargs
        )

    def _hardness(self, pred: InstanceData, losses: Tensor | None) -> Tensor:
        priors = as_tensor(pred.priors)
        given = _first_given(pred, losses)
        if given is not None:
            name, values = given
            if len(values) != len(priors):
                raise ValueError(
                    f'{name} has {len(values)} rows, but pred_instances.priors has '
                    f'{len(priors)}: give one loss a prior'
                )
            values = values.detach().float()
            if values.dim() == 1:
                return values
            return values.flatten(1).amax(1) if 'scores' in name else values.flatten(1).sum(1)
        if self._head_scores is None:
            raise RuntimeError(
                'HardNegativeSampler has nothing to tell hard negatives by: pred_instances has '
                'neither losses nor scores, sample() got no losses, and the sampler was not '
                'built in a dense head. Make it the train_cfg.sampler of an anchor head '
                '(RPNHead, ...), give losses, or take OHEMSampler in a RoI head'
            )
        return self._head_scores.hardness(priors)

    def _sample_neg(
        self, assign_result: AssignResult, num_expected: int, hardness: Tensor, **kwargs: Any
    ) -> Tensor:
        """The negatives of highest loss."""
        index = (assign_result.gt_inds == 0).nonzero().squeeze(1)
        if len(index) <= num_expected:
            return index
        return index[hardness[index].topk(max(0, num_expected)).indices]


def _first_given(pred: InstanceData, losses: Tensor | None) -> tuple[str, Tensor] | None:
    """What the caller gives to tell hard negatives by, with its name."""
    for name in ('losses', 'scores'):
        if name in pred:
            return f'pred_instances.{name}', pred[name]
    return None if losses is None else ('losses', losses)
