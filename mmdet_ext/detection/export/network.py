"""Detector as a network from normalised images to decoded priors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.dense_heads import rtmdet_head
from mmdet.models.detectors import SingleStageDetector
from torch import Tensor, nn

from mmdet_ext.detection.export.decoding import Rule, decode_maps, rule_of
from mmdet_ext.detection.export.tood import geometric_mean
from mmdet_ext.export.onnx_file import ExportError


class DetectorNetwork(nn.Module):
    """Network whose outputs are decoded priors: boxes, scores, and factors where the head has them.

    Args:
        detector: a single-stage detector of mmdet. It is copied, and the copy put into evaluation
            mode.
        with_levels: whether the level of each prior is a further output.

    Raises:
        ExportError: if the detector is none of a single stage, or there is no rule for its head.
    """

    def __init__(self, detector: nn.Module, with_levels: bool = False) -> None:
        super().__init__()
        if not isinstance(detector, SingleStageDetector):
            raise ExportError(
                f'{type(detector).__name__} is no single-stage detector: only dense heads are '
                'exported, without proposals'
            )
        self.detector: Any = copy.deepcopy(detector).eval()
        if hasattr(self.detector, 'drop_guidance'):
            self.detector.drop_guidance()
        for weight in self.detector.parameters():
            weight.requires_grad_(False)
        self.with_levels = with_levels
        try:
            self.rule: Rule = rule_of(self.detector.bbox_head)
        except ValueError as error:
            raise ExportError(str(error)) from error

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Decode the priors of normalised images.

        Args:
            images: (B, 3, H, W).

        Returns:
            tuple: boxes (B, P, 4), scores (B, P, C), factors (B, P) where there are any, and
            levels (P,), as float32, where they are asked for.
        """
        features = self.detector.extract_feat(images)
        head = self.detector.bbox_head
        with _plain_functions():
            maps = self.rule.forward(head, features) if self.rule.forward else head(features)
        height, width = images.shape[-2:]
        decoded = decode_maps(head, maps, (height, width))
        found = [decoded.boxes, decoded.scores]
        if decoded.factors is not None:
            found.append(decoded.factors)
        if self.with_levels:
            rows = [
                images.new_full((size,), float(level)) for level, size in enumerate(decoded.sizes)
            ]
            found.append(torch.cat(rows))
        return tuple(found)

    @torch.no_grad()
    def describe(self, size: tuple[int, int]) -> tuple[tuple[int, ...], bool, int]:
        """Return priors per level, whether there are factors, and the number of classes.

        Args:
            size: height and width of an input, px.

        Raises:
            ExportError: if the network cannot take that size.
        """
        weight = next(self.detector.parameters())
        try:
            images = weight.new_zeros((1, 3, *size))
            maps = self.detector.bbox_head(self.detector.extract_feat(images))
        except (RuntimeError, ValueError) as error:
            raise ExportError(
                f'the network takes no image of {size[0]} x {size[1]} (height x width): {error}'
            ) from error
        decoded = decode_maps(self.detector.bbox_head, maps, size)
        sizes = (sum(decoded.sizes),) if self.rule.one_level else decoded.sizes
        return sizes, decoded.factors is not None, decoded.scores.shape[-1]


@contextmanager
def _plain_functions() -> Iterator[None]:
    """Give RTMDet's head a geometric mean that TorchScript traces."""
    own = rtmdet_head.sigmoid_geometric_mean
    rtmdet_head.sigmoid_geometric_mean = geometric_mean
    try:
        yield
    finally:
        rtmdet_head.sigmoid_geometric_mean = own
