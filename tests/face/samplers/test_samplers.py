"""Batches of P identities x K images: their content over epochs, ranks and odd data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner

from mmdet_ext.face.samplers import identity_balanced
from mmdet_ext.face.samplers.identity_balanced import IdentityBalancedSampler, identity_labels


class Labelled:
    """Data set that gives its labels."""

    def __init__(self, labels: list[int] | np.ndarray) -> None:
        self.labels = np.asarray(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> int:
        return index

    def get_gt_labels(self) -> np.ndarray:
        return self.labels


class Entries(BaseDataset):
    """Data set of MMEngine that has labels only in its entries."""

    def __init__(self, labels: list[int], key: str = 'gt_label') -> None:
        self._given = [{key: label} for label in labels]
        super().__init__(lazy_init=True)

    def load_data_list(self) -> list[dict]:
        return self._given


def uneven(identities: int = 13, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities) * 3, rng.integers(4, 12, identities))
    return rng.permutation(labels)


def batches(sampler: IdentityBalancedSampler) -> np.ndarray:
    p, k = sampler.identities_per_batch, sampler.pictures_per_identity
    return np.array(list(sampler)).reshape(-1, p, k)


def on_ranks(monkeypatch: pytest.MonkeyPatch, world: int, *args, **kwargs) -> list[np.ndarray]:
    found = []
    for rank in range(world):
        monkeypatch.setattr(identity_balanced, 'get_dist_info', lambda rank=rank: (rank, world))
        sampler = IdentityBalancedSampler(*args, **kwargs)
        found.append(batches(sampler))
        assert found[-1].size == len(sampler)
    return found


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize(('p', 'k'), [(4, 3), (13, 4), (5, 1), (1, 2), (7, 4)])
def test_every_batch_has_p_identities_of_k_different_images(p: int, k: int, shuffle: bool) -> None:
    labels = uneven()
    sampler = IdentityBalancedSampler(Labelled(labels), p, k, shuffle=shuffle, seed=3)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for batch in batches(sampler):
            of = labels[batch]
            assert (of == of[:, :1]).all()
            assert len(set(of[:, 0])) == p
            assert len(set(batch.reshape(-1))) == p * k


@pytest.mark.parametrize('round_up', [True, False])
def test_length_is_the_number_of_images_rounded(round_up: bool) -> None:
    data = Labelled(uneven())
    sampler = IdentityBalancedSampler(data, 4, 3, seed=0, round_up=round_up)
    expected = -(-len(data) // 12) if round_up else len(data) // 12
    assert len(data) % 12 != 0
    assert len(sampler) == len(list(sampler)) == expected * 12


def test_identities_occur_equally_often_and_no_image_repeats_early() -> None:
    labels = np.repeat([0, 1, 2], [4, 40, 16])
    sampler = IdentityBalancedSampler(Labelled(labels), 2, 4, seed=1)
    indices = np.array(list(sampler))
    visits = np.bincount(labels[indices]) / 4
    assert visits.max() - visits.min() <= 1
    big = indices[labels[indices] == 1]
    assert len(big) >= 16 and len(set(big)) == len(big)
    times = np.bincount(indices[labels[indices] == 0], minlength=4)[:4]
    assert times.max() == times.min() > 1


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = IdentityBalancedSampler(Labelled(uneven()), 4, 2, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_without_shuffle_identities_are_in_order_of_labels_and_images_of_indices() -> None:
    sampler = IdentityBalancedSampler(Labelled([2, 0, 1, 0, 2, 1, 0]), 2, 2, shuffle=False, seed=0)
    # Round 1 is 0, 1, 2. The batch with 2 is completed by 0, which continues with its third image.
    assert list(sampler) == [1, 3, 2, 5, 0, 4, 6, 1]


@pytest.mark.parametrize('world', [2, 3])
@pytest.mark.parametrize('identities', [12, 13, 29])
def test_ranks_share_no_identity_in_a_step(
    monkeypatch: pytest.MonkeyPatch, world: int, identities: int
) -> None:
    labels = uneven(identities)
    ranks = on_ranks(monkeypatch, world, Labelled(labels), 4, 2, seed=0)
    assert len({rank.shape for rank in ranks}) == 1
    for step in zip(*ranks, strict=True):
        of = labels[np.concatenate(step)]
        assert (of == of[:, :1]).all()
        assert len(set(of[:, 0])) == 4 * world


def test_ranks_together_are_one_process_of_larger_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Labelled(uneven(20))
    ranks = on_ranks(monkeypatch, 2, data, 3, 2, seed=5)
    (alone,) = on_ranks(monkeypatch, 1, data, 6, 2, seed=5)
    assert (np.concatenate(ranks, axis=1) == alone).all()


def test_identities_of_few_images_repeat_them_evenly_and_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(identity_balanced, 'print_log', lambda text, **_: lines.append(text))
    labels = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2])
    sampler = IdentityBalancedSampler(Labelled(labels), 3, 4, seed=0)
    for row in batches(sampler).reshape(-1, 4):
        identity = labels[row[0]]
        assert (labels[row] == identity).all()
        assert len(set(row)) == min(4, (labels == identity).sum())
    assert lines == [
        'IdentityBalancedSampler: of 3 identities 2 have fewer than 4 images, which repeat; '
        '1 have one image and give no genuine pair'
    ]


def test_identities_of_one_image_can_be_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(identity_balanced, 'print_log', lambda text, **_: lines.append(text))
    labels = np.array([4, 1, 1, 9, 2, 2])
    sampler = IdentityBalancedSampler(Labelled(labels), 2, 2, seed=0, single='skip')
    assert len(sampler) == 4
    assert sorted(sampler) == [1, 2, 4, 5]
    assert lines == ['IdentityBalancedSampler: of 4 identities 2 have one image and are skipped']
    with pytest.raises(ValueError, match='the data has 2 of at least two images: lower'):
        IdentityBalancedSampler(Labelled(labels), 3, 2, seed=0, single='skip')


@pytest.mark.parametrize(
    ('labels', 'options', 'message'),
    [
        (
            [0, 1],
            dict(identities_per_batch=3),
            'takes 3 different identities on each of 1 ranks, but '
            'the data has 2: lower identities_per_batch to at most 2',
        ),
        ([], {}, 'whole numbers|the data has 0'),
        ([-1, 0], {}, 'at least 0.*the least -1'),
        ([0.5, 1.0], {}, 'whole numbers.*float64'),
        (
            [0, 1],
            dict(pictures_per_identity=0),
            'pictures_per_identity must be .* from 1 on, got 0',
        ),
        ([0, 1], dict(identities_per_batch=2.0), r'must be a whole number from 1 on, got 2\.0'),
        ([0, 1], dict(single='drop'), "single must be 'repeat' or 'skip', got 'drop'"),
    ],
)
def test_errors(labels: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IdentityBalancedSampler(
            Labelled(labels),
            **{'identities_per_batch': 2, 'pictures_per_identity': 2, **options},
            seed=0,
        )


@pytest.mark.slow
def test_labels_of_entries_and_wrappers() -> None:
    first, second = Entries([3, 3, 1, 1]), Entries([1, 2, 2])
    both = ConcatDataset([first, second])
    assert identity_labels(first).tolist() == [3, 3, 1, 1]
    assert identity_labels(both).tolist() == [3, 3, 1, 1, 1, 2, 2]
    assert identity_labels(ConcatDataset([first, second])).tolist() == [3, 3, 1, 1, 1, 2, 2]
    with pytest.raises(TypeError, match="Entries have no 'gt_label'"):
        identity_labels(Entries([1], key='label'))
    with pytest.raises(TypeError, match='list has neither'):
        identity_labels([1, 2])


def test_a_repeated_data_set_makes_longer_epochs_of_different_images() -> None:
    sampler = IdentityBalancedSampler(RepeatDataset(Entries([0, 0, 1, 1]), times=3), 2, 2, seed=0)
    assert len(sampler) == 12
    for batch in batches(sampler):
        assert sorted(batch.reshape(-1)) == [0, 1, 2, 3]


def test_sampler_works_in_a_loader_of_the_runner() -> None:
    labels = uneven(9)
    loader = Runner.build_dataloader(
        dict(
            batch_size=6,
            num_workers=0,
            dataset=Labelled(labels),
            collate_fn=torch.tensor,
            sampler=dict(
                type='mmdet_ext.IdentityBalancedSampler',
                identities_per_batch=3,
                pictures_per_identity=2,
            ),
        ),
        seed=7,
    )
    assert loader.sampler.seed == 7
    assert type(loader.sampler) is DATA_SAMPLERS.get('mmdet_ext.IdentityBalancedSampler')
    found = list(loader)
    assert len(found) == len(loader) == -(-len(labels) // 6)
    for batch in found:
        of = labels[batch.numpy()].reshape(3, 2)
        assert (of[:, 0] == of[:, 1]).all() and len(set(of[:, 0])) == 3


def test_a_hundred_thousand_identities_are_sampled_quickly() -> None:
    labels = np.random.default_rng(0).integers(0, 100_000, 1_000_000)
    sampler = IdentityBalancedSampler(Labelled(labels), 128, 4, seed=0)
    found = batches(sampler)
    assert (labels[found] == labels[found][..., :1]).all()
    ids = np.sort(labels[found][..., 0], axis=1)
    assert (np.diff(ids, axis=1) > 0).all()
