"""Data sets of pairs that are joined: their names, their metainfo, and what data samples carry."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import mmpretrain.datasets  # noqa: F401
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_ext.data.face.pairs.sets import default_name, pairs_from
from mmdet_ext.face.datasets.pairs import FacePairsDataset
from mmdet_ext.registry import DATASETS
from tests.face.joined import PAIRS, PIPELINE, run, write_bin, write_lfw, write_table

REPO = Path(__file__).parents[3]


@pytest.fixture(scope='module')
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    root = tmp_path_factory.mktemp('sets')
    return [write_lfw(root, 1), write_table(root, 2), write_bin(root, 3)]


@pytest.mark.parametrize(
    ('path', 'name'),
    [
        ('data/lfw.bin', 'lfw'),
        ('data/agedb_30.BIN', 'agedb_30'),
        ('data/lfw/pairs.txt', 'lfw'),
        ('data/lfw/Pairs.csv', 'lfw'),
        ('data/lfw/pairsDevTest.txt', 'pairsDevTest'),
        ('data/v1.2/list.final.csv', 'list.final'),
        ('/pairs.txt', 'pairs'),
        ('data/cplfw/mean.csv', 'cplfw'),
        ('data/mean/pairs.txt', 'pairs'),
    ],
)
def test_default_names(path: str, name: str) -> None:
    assert default_name(path) == name


def test_name_of_a_list_without_folder_is_that_of_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'lfw').mkdir()
    monkeypatch.chdir(tmp_path / 'lfw')
    assert default_name('pairs.txt') == 'lfw'


@pytest.mark.parametrize('name', ['', ' ', 'a/b', 'a\\b', '.hidden', '..', 'mean', ' lfw', 7])
def test_names_that_cannot_name_results_are_refused(sets: list[Any], name: Any) -> None:
    with pytest.raises(ValueError, match=r'name must .*got '):
        DATASETS.build(dict(sets[2], name=name))
    assert DATASETS.build(dict(sets[2], name='CFP-FP 1.0')).name == 'CFP-FP 1.0'


@pytest.mark.parametrize('number', range(3), ids=['lfw', 'table', 'bin'])
def test_data_samples_carry_their_pairs(sets: list[Any], number: int) -> None:
    dataset = DATASETS.build(dict(sets[number], name='mine'))
    twin = pickle.loads(pickle.dumps(dataset))
    carried = [twin[k]['data_samples'].pair_set for k in range(len(dataset))]
    assert [one['image'] for one in carried] == list(range(24))
    assert {(one['name'], one['images'], one['pairs']) for one in carried} == {('mine', 24, 36)}
    assert sum(len(one['place']) for one in carried) == 72
    assert pairs_from(carried[::-1]) == dataset.metainfo['pairs']
    assert dataset[-1]['data_samples'].pair_set == carried[23]
    with pytest.raises(ValueError, match='of 36 pairs lack an image'):
        pairs_from(carried[1:])
    # Without packing, an entry is what it was.
    bare = DATASETS.build(dict(sets[number], pipeline=PIPELINE[:1]))[3]
    assert 'pair_set' not in bare and bare['sample_idx'] == 3


def test_each_of_several_views_carries_its_pairs(sets: list[Any]) -> None:
    flips = [dict(type='mmpretrain.RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    views = dict(type='TestTimeAug', transforms=[flips, PIPELINE[1:]])
    dataset = DATASETS.build(dict(sets[0], pipeline=[PIPELINE[0], views]))
    samples = dataset[5]['data_samples']
    assert [sample.pair_set['image'] for sample in samples] == [5, 5]


def test_pairs_are_compared_whole(sets: list[Any]) -> None:
    one, two, three = (DATASETS.build(config).metainfo['pairs'] for config in sets)
    assert two == three and not two != three  # the same people and images in two forms
    assert one != two and not one == two
    assert two == dict(two) and two != {'index': two['index']} and two != 3
    assert copy.deepcopy(two) == two == pickle.loads(pickle.dumps(two))
    assert list(two) == ['index', 'same', 'fold'] and copy.deepcopy(two).images == 24


def test_pickled_metainfo_is_plain(sets: list[Any]) -> None:
    # MMEngine writes the metainfo into checkpoints, which other machines read.
    for meta in (
        DATASETS.build(sets[0]).metainfo,
        DATASETS.build(dict(type='mmengine.ConcatDataset', datasets=sets)).metainfo,
    ):
        written = pickle.dumps(meta)
        assert b'mmdet_ext' not in written
        found = pickle.loads(written)
        assert type(found) is dict and type(found['pairs']) is dict
        assert meta['pairs'] == found['pairs'] and meta['classes'] == found['classes']
        assert type(copy.copy(meta)) is type(copy.deepcopy(meta)) is type(meta)
        assert copy.copy(meta['pairs']).images == 24


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet'])
def test_joined_data_sets_have_the_metainfo_of_the_first(sets: list[Any], scope: str) -> None:
    wrapped = dict(type=f'{scope}.ConcatDataset')
    dataset = DATASETS.build(dict(wrapped, datasets=sets))
    meta = dataset.metainfo
    assert meta['classes'] == tuple(f'p{k}' for k in range(6))
    assert {'classes', 'pairs'} <= set(meta) == set(meta.keys())
    assert meta['pairs']['same'].tolist() == ([True] * 6 + [False] * 6) * 3
    assert len(dataset) == 72 and dataset[30]['data_samples'].pair_set['name'] == 'agedb'
    turned = DATASETS.build(dict(wrapped, datasets=sets[::-1])).metainfo
    assert 'classes' not in turned and turned.get('classes') is None
    # What the user states of a set must still agree.
    stated = [dict(one, metainfo=dict(race=k)) for k, one in enumerate(sets)]
    if scope == 'mmengine':
        with pytest.raises(ValueError, match='does not match meta information of the first'):
            DATASETS.build(dict(wrapped, datasets=stated))


def test_metainfo_is_otherwise_a_dict(sets: list[Any]) -> None:
    meta = FacePairsDataset(**{k: v for k, v in sets[0].items() if k != 'type'}).metainfo
    assert isinstance(meta, dict) and dict(meta).keys() == {'classes', 'pairs'}
    assert {**meta}.keys() == set(meta.keys()) == {'classes', 'pairs'}
    assert len(meta.keys()) == 2 and 'pairs' in meta.keys()
    assert sorted(copy.deepcopy(meta)) == sorted(pickle.loads(pickle.dumps(meta)))
    with pytest.raises(KeyError, match="'palette' is not in the metainfo"):
        meta['palette']


def test_fragment_of_three_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fragment = REPO / 'configs' / '_base_' / 'datasets' / 'ms1mv3_lfw_cfp_agedb.py'
    cfg = Config.fromfile(fragment)
    assert cfg.train_dataloader.dataset.type == 'mmdet_ext.FaceRecordDataset'
    monkeypatch.chdir(tmp_path)
    folder = Path(cfg.data_root)
    for seed, name in enumerate(('lfw', 'cfp_fp', 'agedb_30')):
        write_bin(folder, seed, name, PAIRS)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        found = run(tmp_path, cfg.test_dataloader.dataset, cfg.test_evaluator, scope='mmpretrain')
    names = ('lfw', 'cfp_fp', 'agedb_30', 'mean')
    assert [found[f'face/{name}/accuracy'] for name in names] == [1, 1, 1, 1]
    assert np.isclose(found['face/mean/auc'], 1)
