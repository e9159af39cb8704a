"""Codec of associative embedding: heatmaps of joints, and tags that tell people apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from mmpose.codecs.base import BaseKeypointCodec
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, check_that, check_whole
from mmdet_ext.functional.pose.heatmaps import joint_heatmaps
from mmdet_ext.functional.pose.people import group_by_tags
from mmdet_ext.pose.codecs.peaks import find_peaks, finite, refine_blurred, refine_by_quarter
from mmdet_ext.pose.codecs.sizes import check_kernel, check_sizes
from mmdet_ext.registry import KEYPOINT_CODECS

# No map has as many cells along a side.
_FAR = 2**30

#: Keypoints, their scores and the scores of people, an array per image.
Decoded = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]


@KEYPOINT_CODECS.register_module()
class AssociativeEmbeddingCodec(BaseKeypointCodec):  # type: ignore[misc]
    """Codec of heatmaps and tags, a drop-in replacement of MMPose's AssociativeEmbedding.

    It has the options, targets and results of that codec, and groups the candidates of a joint with
    all people at once. Where they differ:

    - Targets are packed for a head's loss: MMPose's PackPoseInputs leaves out the indices.
    - People whose first tags are equal stay apart; MMPose writes one over the other.
    - With ``use_udp``, missing joints are searched in the heatmaps, and the caller's maps stay as
      they are; MMPose searches in their logarithms, and writes these into the maps.
    - Gaussians are symmetric for any ``sigma``. With ``use_udp``, a joint up to one cell outside
      the left or upper border is drawn around its own cell.
    - Values of maps that are not finite count as 0.

    Args:
        input_size: width and height of the input, px.
        heatmap_size: width and height of the maps.
        sigma: standard deviation of Gaussians, in cells; None for a 64th of a map's side.
        use_udp: whether targets and results are unbiased: corners of maps stand for corners of the
            input, Gaussians lie around joints instead of their cells.
        decode_keypoint_order: joints in the order of matching; None for that of their numbers.
        decode_nms_kernel: side of the square in which a peak is the largest, odd.
        decode_gaussian_kernel: side of the blur before joints are refined, with ``use_udp``, odd.
        decode_keypoint_thr: peaks up to this value are left out.
        decode_tag_thr: largest distance of tags within a person.
        decode_topk: number of candidates for each joint.
        decode_center_shift: shift of decoded joints, in cells.
        decode_max_instances: number of people to keep; None for all.

    Raises:
        ValueError: for an option out of its range.

    References:
        Newell et al., Associative Embedding: End-to-End Learning for Joint Detection and Grouping,
        2017.
    """

    label_mapping_table: ClassVar[dict[str, str]] = {
        'keypoint_indices': 'keypoint_indices',
        'keypoint_weights': 'keypoint_weights',
    }

    def __init__(
        self,
        input_size: tuple[int, int],
        heatmap_size: tuple[int, int],
        sigma: float | None = None,
        use_udp: bool = False,
        decode_keypoint_order: Sequence[int] | None = None,
        decode_nms_kernel: int = 5,
        decode_gaussian_kernel: int = 3,
        decode_keypoint_thr: float = 0.1,
        decode_tag_thr: float = 1.0,
        decode_topk: int = 30,
        decode_center_shift: float = 0.0,
        decode_max_instances: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.heatmap_size = check_sizes(input_size, heatmap_size)
        check_kernel('decode_nms_kernel', decode_nms_kernel)
        check_kernel('decode_gaussian_kernel', decode_gaussian_kernel)
        check_whole('decode_topk', decode_topk)
        if decode_max_instances is not None:
            check_whole('decode_max_instances', decode_max_instances)
        if sigma is None:
            sigma = (self.heatmap_size[0] * self.heatmap_size[1]) ** 0.5 / 64
        check_number('sigma', sigma, above=0, finite=True)
        self.sigma = sigma
        self.use_udp = use_udp
        self.decode_keypoint_order = list(decode_keypoint_order or ())
        self.decode_nms_kernel = decode_nms_kernel
        self.decode_gaussian_kernel = decode_gaussian_kernel
        self.decode_keypoint_thr = decode_keypoint_thr
        self.decode_tag_thr = decode_tag_thr
        self.decode_topk = decode_topk
        self.decode_center_shift = decode_center_shift
        self.decode_max_instances = decode_max_instances
        less = int(use_udp)
        self.scale_factor = (
            (np.array(self.input_size) - less) / (np.array(self.heatmap_size) - less)
        ).astype(np.float32)

    def encode(
        self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Draw heatmaps, and find the cell of each joint.

        Args:
            keypoints: x and y, px of the input, (N, K, 2).
            keypoints_visible: whether joints are labelled, (N, K); None for all.

        Returns:
            dict: 'heatmaps', (K, H, W), float32; 'keypoint_indices', cell y * W + x and whether it
            counts, (N, K, 2), int64; 'keypoint_weights', (N, K), 0 where nothing was drawn.
        """
        if keypoints_visible is None:
            keypoints_visible = np.ones(keypoints.shape[:2], np.float32)
        width, height = self.heatmap_size
        places = keypoints / self.scale_factor
        known = np.isfinite(places).all(-1)
        # MMPose rounds towards 0, which differs left of and above the map.
        cells = np.trunc(np.where(known[..., None], places, -_FAR) + 0.5)
        cells = np.clip(cells, -_FAR, _FAR).astype(np.int64)
        size = np.array([width, height])
        inside = ((cells >= 0) & (cells < size)).all(-1) & (keypoints_visible > 0.5) & known
        index = cells[..., 1] * width + cells[..., 0]
        reach = 3 * self.sigma
        beyond = ((cells - reach).astype(np.int64) >= size).any(-1)
        beyond |= ((cells + reach + 1).astype(np.int64) < 0).any(-1)
        drawn = keypoints_visible >= 0.5
        weights = np.where(drawn & (beyond | ~known), 0, keypoints_visible)
        centers = places if self.use_udp else cells
        heatmaps = joint_heatmaps(
            torch.as_tensor(np.ascontiguousarray(centers, np.float32))[None],
            torch.as_tensor(drawn & known)[None],
            (height, width),
            self.sigma,
            unbiased=self.use_udp,
        )
        return {
            'heatmaps': heatmaps[0].numpy(),
            'keypoint_indices': np.stack([np.where(known, index, 0), inside], -1).astype(np.int64),
            'keypoint_weights': weights.astype(keypoints_visible.dtype),
        }

    def decode(self, encoded: Any) -> tuple[np.ndarray, np.ndarray]:
        """Refuse: people are found in batches, by `batch_decode`."""
        raise NotImplementedError('AssociativeEmbeddingCodec decodes batches: batch_decode')

    @torch.no_grad()
    def batch_decode(self, batch_heatmaps: Tensor, batch_tags: Tensor) -> Decoded:
        """Find people in heatmaps and maps of tags.

        Args:
            batch_heatmaps: (B, K, H, W).
            batch_tags: (B, T * K, H, W), all K joints of the first dimension first.

        Returns:
            tuple: per image, joints in px of the input, (N, K, 2); their scores, (N, K), where a
            joint without a candidate has the value at the place that fits its person best; and the
            score of each person, the mean over his joints with those as 0, (N,).

        Raises:
            ValueError: for shapes that do not fit.
        """
        images, joints, height, width = batch_heatmaps.shape
        shape = tuple(batch_tags.shape)
        fits = len(shape) == 4 and (shape[0], *shape[2:]) == (images, height, width)
        wanted = f'({images}, T * {joints}, {height}, {width}), as the heatmaps are'
        check_that(fits and shape[1] % joints == 0, 'batch_tags', shape, wanted)
        maps, tags = finite(batch_heatmaps.float()), finite(batch_tags.float())
        peaks = find_peaks(maps, self.decode_nms_kernel, self.decode_topk)
        places = peaks.places(width)
        layers = tags.view(images, -1, joints, height * width)
        index = peaks.cells[:, None].expand(-1, layers.shape[1], -1, -1)
        own = layers.gather(3, index).permute(0, 2, 3, 1)
        found = [
            self._decode_image(*each)
            for each in zip(
                peaks.values.cpu(),
                own.cpu(),
                places.cpu(),
                maps.cpu().numpy(),
                layers.cpu().numpy(),
                strict=True,
            )
        ]
        return (
            [each[0] for each in found],
            [each[1] for each in found],
            [each[2] for each in found],
        )

    def _decode_image(
        self, values: Tensor, tags: Tensor, places: Tensor, maps: np.ndarray, layers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return joints, their scores and the scores of people of one image."""
        people = group_by_tags(
            values,
            tags,
            places,
            self.decode_keypoint_order,
            value_threshold=self.decode_keypoint_thr,
            tag_threshold=self.decode_tag_thr,
            most=self.decode_max_instances,
        )
        keypoints, scores = people.keypoints.numpy(), people.scores.numpy()
        of_people = scores.mean(-1)
        if len(keypoints):
            if self.use_udp:
                keypoints = refine_blurred(keypoints, maps, self.decode_gaussian_kernel)
            else:
                keypoints = refine_by_quarter(keypoints, maps)
            keypoints += self.decode_center_shift * (scores > 0)[..., None]
            keypoints, scores = fill_missing(keypoints, scores, maps, layers)
        return keypoints * self.scale_factor, scores, of_people


def fill_missing(
    keypoints: np.ndarray, scores: np.ndarray, maps: np.ndarray, layers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Give people their missing joints: where the tag fits best, and there the highest value.

    The place is the least of :math:`100 \, \text{round}(|t - \bar t_n|) - s` over the map, with the
    mean tag of the person's joints.

    Args:
        keypoints: x and y, in cells, (N, K, 2).
        scores: (N, K); a joint is missing where it is not above 0.
        maps: heatmaps, (K, H, W).
        layers: tags, (T, K, H * W).

    Returns:
        tuple: both with the missing joints.
    """
    height, width = maps.shape[1:]
    joint = np.arange(maps.shape[0])
    found = scores > 0
    # The cell of a refined joint may be a neighbour of that of its peak, as in MMPose.
    x = np.clip(keypoints[..., 0].astype(np.int64), 0, width - 1)
    y = np.clip(keypoints[..., 1].astype(np.int64), 0, height - 1)
    own = layers[:, joint, y * width + x] * found  # (T, N, K)
    mean = own.sum(2) / np.maximum(found.sum(1), 1).astype(own.dtype)
    keypoints, scores = keypoints.copy(), scores.copy()
    flat = maps.reshape(len(maps), -1)
    for k in joint[(~found).any(0)]:
        lacking = np.flatnonzero(~found[:, k])
        distance = layers[:, k, None] - mean[:, lacking, None]
        if len(distance) == 1:
            cost = np.abs(distance[0], out=distance[0])
        else:
            cost = np.sqrt(np.square(distance).sum(0))
        np.round(cost, out=cost)
        cost *= 100
        cost -= flat[k]
        cell = cost.argmin(1)
        keypoints[lacking, k] = np.stack([cell % width, cell // width], -1)
        scores[lacking, k] = flat[k, cell]
    return keypoints, scores
