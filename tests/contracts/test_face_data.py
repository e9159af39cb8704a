"""Contracts of every data set, data sampler and transform of faces."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.data.synthetic.faces import face_image, make_faces
from mmdet_ext.registry import DATA_SAMPLERS, DATASETS, MODELS, TRANSFORMS, ExtRegistry
from tests._helpers.options import assert_misspelt_options_are_named
from tests._helpers.same import assert_same


def over(rows: Sequence[Any]) -> Any:
    return pytest.mark.parametrize('case', rows, ids=repr)


def build(nodes: ExtRegistry, case: Any, **options: Any) -> Any:
    return nodes.build({'type': f'mmdet_ext.{case.name}', **case.options, **options})


each_dataset = over(cases_of('face data set'))

#: One pipeline serves every data set, whether it loads its images itself or gives their paths.
LOAD = {'type': 'mmdet_ext.LoadFace'}


@pytest.fixture(scope='module')
def faces_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('faces')
    make_faces(root)
    return root


def dataset_of(case: Any, root: Path, **options: Any) -> Any:
    where = {} if case.root is None else {case.root: str(root / case.folder)}
    if case.name in ('FacePairsDataset', 'FaceTemplatesDataset'):
        where[case.root] = str(root)
    return build(DATASETS, case, **{'pipeline': [LOAD], **where, **options})


@each_dataset
def test_entries_have_the_keys_that_a_pipeline_takes(case: Any, faces_root: Path) -> None:
    dataset = dataset_of(case, faces_root)
    assert len(dataset) == case.images
    for place in (0, len(dataset) - 1):
        entry = dataset[place]
        img = entry['img']
        assert img.dtype == np.uint8 and img.ndim == 3 and img.shape[2] == 3 and img.std() > 10
        assert entry['img_shape'] == entry['ori_shape'] == img.shape[:2]
        assert entry['sample_idx'] == place
        assert type(entry['gt_label']) is int
        assert case.root is None or str(faces_root) in entry['img_path']


@each_dataset
def test_labels_agree_in_every_way_to_ask_for_them(case: Any, faces_root: Path) -> None:
    dataset = dataset_of(case, faces_root)
    labels = dataset.get_gt_labels()
    assert labels.dtype == np.int64
    each = [dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))]
    assert labels.tolist() == each
    assert [dataset.get_cat_ids(i) for i in range(len(dataset))] == [[label] for label in each]
    found = sorted(set(each))
    assert found == (list(range(case.identities)) if case.identities else [-1])
    classes = dataset.metainfo.get('classes')
    assert classes is None or len(classes) == case.identities


@each_dataset
def test_reading_again_in_another_process_or_later_gives_the_same(
    case: Any, faces_root: Path
) -> None:
    dataset = dataset_of(case, faces_root)
    places = [0, 3, len(dataset) - 1]
    expected = [dataset[place] for place in places]
    late = dataset_of(case, faces_root, lazy_init=True)
    late.full_init()
    twins = [
        dataset,
        copy.deepcopy(dataset),
        pickle.loads(pickle.dumps(dataset)),
        late,
        dataset_of(case, faces_root, serialize_data=False),
    ]
    for twin in twins:
        for place, entry in zip(places, expected, strict=True):
            assert_same(twin[place], entry)
    # A pipeline that changes its image does not change the data set.
    dataset[0]['img'][:] = 0
    assert_same(dataset[0], expected[0])


@each_dataset
def test_a_part_keeps_the_label_of_each_image_or_is_refused(case: Any, faces_root: Path) -> None:
    if not case.divisible:
        with pytest.raises(ValueError, match='a part of the images would break the pairs'):
            dataset_of(case, faces_root, indices=3)
        return
    whole = dataset_of(case, faces_root)
    chosen = [len(whole) - 1, 0, 2]
    parts = [whole.get_subset(chosen), dataset_of(case, faces_root, indices=chosen)]
    for part in parts:
        assert part.get_gt_labels().tolist() == whole.get_gt_labels()[chosen].tolist()
        for place, origin in enumerate(chosen):
            np.testing.assert_array_equal(part[place]['img'], whole[origin]['img'])
            assert part[place]['sample_idx'] == place
    assert len(dataset_of(case, faces_root, indices=3)) == 3 and len(whole) == case.images


@each_dataset
def test_dataset_refuses_misspelt_options(case: Any, faces_root: Path) -> None:
    assert_misspelt_options_are_named(
        lambda **wrong: dataset_of(case, faces_root, **wrong),
        DATASETS.get(case.name),
        # Options that are handed on to MMEngine.
        more=('test_mode', 'pipeline', 'lazy_init'),
    )


@each_dataset
def test_mmpretrains_packing_and_our_preprocessor_take_the_entries(
    case: Any, faces_root: Path
) -> None:
    import mmpretrain.datasets  # noqa: F401

    dataset = dataset_of(case, faces_root, pipeline=[LOAD, {'type': 'mmpretrain.PackInputs'}])
    raw = dataset_of(case, faces_root)
    entries = [dataset[place] for place in (0, 1)]
    (preprocessor,) = (build(MODELS, row) for row in cases_of('preprocessor'))
    data = preprocessor(
        {
            'inputs': [entry['inputs'] for entry in entries],
            'data_samples': [entry['data_samples'] for entry in entries],
        }
    )
    for place, sample in enumerate(data['data_samples']):
        assert sample.gt_label.tolist() == [raw.get_gt_labels()[place]]
        assert sample.sample_idx == place
        expected = (raw[place]['img'][..., ::-1].astype(np.float32) - 127.5) / 128
        np.testing.assert_allclose(data['inputs'][place].permute(1, 2, 0), expected, rtol=1e-6)


each_sampler = over(cases_of('data sampler'))


@each_sampler
def test_epochs_of_a_sampler_depend_on_seed_and_number_alone(case: Any, faces_root: Path) -> None:
    data = [dataset_of(row, faces_root) for row in cases_of('face data set') if row.identities]
    for dataset in data:
        one, same, other = (
            build(DATA_SAMPLERS, case, dataset=dataset, seed=seed) for seed in (0, 0, 1)
        )
        epochs = []
        for epoch in range(3):
            for sampler in (one, same, other):
                sampler.set_epoch(epoch)
            assert list(one) == list(same) and len(list(one)) == len(one)
            assert set(one) <= set(range(len(dataset)))
            epochs += [list(one), list(other)]
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
        one.set_epoch(0)
        assert list(one) == epochs[0]
        per_batch = np.prod(list(case.options.values()))
        labels = dataset.get_gt_labels()[epochs[0]].reshape(-1, per_batch)
        assert all(len(set(row)) == case.options['identities_per_batch'] for row in labels.tolist())


@each_sampler
def test_sampler_refuses_misspelt_options_and_unknown_identities(
    case: Any, faces_root: Path
) -> None:
    folder = dataset_of(cases_of('face data set')[0], faces_root)
    assert_misspelt_options_are_named(
        lambda **wrong: build(DATA_SAMPLERS, case, **{'dataset': folder, **wrong}),
        DATA_SAMPLERS.get(case.name),
    )
    unknown = next(row for row in cases_of('face data set') if not row.identities)
    with pytest.raises(ValueError, match='at least 0, one per image'):
        build(DATA_SAMPLERS, case, dataset=dataset_of(unknown, faces_root))


@over(cases_of('transform'))
def test_transform_is_repeatable_and_keeps_its_input(case: Any, faces_root: Path) -> None:
    path = str(next((faces_root / 'faces').rglob('*.ppm')))
    image = face_image(0, 0, (100, 90))
    landmarks = np.array([[30, 40], [60, 40], [45, 55], [33, 75], [57, 75]], np.float32)
    transform = build(TRANSFORMS, case)
    results = []
    # LoadFace would pass on an image that is loaded.
    loaded = {} if case.name == 'LoadFace' else {'img': image}
    for _ in range(2):
        given = {'img_path': path, 'landmarks': landmarks, **loaded}
        before = copy.deepcopy(given)
        results.append(transform(given))
        assert given['img_path'] == path
        np.testing.assert_array_equal(image, before.get('img', image))
        np.testing.assert_array_equal(landmarks, before['landmarks'])
    assert_same(*results)
    img = results[0]['img']
    assert img.dtype == np.uint8 and results[0]['img_shape'] == img.shape[:2] and img.std() > 10
    assert case.name in repr(transform)
    assert_same(
        pickle.loads(pickle.dumps(transform))({'img_path': path, 'landmarks': landmarks, **loaded}),
        results[0],
    )


@over(cases_of('transform'))
def test_transform_refuses_misspelt_options(case: Any) -> None:
    assert_misspelt_options_are_named(
        lambda **wrong: build(TRANSFORMS, case, **wrong), TRANSFORMS.get(case.name)
    )
