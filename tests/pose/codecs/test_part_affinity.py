"""Codec of part affinity fields: people to targets and back, and input that is not usual."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip('mmpose', reason='MMPose is absent')

from mmdet_ext.pose.codecs.part_affinity import PartAffinityField

SIDE = 32
#: A trunk, and two arms.
LIMBS = [(0, 1), (0, 2), (0, 3)]
SIZES: dict[str, Any] = dict(input_size=(4 * SIDE, 4 * SIDE), heatmap_size=(SIDE, SIDE), sigma=1)
#: Two people beside one another, px of the input.
PEOPLE = np.array(
    [[[32, 20], [32, 90], [14, 50], [50, 50]], [[92, 24], [90, 96], [74, 60], [110, 40]]],
    np.float32,
)


def codec(**options: Any) -> PartAffinityField:
    """Make the codec of this file's limbs."""
    return PartAffinityField(**SIZES, limbs=LIMBS, **options)


def maps_of(encoded: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return the maps that a perfect network would predict."""
    return torch.from_numpy(encoded['heatmaps'])[None], torch.from_numpy(encoded['limb_fields'])[
        None
    ]


def by_place(people: np.ndarray) -> np.ndarray:
    """Sort people from left to right."""
    return people[np.argsort(people[:, 0, 0])]


@pytest.mark.parametrize('matching', ['optimal', 'greedy'])
@pytest.mark.parametrize('unbiased', [True, False])
def test_people_come_back(matching: Any, unbiased: bool) -> None:
    one = codec(matching=matching, unbiased=unbiased)
    keypoints, scores, of_people = one.batch_decode(*maps_of(one.encode(PEOPLE)))
    found = by_place(keypoints[0])
    assert found.shape == PEOPLE.shape
    # A rounded joint is off by half a cell at most, 2 px; an unbiased one only by rounding.
    assert np.abs(found - PEOPLE).max() <= (0.05 if unbiased else 2.0)
    # A Gaussian half a cell away, along both axes.
    assert scores[0].min() >= np.exp(-0.25) - 1e-6
    assert np.allclose(of_people[0], scores[0].mean(1))


def test_a_batch_is_decoded_image_by_image() -> None:
    one = codec()
    maps = [maps_of(one.encode(PEOPLE[:count])) for count in (2, 0, 1)]
    batch = tuple(torch.cat(parts) for parts in zip(*maps, strict=True))
    keypoints, scores, of_people = one.batch_decode(*batch)
    assert [len(each) for each in keypoints] == [2, 0, 1]
    assert keypoints[1].shape == (0, 4, 2)
    assert scores[1].shape == (0, 4)
    assert of_people[1].shape == (0,)
    assert np.array_equal(keypoints[2], one.batch_decode(*maps[2])[0][0])


def test_joints_without_label_are_neither_drawn_nor_found() -> None:
    one = codec()
    visible = np.array([[2, 1, 0, 2], [0, 0, 0, 0]], np.float32)
    encoded = one.encode(PEOPLE, visible)
    assert (encoded['heatmaps'].reshape(4, -1).max(1) > 0).tolist() == [True, True, False, True]
    assert not encoded['limb_fields'][2:4].any()
    (keypoints,), (scores,), _ = one.batch_decode(*maps_of(encoded))
    assert len(keypoints) == 1
    assert keypoints[0, 2].tolist() == [0, 0]
    assert scores[0, 2] == 0
    assert (scores[0, [0, 1, 3]] > 0).all()


@pytest.mark.parametrize(
    ('people', 'visible', 'found'),
    [
        (np.zeros((0, 4, 2), np.float32), None, 0),
        (PEOPLE, np.zeros((2, 4), np.float32), 0),
        # One labelled joint is a person of one joint.
        (PEOPLE[:1], np.array([[1, 0, 0, 0]], np.float32), 1),
        (PEOPLE + 1000, None, 0),
        (np.full((1, 4, 2), np.nan, np.float32), None, 0),
        (np.full((1, 4, 2), np.inf, np.float32), None, 0),
    ],
    ids=['nobody', 'all hidden', 'one joint', 'outside', 'nan', 'infinite'],
)
def test_unusual_people_have_targets(people: Any, visible: Any, found: int) -> None:
    one = codec()
    encoded = one.encode(people, visible)
    assert all(np.isfinite(encoded[name]).all() for name in ('heatmaps', 'limb_fields'))
    (keypoints,), (scores,), (of_people,) = one.batch_decode(*maps_of(encoded))
    assert len(keypoints) == len(scores) == len(of_people) == found


def test_joints_at_one_place_have_no_field_between_them() -> None:
    one = codec()
    people = PEOPLE[:1].copy()
    people[0, 1] = people[0, 0]
    encoded = one.encode(people)
    assert not encoded['limb_fields'][:2].any()
    keypoints, scores, _ = one.batch_decode(*maps_of(encoded))
    # Nothing ties the joint to its owner: it is a person alone.
    assert sorted((each > 0).sum() for each in scores[0]) == [1, 3]
    assert np.isfinite(keypoints[0]).all()


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('part', [0, 1])
def test_maps_that_are_not_finite_give_finite_people(value: float, part: int) -> None:
    one = codec()
    maps = list(maps_of(one.encode(PEOPLE)))
    maps[part] = torch.full_like(maps[part], value)
    keypoints, scores, of_people = one.batch_decode(*maps)
    assert len(keypoints[0]) == (0 if part == 0 else 8)
    for each in (keypoints[0], scores[0], of_people[0]):
        assert np.isfinite(each).all()


def test_people_of_few_joints_and_beyond_the_best_are_left_out() -> None:
    visible = np.array([[2, 2, 2, 2], [2, 0, 0, 0]], np.float32)
    maps = maps_of(codec().encode(PEOPLE, visible))
    counts = [
        len(codec(**options).batch_decode(*maps)[0][0])
        for options in ({}, {'decode_min_joints': 2}, {'decode_max_instances': 1})
    ]
    assert counts == [2, 1, 1]
    best = codec(decode_max_instances=1).batch_decode(*maps)[1][0]
    assert (best > 0).all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'sigma': 0}, 'sigma must be'),
        ({'width': -1}, 'width must be'),
        ({'overhang': -0.5}, 'overhang must be'),
        ({'matching': 'best'}, "matching must be one of .* got 'best'"),
        ({'decode_nms_kernel': 4}, 'decode_nms_kernel must be'),
        ({'decode_topk': 0}, 'decode_topk must be'),
        ({'decode_points': 1}, 'decode_points must be'),
        ({'decode_min_share': 1.5}, 'decode_min_share must be'),
        ({'decode_min_joints': 0}, 'decode_min_joints must be'),
        ({'decode_max_instances': 0}, 'decode_max_instances must be'),
        ({'limbs': 'cocoo'}, 'limbs must be one of'),
    ],
)
def test_options_out_of_range_are_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartAffinityField(**{**SIZES, **options})


def test_maps_that_do_not_fit_and_single_images_are_named() -> None:
    one = codec()
    heatmaps, fields = maps_of(one.encode(PEOPLE))
    with pytest.raises(ValueError, match=r'batch_fields must be .*two for each limb'):
        one.batch_decode(heatmaps, fields[:, :4])
    with pytest.raises(NotImplementedError, match='batch_decode'):
        one.decode(fields)
