"""Several sets of pairs in one loader: each is judged by its own pairs, and mix-ups are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import mmdet.datasets
import mmdet.evaluation  # noqa: F401
import numpy as np
import pytest

from mmdet_ext.registry import DATASETS
from tests._helpers.two_ranks import run_on_two_ranks
from tests.face.joined import (
    PAIRS,
    PIPELINE,
    Recogniser,
    run,
    write_bin,
    write_faces,
    write_lfw,
    write_table,
)

METRIC: dict[str, Any] = dict(type='mmdet_ext.FaceVerificationMetric', fars=[0.1])
NAMES = ['lfw', 'agedb', 'cfp_fp']
KINDS = ['accuracy', 'auc', 'eer', 'tar@far=1e-01']


@pytest.fixture(scope='module')
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Write a set in each of the three forms."""
    root = tmp_path_factory.mktemp('sets')
    return [write_lfw(root, 1), write_table(root, 2), write_bin(root, 3)]


def joined(*datasets: Any, scope: str = 'mmdet', **options: Any) -> dict[str, Any]:
    return dict(type=f'{scope}.ConcatDataset', datasets=list(datasets), **options)


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet'])
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'ignore_keys': ['pairs']},
        {'ignore_keys': ['pairs', 'classes']},
        {'lazy_init': True},
    ],
    ids=repr,
)
def test_each_set_is_reported_by_its_name(
    tmp_path: Path, sets: list[Any], scope: str, options: dict[str, Any]
) -> None:
    found = run(tmp_path, joined(*sets, scope=scope, **options), METRIC)
    assert [found[f'face/{name}/{kind}'] for name in NAMES for kind in KINDS] == [1, 1, 0, 1] * 3
    assert [found[f'face/mean/{kind}'] for kind in KINDS] == [1, 1, 0, 1]
    for name in NAMES:
        assert found[f'face/{name}/genuine_pairs'] == len(PAIRS[::2])
        assert found[f'face/{name}/impostor_pairs'] == len(PAIRS[1::2])
    assert not any(key.count('/') == 1 or 'mean/threshold' in key for key in found)


def test_lazy_data_sets_and_workers(tmp_path: Path, sets: list[Any]) -> None:
    lazy = [dict(one, lazy_init=True) for one in sets]
    found = run(tmp_path, joined(*lazy, scope='mmengine', lazy_init=True), METRIC, num_workers=2)
    assert [found[f'face/{name}/accuracy'] for name in [*NAMES, 'mean']] == [1, 1, 1, 1]


def test_figures_equal_those_of_each_set_alone(tmp_path: Path, sets: list[Any]) -> None:
    def model() -> Recogniser:
        return Recogniser(unknown='_0002')  # half of the embeddings are noise

    alone = {
        name: run(tmp_path / name, one, METRIC, model())
        for name, one in zip(NAMES, sets, strict=True)
    }
    assert alone['lfw']['face/auc'] < 0.95
    for order in (sets, sets[::-1]):
        found = run(tmp_path / order[0]['ann_file'], joined(*order), METRIC, model())
        for name in NAMES:
            own = {
                key.replace(f'/{name}/', '/'): value
                for key, value in found.items()
                if key.startswith(f'face/{name}/')
            }
            assert own == alone[name]
        for kind in KINDS:
            expected = np.mean([alone[name][f'face/{kind}'] for name in NAMES])
            assert found[f'face/mean/{kind}'] == pytest.approx(expected, abs=1e-12)


def test_one_set_keeps_its_names(tmp_path: Path, sets: list[Any]) -> None:
    expected = run(tmp_path / '0', sets[2], METRIC)
    assert {'face/accuracy', 'face/auc'} <= set(expected)
    wrapped = [
        joined(sets[2]),
        joined(sets[2], scope='mmengine'),
        dict(type='RepeatDataset', times=3, dataset=sets[2]),
        joined(sets[2], sets[2]),
    ]
    for number, dataset in enumerate(wrapped, 1):
        assert run(tmp_path / str(number), dataset, METRIC) == expected


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet'])
def test_nested_and_repeated_sets(tmp_path: Path, sets: list[Any], scope: str) -> None:
    expected = run(tmp_path / 'flat', joined(*sets, scope=scope), METRIC)
    repeated = dict(type='RepeatDataset', times=2, dataset=sets[1])
    nested = joined(joined(sets[0], repeated, scope=scope), sets[2], scope=scope)
    assert run(tmp_path / 'nested', nested, METRIC) == expected


def test_evaluator_of_several_data_sets(tmp_path: Path, sets: list[Any]) -> None:
    """Mmdet's evaluator gives each metric the images of one set, but the metainfo of the first."""
    evaluator = dict(
        type='MultiDatasetsEvaluator',
        metrics=[METRIC] * 3,
        dataset_prefixes=['one', 'two', 'three'],
    )
    found = run(tmp_path / 'a', joined(*sets), evaluator, Recogniser(unknown='agedb'))
    assert [found[f'{name}/face/accuracy'] for name in ('one', 'three')] == [1, 1]
    alone = run(tmp_path / 'b', sets[1], METRIC, Recogniser(unknown='agedb'))
    assert {f'two/{key}': value for key, value in alone.items()}.items() <= found.items()
    assert alone['face/accuracy'] < 0.9


@pytest.mark.slow
def test_files_of_each_set_and_of_all(tmp_path: Path, sets: list[Any]) -> None:
    out = tmp_path / 'out'
    found = run(tmp_path, joined(*sets), dict(METRIC, out_dir=str(out)))
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*NAMES, 'roc.png', 'verification.json']
    )
    content = json.loads((out / 'verification.json').read_text())
    assert content['sets'] == NAMES
    assert {f'face/{key}': value for key, value in content['figures'].items()} == found
    for name in NAMES:
        own = json.loads((out / name / 'verification.json').read_text())
        assert own['figures']['auc'] == found[f'face/{name}/auc']
        assert own['pictures'] == 24
        assert cv2.imread(str(out / name / 'roc.png')) is not None
    assert cv2.imread(str(out / 'roc.png')).std() > 10
    assert not list(out.rglob('*.part'))


def test_equal_names_get_their_folder_or_are_refused(tmp_path: Path) -> None:
    one, two = (write_bin(tmp_path / name, seed, 'test') for seed, name in enumerate('xy'))
    found = run(tmp_path / '0', joined(one, two), METRIC)
    assert [found[f'face/{name}/accuracy'] for name in ('x_test', 'y_test', 'mean')] == [1, 1, 1]
    named = [dict(one, name='t'), dict(two, name='t')]
    with pytest.raises(
        ValueError,
        match=r"2 sets of pairs have the name 't': .*x/test\.bin \(36 pairs of 24 images\) and .*"
        r"y/test\.bin .*Give each FacePairsDataset a name of its own, as name='t_2'",
    ):
        run(tmp_path / '1', joined(*named), METRIC)
    found = run(tmp_path / '2', joined(one, dict(one, name='again')), METRIC)
    assert {key.split('/')[1] for key in found} == {'test', 'again', 'mean'}


def test_images_that_were_not_evaluated_are_named(tmp_path: Path, sets: list[Any]) -> None:
    with pytest.raises(
        ValueError,
        match=r"set 'cfp_fp': metainfo\['pairs'\] of 'cfp_fp': 2 of the images were not evaluated, "
        'sample_idx 22, 23. The loader must go over the whole data set',
    ):
        run(tmp_path, joined(*sets), METRIC, drop_last=True)


def test_errors_of_a_set_name_it(tmp_path: Path, sets: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"set 'lfw': fars holds 0\.001, below 1 / 18"):
        run(tmp_path, joined(*sets), dict(METRIC, fars=[1e-3]))


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet'])
@pytest.mark.parametrize('chosen', [(0, 1), (1, 2)], ids=['files', 'table and bin'])
def test_samples_without_the_meta_key_are_refused(
    tmp_path: Path, sets: list[Any], scope: str, chosen: tuple[int, ...]
) -> None:
    """A model that makes data samples of its own loses the set of an image."""
    dataset = joined(*(sets[k] for k in chosen), scope=scope)
    with pytest.raises(ValueError, match="sample_idx 0: .*keep their meta key 'pair_set'"):
        run(tmp_path, dataset, METRIC, Recogniser(renew=True))


def test_sets_whose_metainfo_is_a_list(tmp_path: Path, sets: list[Any]) -> None:
    """The metainfo is a list in mmdet where what the user states of its data sets differs."""
    stated = joined(*(dict(one, metainfo=dict(source=k)) for k, one in enumerate(sets)))
    assert isinstance(DATASETS.build(stated).metainfo, list)
    expected = run(tmp_path / '0', joined(*sets), METRIC)
    assert run(tmp_path / '1', stated, METRIC) == expected
    with pytest.raises(ValueError, match="data samples must keep the meta key 'pair_set'"):
        run(tmp_path / '2', stated, METRIC, Recogniser(renew=True))


def test_pairs_of_another_set_are_refused(tmp_path: Path, sets: list[Any]) -> None:
    from mmdet_ext.face.metrics import FaceVerificationMetric

    less = write_bin(tmp_path, 3, 'less', PAIRS[:20])
    dataset, other = DATASETS.build(sets[2]), DATASETS.build(less)
    metric = FaceVerificationMetric(fars=[0.1])
    metric.dataset_meta = other.metainfo

    def samples(*removed: str) -> list[dict[str, Any]]:
        packed = [dataset[k] for k in range(len(dataset))]
        found = Recogniser()(
            [one['inputs'] for one in packed], [one['data_samples'] for one in packed]
        )
        return [{k: v for k, v in one.to_dict().items() if k not in removed} for one in found]

    metric.process(None, samples())
    with pytest.raises(
        ValueError,
        match=r"of the set 'cfp_fp', metainfo\['pairs'\] of another one: 36 and 20 pairs",
    ):
        metric.evaluate(len(dataset))
    metric.results.clear()
    metric.process(None, samples('pair_set'))
    with pytest.raises(ValueError, match="of 17 images, but 24 were evaluated, .*no 'pair_set'"):
        metric.evaluate(len(dataset))
    metric.results.clear()
    metric.dataset_meta = dataset.metainfo
    metric.process(None, samples('pair_set'))
    assert metric.evaluate(len(dataset))['face/accuracy'] == 1


def test_two_embeddings_of_one_image_are_refused(tmp_path: Path, sets: list[Any]) -> None:
    turned = dict(
        sets[1],
        pipeline=[PIPELINE[0], dict(type='mmpretrain.RandomFlip', prob=1.0), PIPELINE[1]],
    )
    with pytest.raises(
        ValueError, match='image of sample_idx 0 has two embeddings, of cosine .*different ways'
    ):
        run(tmp_path / '0', joined(sets[1], turned), METRIC)
    found = run(tmp_path / '1', joined(sets[1], dict(turned, name='turned')), METRIC)
    assert found['face/agedb/accuracy'] == found['face/turned/accuracy'] == 1


def test_all_pairs_over_sets(tmp_path: Path, sets: list[Any]) -> None:
    """Labels of two sets are different identities, unless both name one folder."""
    other = write_lfw(tmp_path, 9, 'other', '.PNG')
    metric = dict(METRIC, pairs='all')
    found = run(tmp_path / '0', joined(sets[0], other), metric)
    # 6 + 6 persons with 4 images each.
    assert found['face/genuine_pairs'] == 12 * 6
    assert found['face/genuine_pairs'] + found['face/impostor_pairs'] == 48 * 47 / 2
    assert found['face/auc'] == 1
    again = dict(sets[0], name='view 2')
    assert run(tmp_path / '1', joined(sets[0], again), metric) == run(
        tmp_path / '2', sets[0], metric
    )
    # Images of a .bin are of unknown persons, one each.
    found = run(tmp_path / '3', joined(sets[2], sets[0]), metric)
    assert found['face/genuine_pairs'] == 6 * 6


def test_other_data_beside_pairs_is_refused(tmp_path: Path, sets: list[Any]) -> None:
    write_faces(tmp_path / 'faces', 4, '.png')
    folder = dict(
        type='mmdet_ext.FaceFolderDataset', data_root=str(tmp_path / 'faces'), pipeline=PIPELINE
    )
    dataset = joined(folder, sets[0], scope='mmengine', ignore_keys=['classes'])
    with pytest.raises(
        ValueError, match='24 images belong to no set of pairs: .*Join FacePairsDatasets alone'
    ):
        run(tmp_path / '0', dataset, METRIC)
    found = run(tmp_path / '1', dataset, dict(METRIC, pairs='all'))
    assert found['face/genuine_pairs'] == 12 * 6 and found['face/auc'] == 1
    with pytest.raises(ValueError, match='two images have the sample_idx 0'):
        run(tmp_path / '2', joined(folder, folder | sets_root(sets)), dict(METRIC, pairs='all'))
    with pytest.raises(KeyError, match='may be joined with others of its kind alone'):
        DATASETS.build(joined(sets[2], folder))


def sets_root(sets: list[Any]) -> dict[str, Any]:
    return dict(data_root=sets[0]['data_root'])


def test_identification_takes_one_set(tmp_path: Path, sets: list[Any]) -> None:
    metric = dict(type='mmdet_ext.FaceIdentificationMetric')
    assert run(tmp_path / '0', joined(sets[0]), metric)['face/rank-1'] == 1
    with pytest.raises(
        ValueError, match="images are of 2 data sets, 'lfw', 'cfp_fp', .*a loader of its own"
    ):
        run(tmp_path / '1', joined(sets[0], sets[2]), metric)


@pytest.mark.subprocess
@pytest.mark.slow
def test_two_processes_report_what_one_reports(tmp_path: Path, sets: list[Any]) -> None:
    """An odd number of images is shared unevenly, so the sampler repeats one."""
    small = write_bin(tmp_path, 5, 'small', PAIRS[:21])
    every = [sets[0], sets[1], small]
    assert sum(len(DATASETS.build(one)) for one in every) % 2 == 1
    expected = run(tmp_path / 'one', joined(*every), METRIC, Recogniser(unknown='_0002'))
    (tmp_path / 'sets.json').write_text(json.dumps(joined(*every)))
    run_on_two_ranks(SCRIPT, tmp_path)
    for rank in range(2):
        assert json.loads((tmp_path / f'{rank}.json').read_text()) == expected


SCRIPT = """
import json, sys
from pathlib import Path
import mmdet.datasets
import torch.distributed as dist
from tests.face.joined import Recogniser, run
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2)
metric = dict(type='mmdet_ext.FaceVerificationMetric', fars=[0.1])
found = run(folder / 'two', json.loads((folder / 'sets.json').read_text()), metric,
            Recogniser(unknown='_0002'))
(folder / f'{rank}.json').write_text(json.dumps(found))
"""
