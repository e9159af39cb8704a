"""Samplers by classes: how often images come, over epochs, ranks, and resumed trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet_ext.engine.samplers import by_class
from mmdet_ext.engine.samplers.presence import class_presence
from mmdet_ext.engine.samplers.progressively_balanced import ProgressivelyBalancedSampler
from mmdet_ext.engine.samplers.repeat_factor import RepeatFactorSampler

#: Classes of the objects of each image: one has class 2, one has no object, 7 has none.
OBJECTS = [[0], [0, 0, 1], [0], [1, 2, 0], [], [0], [0, 1], [0, 0, 0], [0], [0]]


class Images(BaseDataset):
    """Data set that knows the classes of its images."""

    METAINFO = {'classes': tuple('abcd')}

    def __init__(self, objects: list[list[int]] = OBJECTS) -> None:
        self.objects = objects
        super().__init__(serialize_data=False, lazy_init=not objects)

    def load_data_list(self) -> list[dict[str, Any]]:
        return [{'index': index} for index in range(len(self.objects))]

    def __len__(self) -> int:
        return len(self.objects)

    def get_cat_ids(self, index: int) -> list[int]:
        return self.objects[index]


def epoch(sampler: Any, number: int) -> list[int]:
    sampler.set_epoch(number)
    return list(sampler)


def shares(sampler: Any, number: int, draws: int = 1000) -> np.ndarray:
    """Return how often each image comes in an epoch, over many seeds."""
    counts = np.zeros(len(OBJECTS))
    for seed in range(draws):
        sampler.seed = seed
        counts += np.bincount(epoch(sampler, number), minlength=len(OBJECTS))
    return counts / draws


def test_the_first_epoch_draws_images_alike_and_the_last_one_classes() -> None:
    sampler = ProgressivelyBalancedSampler(Images(), 3, seed=0)
    # A class is drawn, and then one of its images: 0 has 9 images, 1 has 3, and 2 has one.
    by_class_ = np.zeros(len(OBJECTS))
    for label, images in enumerate(([0, 1, 2, 3, 5, 6, 7, 8, 9], [1, 3, 6], [3])):
        assert [i for i, found in enumerate(OBJECTS) if label in found] == images
        by_class_[images] += 1 / 3 / len(images)
    for number, expected in enumerate((0.1, (0.1 + by_class_) / 2, by_class_, by_class_)):
        np.testing.assert_allclose(sampler.probabilities(number), expected, atol=1e-12)
        tolerance = 5 * np.sqrt(10 * 0.5 / 1000)
        np.testing.assert_allclose(
            shares(sampler, number), 10 * np.broadcast_to(expected, 10), atol=tolerance
        )
    assert 4 not in epoch(sampler, 2)
    only = ProgressivelyBalancedSampler(Images(), 1)
    np.testing.assert_allclose(only.probabilities(0), by_class_)


@pytest.mark.parametrize('threshold', [0.05, 0.35, 0.95])
def test_factors_are_those_of_class_balanced_dataset(threshold: float) -> None:
    theirs = ClassBalancedDataset(Images(), oversample_thr=threshold)
    ours = RepeatFactorSampler(Images(), threshold)
    # It rounds its factors up.
    assert np.bincount(theirs.repeat_indices).tolist() == np.ceil(ours.factors).tolist()
    assert len(ours) == round(ours.factors.sum()) <= len(theirs)


@pytest.mark.parametrize('options', [{}, {'least': 0.3}, {'most': 1.5}, {'least': 0.5, 'most': 2}])
def test_fractional_repeats_are_right_on_average_and_drawn_anew(options: Any) -> None:
    sampler = RepeatFactorSampler(Images(), 0.4, seed=0, **options)
    factors = sampler.factors
    assert factors.min() >= options.get('least', 1) and factors.max() <= options.get('most', 9)
    # The image without an object is not among the rare.
    assert factors[4] == options.get('least', 1)
    stretched = factors * len(sampler) / factors.sum()
    for seed in range(20):
        sampler.seed = seed
        counts = np.bincount(epoch(sampler, 0), minlength=10)
        assert counts.sum() == len(sampler)
        assert (counts >= np.floor(stretched - 1e-9)).all()
        assert (counts <= np.ceil(stretched + 1e-9)).all()
    np.testing.assert_allclose(shares(sampler, 1), stretched, atol=0.08)
    assert len({tuple(np.bincount(epoch(sampler, i), minlength=10)) for i in range(20)}) > 1
    steady = RepeatFactorSampler(Images(), 0.4, shuffle=False, **options)
    assert epoch(steady, 0) == epoch(steady, 1) == sorted(epoch(steady, 0))


def test_joined_and_repeated_data_sets_are_asked_in_their_parts() -> None:
    joined = ConcatDataset([Images(), Images([[3], [3]])])
    pairs = [(i, label) for i, labels in enumerate(OBJECTS) for label in sorted(set(labels))]
    twice = pairs + [(10 + image, label) for image, label in pairs]
    for dataset, expected in (
        (joined, [*pairs, (10, 3), (11, 3)]),
        (RepeatDataset(Images(), 2), twice),
    ):
        found = class_presence(dataset)
        assert found.num_images == len(dataset)
        assert list(zip(found.image.tolist(), found.label.tolist(), strict=True)) == expected
    assert found.images_per_class().tolist() == [18, 6, 2]


MAKERS = {
    'progressive': lambda data, **options: ProgressivelyBalancedSampler(data, 4, **options),
    'repeat factor': lambda data, **options: RepeatFactorSampler(data, 0.5, **options),
}
each_maker = pytest.mark.parametrize('maker', MAKERS.values(), ids=MAKERS)


@each_maker
@pytest.mark.parametrize('round_up', [True, False])
def test_ranks_share_one_list(maker: Any, round_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = maker(Images(), seed=7)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(by_class, 'get_dist_info', lambda rank=rank: (rank, 3))
        parts.append(maker(Images(), seed=7, round_up=round_up))
    for number in range(3):
        lists = [epoch(part, number) for part in parts]
        assert {len(each) for each in lists} == {len(parts[0])}
        together = [image for step in zip(*lists, strict=True) for image in step]
        expected = epoch(whole, number)
        kept = min(len(together), len(expected))
        assert together[:kept] == expected[:kept] and abs(len(together) - len(expected)) < 3
        assert (len(together) >= len(expected)) is round_up or len(together) == len(expected)


@each_maker
def test_epochs_depend_on_seed_and_number_alone(maker: Any) -> None:
    one, same, other = (maker(Images(), seed=seed) for seed in (3, 3, 4))
    lists = [epoch(one, number) for number in range(4)]
    assert [epoch(same, number) for number in (3, 2, 1, 0)] == lists[::-1]
    assert len({tuple(each) for each in [*lists, epoch(other, 0)]}) == 5
    assert all(type(image) is int for image in lists[0])


class Recorder(BaseModel):
    """Model that writes down the images of its batches."""

    def __init__(self, seen: list[int]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen = seen

    def forward(self, index: list[int], sample_idx: Any, mode: str = 'loss') -> dict[str, Tensor]:
        self.seen += index
        return {'loss': self.scale.sum() * 0}


def train(sampler: Any, folder: Path, iterations: int, resume: bool) -> list[int]:
    seen: list[int] = []
    model = Recorder(seen)
    runner = Runner(
        model,
        str(folder),
        train_dataloader=dict(
            dataset=Images(), sampler=sampler, batch_size=3, num_workers=0, drop_last=False
        ),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), 0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=5, by_epoch=False)),
        resume=resume,
        experiment_name=f'{folder.name}{iterations}',
        log_level='ERROR',
    )
    runner.train()
    return seen


@each_maker
def test_a_training_resumed_in_mid_epoch_sees_the_same_images(maker: Any, tmp_path: Path) -> None:
    """Five steps of three are one epoch of ten images, and a part of the next."""
    whole = train(maker(Images(), seed=1), tmp_path / 'whole', 11, resume=False)
    first = train(maker(Images(), seed=1), tmp_path / 'parts', 5, resume=False)
    rest = train(maker(Images(), seed=1), tmp_path / 'parts', 11, resume=True)
    assert first + rest == whole


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(type='ProgressivelyBalancedSampler', epochs=0), 'epochs must be'),
        (dict(type='ProgressivelyBalancedSampler', epochs=2.5), 'epochs must be'),
        (dict(type='RepeatFactorSampler', oversample_thr=0), 'oversample_thr must be'),
        (dict(type='RepeatFactorSampler', oversample_thr=float('nan')), 'oversample_thr must be'),
        (dict(type='RepeatFactorSampler', oversample_thr=0.1, least=0), 'least must be'),
        (dict(type='RepeatFactorSampler', oversample_thr=0.1, least=1.5), 'least must be'),
        (dict(type='RepeatFactorSampler', oversample_thr=0.1, most=0.5), 'most must be'),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    options['type'] = f'mmdet_ext.{options["type"]}'
    with pytest.raises(ValueError, match=message):
        DATA_SAMPLERS.build(options, default_args=dict(dataset=Images()))


@each_maker
def test_data_sets_without_images_or_classes_are_refused(maker: Any) -> None:
    with pytest.raises(ValueError, match='needs images, and the data set has none'):
        maker(Images([]))
    with pytest.raises(TypeError, match='list gives no classes: a sampler by classes needs'):
        maker([1, 2, 3])
    with pytest.raises(ValueError, match='at least 0, got -1 in image 1'):
        maker(Images([[0], [-1]]))


def test_without_any_object_there_is_nothing_to_balance() -> None:
    with pytest.raises(ValueError, match='no image of the data set has an object'):
        ProgressivelyBalancedSampler(Images([[], []]), 2)
    assert sorted(epoch(RepeatFactorSampler(Images([[], []]), 0.1), 0)) == [0, 1]
