"""Codec of part affinity fields: heatmaps of joints, and the directions of the limbs between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from mmpose.codecs.base import BaseKeypointCodec
from torch import Tensor

from mmdet_ext.functional.numerics.checks import (
    check_number,
    check_one_of,
    check_that,
    check_whole,
)
from mmdet_ext.functional.pose.fields import paf_targets
from mmdet_ext.functional.pose.heatmaps import joint_heatmaps
from mmdet_ext.functional.pose.people import LimbMatching, group_by_limbs
from mmdet_ext.pose.codecs.associative_embedding import Decoded
from mmdet_ext.pose.codecs.peaks import Peaks, find_peaks, finite, refine_unbiased
from mmdet_ext.pose.codecs.sizes import check_kernel, check_sizes
from mmdet_ext.pose.skeletons import read_limbs
from mmdet_ext.registry import KEYPOINT_CODECS


@KEYPOINT_CODECS.register_module()
class PartAffinityField(BaseKeypointCodec):  # type: ignore[misc]
    """Codec of heatmaps and part affinity fields.

    Targets are packed as the fields 'heatmaps' and 'limb_fields' of a data sample, with
    'heatmap_mask' where the pipeline makes one.

    Args:
        input_size: width and height of the input, px.
        heatmap_size: width and height of the maps.
        sigma: standard deviation of Gaussians, in cells; None for a 64th of a map's side.
        limbs: pairs of joints, or the name of a table: 'coco', or 'coco_wide' with limbs that tie
            joints together where those between them are missing.
        width: distance from a limb's axis that its field covers, in cells.
        overhang: length by which the field reaches beyond the joints, in cells.
        unbiased: whether Gaussians lie around joints instead of their cells.
        matching: how candidates of a limb's ends are paired: 'optimal', or 'greedy' as in OpenPose.
        decode_nms_kernel: side of the square in which a peak is the largest, odd.
        decode_keypoint_thr: peaks up to this value are left out.
        decode_topk: number of candidates for each joint.
        decode_points: number of points along a limb at which its field is read.
        decode_field_thr: product of field and direction above which a point counts.
        decode_min_share: smallest share of points that count.
        decode_longest: length of a limb, in sides of a map, above which its score falls; None for
            no such penalty.
        decode_min_joints: people with fewer joints are left out.
        decode_max_instances: number of people to keep, those of the highest scores; None for all.

    Raises:
        ValueError: for an option out of its range.

    References:
        Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields, 2017.
    """

    field_mapping_table: ClassVar[dict[str, str]] = {
        'heatmaps': 'heatmaps',
        'limb_fields': 'limb_fields',
        'heatmap_mask': 'heatmap_mask',
    }
    label_mapping_table: ClassVar[dict[str, str]] = {'keypoint_weights': 'keypoint_weights'}

    def __init__(
        self,
        input_size: tuple[int, int],
        heatmap_size: tuple[int, int],
        sigma: float | None = None,
        limbs: str | Sequence[Sequence[int]] = 'coco',
        width: float = 1.0,
        overhang: float = 1.0,
        unbiased: bool = True,
        matching: LimbMatching = 'optimal',
        decode_nms_kernel: int = 5,
        decode_keypoint_thr: float = 0.1,
        decode_topk: int = 30,
        decode_points: int = 10,
        decode_field_thr: float = 0.05,
        decode_min_share: float = 0.8,
        decode_longest: float | None = None,
        decode_min_joints: int = 1,
        decode_max_instances: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.heatmap_size = check_sizes(input_size, heatmap_size)
        if sigma is None:
            sigma = (self.heatmap_size[0] * self.heatmap_size[1]) ** 0.5 / 64
        check_number('sigma', sigma, above=0, finite=True)
        check_number('width', width, above=0, finite=True)
        check_number('overhang', overhang, least=0, finite=True)
        check_one_of('matching', matching, LimbMatching)
        check_kernel('decode_nms_kernel', decode_nms_kernel)
        check_whole('decode_topk', decode_topk)
        check_whole('decode_points', decode_points, 2)
        check_number('decode_min_share', decode_min_share, least=0, most=1)
        check_whole('decode_min_joints', decode_min_joints)
        if decode_longest is not None:
            check_number('decode_longest', decode_longest, above=0, finite=True)
        if decode_max_instances is not None:
            check_whole('decode_max_instances', decode_max_instances)
        self.sigma = sigma
        self.limbs = read_limbs(limbs)
        self.width = width
        self.overhang = overhang
        self.unbiased = unbiased
        self.matching: LimbMatching = matching
        self.decode_nms_kernel = decode_nms_kernel
        self.decode_keypoint_thr = decode_keypoint_thr
        self.decode_topk = decode_topk
        self.decode_points = decode_points
        self.decode_field_thr = decode_field_thr
        self.decode_min_share = decode_min_share
        self.decode_longest = decode_longest
        self.decode_min_joints = decode_min_joints
        self.decode_max_instances = decode_max_instances
        self.scale_factor = (np.array(self.input_size) / np.array(self.heatmap_size)).astype(
            np.float32
        )

    def encode(
        self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Draw heatmaps and fields.

        Args:
            keypoints: x and y, px of the input, (N, K, 2).
            keypoints_visible: whether joints are labelled, (N, K); None for all.

        Returns:
            dict: 'heatmaps', (K, H, W), and 'limb_fields', x and y of each limb in turn,
            (2 C, H, W), float32; 'keypoint_weights', (N, K).
        """
        if keypoints_visible is None:
            keypoints_visible = np.ones(keypoints.shape[:2], np.float32)
        width, height = self.heatmap_size
        places = torch.as_tensor(np.ascontiguousarray(keypoints / self.scale_factor, np.float32))
        shown = torch.as_tensor(keypoints_visible > 0.5)
        heatmaps = joint_heatmaps(
            places[None], shown[None], (height, width), self.sigma, unbiased=self.unbiased
        )
        fields = paf_targets(
            places[None], shown[None], self.limbs, (height, width), self.width, self.overhang
        )
        return {
            'heatmaps': heatmaps[0].numpy(),
            'limb_fields': fields[0].flatten(0, 1).numpy(),
            'keypoint_weights': keypoints_visible.copy(),
        }

    def decode(self, encoded: Any) -> tuple[np.ndarray, np.ndarray]:
        """Refuse: people are found in batches, by `batch_decode`."""
        raise NotImplementedError('PartAffinityField decodes batches: batch_decode')

    @torch.no_grad()
    def batch_decode(self, batch_heatmaps: Tensor, batch_fields: Tensor) -> Decoded:
        """Find people in heatmaps and fields.

        Args:
            batch_heatmaps: (B, K, H, W).
            batch_fields: x and y of each limb in turn, (B, 2 C, H, W).

        Returns:
            tuple: per image, joints in px of the input, (N, K, 2), and their scores, (N, K), both 0
            where a joint is missing; and the score of each person, the mean over all joints, (N,).
            People of the highest scores come first.

        Raises:
            ValueError: for shapes that do not fit.
        """
        images, _, height, width = batch_heatmaps.shape
        wanted = (images, 2 * len(self.limbs), height, width)
        shape = tuple(batch_fields.shape)
        check_that(shape == wanted, 'batch_fields', shape, f'{wanted}, two for each limb')
        # Decoding reads single values, which takes longer on another device.
        maps, fields = finite(batch_heatmaps.float()).cpu(), batch_fields.float().cpu()
        peaks = find_peaks(maps, self.decode_nms_kernel, self.decode_topk, first_of_equal=True)
        places = refine_unbiased(peaks, maps) if self.unbiased else quarter_places(peaks, maps)
        decoded: Decoded = ([], [], [])
        for values, place, field in zip(peaks.values, places, fields, strict=True):
            people = group_by_limbs(
                values,
                place,
                field.view(len(self.limbs), 2, height, width),
                self.limbs,
                matching=self.matching,
                points=self.decode_points,
                threshold=self.decode_field_thr,
                min_share=self.decode_min_share,
                longest=self.decode_longest and self.decode_longest * max(height, width),
                min_joints=self.decode_min_joints,
                value_threshold=self.decode_keypoint_thr,
            )
            scores = people.scores.numpy()
            of_people = scores.mean(1)
            best = np.argsort(-of_people, kind='stable')[: self.decode_max_instances]
            found = people.keypoints.numpy()[best] * self.scale_factor
            for part, value in zip(decoded, (found, scores[best], of_people[best]), strict=True):
                part.append(value)
        return decoded


def quarter_places(peaks: Peaks, heatmaps: Tensor) -> Tensor:
    """Return the places of peaks, a quarter of a cell towards the higher neighbours."""
    height, width = heatmaps.shape[2:]
    flat = heatmaps.flatten(2)
    places = peaks.places(width)
    for axis, (step, size) in enumerate(((1, width), (width, height))):
        place = places[..., axis]
        inner = (place >= 1) & (place <= size - 2)
        before, after = (
            flat.gather(2, torch.where(inner, peaks.cells + shift, peaks.cells))
            for shift in (-step, step)
        )
        places[..., axis] = place + 0.25 * (after - before).sign()
    return places
