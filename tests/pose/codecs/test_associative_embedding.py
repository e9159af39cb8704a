"""Codec of associative embedding: MMPose's targets and results, and where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip('mmpose', reason='MMPose is absent')

from mmpose.codecs import AssociativeEmbedding

from mmdet_ext.pose.codecs.associative_embedding import AssociativeEmbeddingCodec

JOINTS, SIDE = 6, 32
SIZES: dict[str, Any] = dict(input_size=(4 * SIDE, 4 * SIDE), heatmap_size=(SIDE, SIDE), sigma=1)
CASES, BLOCKS = 500, 10


def both(**options: Any) -> tuple[AssociativeEmbeddingCodec, Any]:
    """Return our codec and MMPose's with the same options."""
    stock = AssociativeEmbedding(**SIZES, decode_keypoint_order=list(range(JOINTS)), **options)
    return AssociativeEmbeddingCodec(**SIZES, **options), stock


def people(rng: np.random.Generator, low: float = 0.0, high: float = 4 * SIDE - 1) -> Any:
    """Make 0 to 5 people with random joints, some of them not labelled."""
    count = int(rng.integers(0, 6))
    keypoints = rng.uniform(low, high, (count, JOINTS, 2)).astype(np.float32)
    return keypoints, rng.integers(0, 3, (count, JOINTS)).astype(np.float32)


def clear_people(rng: np.random.Generator) -> Any:
    """Make people whose first joints are all seen and apart.

    Matching is then unambiguous. A candidate without a person so far would be matched to any, and
    MMPose's choice among sums that tie is that of its algorithm.
    """
    keypoints, visible = people(rng)
    row = np.arange(len(keypoints))
    keypoints[:, 0] = np.stack([row * 24 + 10, row * 24 + 10], -1)
    visible[:, 0] = 2
    # No joint lies near another of its kind, so that each has a peak of its own.
    for joint in range(1, JOINTS):
        place = rng.permutation(25)[: len(keypoints)]
        keypoints[:, joint] = np.stack([place % 5, place // 5], -1) * 24 + 10
    return keypoints + rng.uniform(-2, 2, keypoints.shape).astype(np.float32), visible


def maps_of(encoded: Any, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return noisy heatmaps, and maps with tags about 3 n at the joints of person n."""
    heatmaps = torch.from_numpy(encoded['heatmaps'])
    heatmaps = heatmaps + 0.05 * torch.from_numpy(rng.random(heatmaps.shape, np.float32))
    tags = torch.from_numpy(0.1 * rng.standard_normal(heatmaps.shape).astype(np.float32))
    for person, joints in enumerate(encoded['keypoint_indices']):
        for joint, (cell, shown) in enumerate(joints):
            if shown:
                # The peak of an unbiased joint may be the cell beside.
                y, x = divmod(int(cell), SIDE)
                tags[joint, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] += 3.0 * person
    return heatmaps[None], tags[None]


@pytest.mark.parametrize('block', range(BLOCKS))
def test_targets_and_results_are_those_of_mmpose(block: int) -> None:
    rng = np.random.default_rng(block)
    ours, stock = both(decode_center_shift=0.5)
    for _ in range(CASES // BLOCKS):
        # Joints outside of the map, too.
        inputs = people(rng, -20, 4 * SIDE + 20)
        found, wanted = ours.encode(*inputs), stock.encode(*inputs)
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-5, err_msg=name)
        maps = maps_of(stock.encode(*clear_people(rng)), rng)
        for one, other in zip(ours.batch_decode(*maps), stock.batch_decode(*maps), strict=True):
            np.testing.assert_allclose(one[0], other[0], atol=1e-5)


@pytest.mark.parametrize('block', range(3))
def test_unbiased_targets_and_found_joints_are_those_of_mmpose(block: int) -> None:
    rng = np.random.default_rng(block)
    ours, stock = both(use_udp=True)
    for _ in range(30):
        inputs = people(rng)
        found, wanted = ours.encode(*inputs), stock.encode(*inputs)
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-5, err_msg=name)
        maps = maps_of(stock.encode(*clear_people(rng)), rng)
        kept = [each.clone() for each in maps]
        mine = [each[0] for each in ours.batch_decode(*maps)]
        assert all(torch.equal(one, other) for one, other in zip(maps, kept, strict=True))
        theirs = [each[0] for each in stock.batch_decode(*kept)]
        np.testing.assert_allclose(mine[2], theirs[2], atol=1e-5)
        # A joint that MMPose searched in logarithms has another score than in the heatmap.
        same = np.isclose(mine[1], theirs[1], atol=1e-5)
        np.testing.assert_allclose(mine[0][same], theirs[0][same], rtol=1e-4, atol=1e-3)
        assert same.mean() > 0.3 or not same.size


def test_mmpose_writes_logarithms_into_the_heatmaps_it_decodes() -> None:
    rng = np.random.default_rng(0)
    ours, stock = both(use_udp=True)
    encoded = stock.encode(np.full((1, JOINTS, 2), 50, np.float32))
    maps = maps_of(encoded, rng)
    before = maps[0].clone()
    ours.batch_decode(*maps)
    assert torch.equal(maps[0], before)
    stock.batch_decode(*maps)
    assert maps[0].min() < -1 and before.min() >= 0


def test_people_of_one_tag_stay_apart_where_mmpose_merges_them() -> None:
    ours, stock = both()
    keypoints = np.array([[[20, 20]] * JOINTS, [[90, 90]] * JOINTS], np.float32)
    heatmaps = torch.from_numpy(ours.encode(keypoints)['heatmaps'])[None]
    tags = torch.zeros_like(heatmaps)
    assert len(ours.batch_decode(heatmaps, tags)[0][0]) == 2
    assert len(stock.batch_decode(heatmaps, tags)[0][0]) == 1


def test_a_batch_is_decoded_image_by_image_with_tags_of_several_dimensions() -> None:
    codec = AssociativeEmbeddingCodec(**SIZES)
    keypoints = np.array([[[20, 20]] * JOINTS, [[90, 90]] * JOINTS], np.float32)
    encoded = codec.encode(keypoints)
    heatmaps, tags = maps_of(encoded, np.random.default_rng(0))
    batch = torch.cat([heatmaps, torch.zeros_like(heatmaps)]), torch.cat([tags, tags])
    found, scores, of_people = codec.batch_decode(batch[0], torch.cat([batch[1]] * 2, 1))
    assert [len(each) for each in found] == [len(each) for each in scores] == [2, 0]
    np.testing.assert_allclose(np.sort(found[0][:, 0, 0]), [20, 90], atol=4)
    assert len(of_people[1]) == 0


def test_a_missing_joint_lies_where_the_tag_fits_best() -> None:
    codec = AssociativeEmbeddingCodec(**SIZES)
    visible = np.ones((1, JOINTS), np.float32)
    visible[0, 3] = 0
    encoded = codec.encode(np.full((1, JOINTS, 2), 40, np.float32), visible)
    heatmaps = torch.from_numpy(encoded['heatmaps'])[None]
    tags = torch.full_like(heatmaps, 5.0)
    tags[:, :, 10, 10] = 1.0
    tags[0, 3, 7, 21] = 1.2
    heatmaps[0, 3, 7, 21] = 0.05
    ((joints,), (scores,), (of_person,)) = codec.batch_decode(heatmaps, tags)
    assert joints[0, 3].tolist() == [84.0, 28.0] and scores[0, 3] == np.float32(0.05)
    assert of_person[0] == pytest.approx((JOINTS - 1) / JOINTS)


@pytest.mark.parametrize('use_udp', [False, True])
def test_bad_input_is_defined(use_udp: bool) -> None:
    codec = AssociativeEmbeddingCodec(**SIZES, use_udp=use_udp)
    nobody = codec.encode(np.zeros((0, JOINTS, 2), np.float32), np.zeros((0, JOINTS), np.float32))
    assert nobody['heatmaps'].shape == (JOINTS, SIDE, SIDE) and not nobody['heatmaps'].any()
    assert nobody['keypoint_indices'].shape == (0, JOINTS, 2)
    odd = np.full((1, JOINTS, 2), np.nan, np.float32)
    odd[0, 0] = np.inf
    odd[0, 1] = 1e9
    odd[0, 2] = 30
    encoded = codec.encode(odd)
    assert encoded['keypoint_indices'][0, :, 1].tolist() == [0, 0, 1, 0, 0, 0]
    assert encoded['keypoint_weights'].tolist() == [[0, 0, 1, 0, 0, 0]]
    assert (
        np.isfinite(encoded['heatmaps']).all() and (encoded['heatmaps'] > 0).any((1, 2)).sum() == 1
    )
    heatmaps = torch.from_numpy(encoded['heatmaps'])[None]
    for broken in (torch.nan, torch.inf):
        maps, tags = heatmaps.clone(), torch.zeros_like(heatmaps)
        maps[0, 3] = broken
        tags[0, 4] = broken
        ((joints,), (scores,), _) = codec.batch_decode(maps, tags)
        assert len(joints) == 1 and np.isfinite(joints).all() and np.isfinite(scores).all()
    empty = codec.batch_decode(torch.full_like(heatmaps, torch.nan), torch.zeros_like(heatmaps))
    assert empty[0][0].shape == (0, JOINTS, 2)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(heatmap_size=(32,)), 'heatmap_size must be width and height'),
        (dict(sigma=0), 'sigma must be above 0'),
        (dict(decode_nms_kernel=4), 'decode_nms_kernel must be odd'),
        (dict(decode_topk=0), 'decode_topk must be'),
    ],
)
def test_options_out_of_range_are_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AssociativeEmbeddingCodec(**{**SIZES, **options})


def test_maps_that_do_not_fit_are_named() -> None:
    codec = AssociativeEmbeddingCodec(**SIZES)
    with pytest.raises(ValueError, match=r'batch_tags must be \(1, T \* 6, 32, 32\)'):
        codec.batch_decode(torch.zeros(1, JOINTS, SIDE, SIDE), torch.zeros(1, 7, SIDE, SIDE))
    with pytest.raises(NotImplementedError, match='batch_decode'):
        codec.decode(None)
