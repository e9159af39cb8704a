"""Tests of layouts: folders are recognised by their contents, wrong ones get a clear message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_ext.data.coco.folders import CocoSplit, LayoutError, VocLayout, find_layout


def write_coco(ann_file: Path, *images: Path, names: str = '') -> Path:
    """Write empty images and a COCO file that lists their names, each behind ``names``."""
    ann_file.parent.mkdir(parents=True, exist_ok=True)
    records = []
    for number, path in enumerate(images, start=1):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        name = f'{names}{path.name}'
        records.append({'id': number, 'file_name': name, 'width': 4, 'height': 3})
    ann_file.write_text(json.dumps({'images': records, 'annotations': [], 'categories': []}))
    return ann_file


def write_voc(root: Path, *lists: str) -> Path:
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    (root / 'Annotations' / 'a.XML').touch()
    for name in lists:
        (root / 'ImageSets' / 'Main' / f'{name}.txt').touch()
    return root


@pytest.mark.parametrize(
    ('lists', 'train', 'test'),
    [
        (('train', 'val', 'trainval', 'test'), 'train', 'test'),
        (('train', 'val'), 'train', 'val'),
        (('train', 'trainval', 'test'), 'trainval', 'test'),
        (('trainval', 'test'), 'trainval', 'test'),
        (('val', 'test'), 'val', 'test'),
        (('trainval', 'val'), 'trainval', None),
        (('train',), 'train', None),
        (('test',), 'test', None),
        (('train', 'val', 'cat_train'), 'train', 'val'),
        (('default',), 'default', None),
        (('mine',), 'mine', None),
        (('Train', 'Validation'), 'Train', 'Validation'),
        (('TRAIN', 'VAL', 'TRAINVAL', 'TEST'), 'TRAIN', 'TEST'),
        (('train2017', 'val2017'), 'train2017', 'val2017'),
        (('training', 'testing', 'dev'), 'training', 'testing'),
        (('train', 'valid'), 'train', 'valid'),
        (('default', 'val'), 'default', 'val'),
        ((), 'train', 'val'),
    ],
)
def test_sets_are_chosen_from_the_lists_of_voc(
    tmp_path: Path, lists: tuple[str, ...], train: str, test: str | None
) -> None:
    root = write_voc(tmp_path / 'voc', *lists)
    assert find_layout(root) == VocLayout(root.resolve(), train, test)


def test_lists_of_which_none_is_clearly_trained_on_are_named(tmp_path: Path) -> None:
    root = write_voc(tmp_path / 'voc', 'left', 'right')
    with pytest.raises(LayoutError, match='cannot tell which list .* found left, right; expected'):
        find_layout(root)


def test_xml_files_of_subfolders_and_lists_of_images_make_a_voc_folder(tmp_path: Path) -> None:
    root = write_voc(tmp_path / 'voc', 'train', '._val')
    (root / 'Annotations' / 'a.XML').unlink()
    (root / 'Annotations' / 'cam1').mkdir()
    (root / 'Annotations' / 'cam1' / 'a.xml').touch()
    (root / 'ImageSets' / 'Main' / 'labels.txt').write_text('cat\ndog\n')
    (root / 'ImageSets' / 'Main' / 'cat_val.txt').write_text('cam1/a -1\n')
    assert find_layout(root) == VocLayout(root.resolve(), 'train', None)


@pytest.mark.parametrize(
    ('ann', 'images'),
    [
        ('annotations/instances_default.json', 'images/default'),
        ('annotations/instances_default.json', 'images'),
        ('Annotations/Instances_Default.JSON', 'Images/Default'),
        ('labels.json', 'data'),
    ],
)
def test_a_single_coco_file_of_any_name_and_case_is_found(
    tmp_path: Path, ann: str, images: str
) -> None:
    folder = tmp_path / images
    ann_file = write_coco(tmp_path / ann, folder / 'a.jpg')
    (ann_file.parent / f'._{ann_file.name}').touch()
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco' and layout.test is None and layout.notes == ()
    assert layout.train == CocoSplit(ann_file.resolve(), folder.resolve())


@pytest.mark.parametrize(
    ('ann', 'images', 'train', 'test'),
    [
        ('annotations/instances_{}.json', 'images/{}', 'Train', 'Validation'),
        ('annotations/instances_{}.json', '{}', 'TRAIN', 'VAL'),
        ('annotations/{}.json', '{}', 'train2017', 'val2017'),
        ('{}/_annotations.coco.json', '{}', 'Train', 'Valid'),
        ('{}/_annotations.coco.json', '{}', 'training', 'dev'),
    ],
)
def test_splits_of_coco_are_found_under_other_names(
    tmp_path: Path, ann: str, images: str, train: str, test: str
) -> None:
    expected = []
    for split in (train, test):
        folder = tmp_path / images.format(split)
        ann_file = write_coco(tmp_path / ann.format(split), folder / 'a.jpg')
        expected.append(CocoSplit(ann_file.resolve(), folder.resolve()))
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco'
    assert [layout.train, layout.test] == expected


def test_image_folders_may_have_another_word_for_the_split(tmp_path: Path) -> None:
    for split, folder in (('train', 'Training'), ('val', 'valid')):
        write_coco(tmp_path / f'annotations/instances_{split}.json', tmp_path / folder / 'a.jpg')
    (tmp_path / 'train_masks').mkdir()
    (tmp_path / 'train_masks' / 'a.jpg').touch()
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco' and layout.test is not None
    assert [layout.train.image_dir.name, layout.test.image_dir.name] == ['Training', 'valid']


def test_files_that_are_not_used_are_noted(tmp_path: Path) -> None:
    for split in ('train', 'val', 'test'):
        write_coco(tmp_path / f'annotations/instances_{split}.json', tmp_path / split / 'a.jpg')
    write_coco(tmp_path / 'annotations/captions_train.json', tmp_path / 'train' / 'a.jpg')
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco'
    assert layout.notes == (
        '2 json files not used: annotations/instances_test.json, annotations/captions_train.json',
    )


@pytest.mark.parametrize(
    ('ann', 'images'),
    [
        ('annotations/instances_{}.json', '{}'),
        ('annotations/instances_{}.json', 'images/{}'),
        ('annotations/instances_{}2017.json', '{}2017'),
        ('annotations/instances_{}.json', '{}2017'),
        ('annotations/{}.json', 'images'),
        ('{}-set.json', 'JPEGImages'),
        ('annotations/my_{}_boxes.json', '.'),
        ('{}/_annotations.coco.json', '{}'),
    ],
)
@pytest.mark.parametrize('held_out', ['val', 'test'])
def test_coco_files_and_image_folders_are_found(
    tmp_path: Path, ann: str, images: str, held_out: str
) -> None:
    expected = []
    for split in ('train', held_out):
        folder = tmp_path / images.format(split)
        ann_file = write_coco(tmp_path / ann.format(split), folder / f'{split}.jpg')
        expected.append(CocoSplit(ann_file.resolve(), folder.resolve()))
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco'
    assert [layout.train, layout.test] == expected


def test_val_is_preferred_to_test_and_captions_are_left_out(tmp_path: Path) -> None:
    for split in ('train', 'val', 'test'):
        write_coco(tmp_path / f'annotations/instances_{split}.json', tmp_path / split / 'a.jpg')
        write_coco(tmp_path / f'annotations/captions_{split}.json', tmp_path / split / 'a.jpg')
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco'
    assert layout.train.ann_file.name == 'instances_train.json'
    assert layout.test is not None
    assert layout.test.ann_file.name == 'instances_val.json'


def test_trainval_is_not_evaluated_on_val(tmp_path: Path) -> None:
    for split in ('trainval', 'val', 'test'):
        write_coco(tmp_path / f'annotations/{split}.json', tmp_path / 'images' / f'{split}.jpg')
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco'
    assert layout.train.ann_file.name == 'trainval.json'
    assert layout.test is not None
    assert layout.test.ann_file.name == 'test.json'


def test_one_file_alone_has_no_test_set(tmp_path: Path) -> None:
    ann_file = write_coco(tmp_path / 'labels.json', tmp_path / 'images' / 'a.jpg')
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco'
    assert layout.train == CocoSplit(ann_file.resolve(), (tmp_path / 'images').resolve())
    assert layout.test is None


def test_image_folder_is_the_one_with_most_images(tmp_path: Path) -> None:
    images = [tmp_path / 'images' / f'{n}.jpg' for n in range(3)]
    ann_file = write_coco(tmp_path / 'annotations/all.json', *images)
    (tmp_path / '0.jpg').touch()
    images[1].unlink()
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco'
    assert layout.train == CocoSplit(ann_file.resolve(), (tmp_path / 'images').resolve())


def test_file_names_may_hold_a_folder(tmp_path: Path) -> None:
    write_coco(tmp_path / 'annotations/all.json', tmp_path / 'images/b/a.jpg', names='images/b/')
    layout = find_layout(tmp_path)
    assert layout.kind == 'coco'
    assert layout.train.image_dir == tmp_path.resolve()


def test_missing_folder_is_named_and_both_layouts_are_shown(tmp_path: Path) -> None:
    with pytest.raises(LayoutError) as caught:
        find_layout(tmp_path / 'nowhere')
    message = str(caught.value)
    assert str(tmp_path / 'nowhere') in message
    assert 'does not exist' in message
    assert 'instances_train.json' in message
    assert 'JPEGImages/' in message


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'data.zip').touch()
    with pytest.raises(LayoutError, match='data.zip.* is a file'):
        find_layout(tmp_path / 'data.zip')


def test_message_for_an_unknown_layout_lists_the_contents(tmp_path: Path) -> None:
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels' / 'a.txt').touch()
    (tmp_path / 'readme.md').touch()
    with pytest.raises(LayoutError) as caught:
        find_layout(tmp_path)
    message = str(caught.value)
    assert 'Found: labels/, readme.md.' in message
    assert 'Looked for: Annotations/*.xml' in message
    assert 'instances_train.json' in message


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match='Found: an empty folder'):
        find_layout(tmp_path)


def test_folder_above_the_right_one_gets_a_hint(tmp_path: Path) -> None:
    root = write_voc(tmp_path / 'VOCdevkit' / 'VOC2007', 'train')
    with pytest.raises(LayoutError, match=f'try .*{root.name}'):
        find_layout(root.parent)


def test_two_candidates_for_training_are_listed(tmp_path: Path) -> None:
    for name in ('a_train', 'b_train', 'val'):
        write_coco(tmp_path / f'annotations/{name}.json', tmp_path / 'images' / 'a.jpg')
    with pytest.raises(LayoutError, match='annotations/a_train.json, annotations/b_train.json'):
        find_layout(tmp_path)


def test_message_for_absent_images_names_one_and_the_folders_searched(tmp_path: Path) -> None:
    write_coco(tmp_path / 'annotations/train.json', tmp_path / 'elsewhere' / 'a.jpg')
    (tmp_path / 'images').mkdir()
    with pytest.raises(LayoutError, match="none of its 1 images.*'a.jpg'.*images"):
        find_layout(tmp_path)


def test_file_without_images_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path / 'annotations/train.json')
    with pytest.raises(LayoutError, match='lists no image'):
        find_layout(tmp_path)


def test_file_that_is_no_coco_file_is_named(tmp_path: Path) -> None:
    (tmp_path / 'train.json').write_text('[1, 2]')
    with pytest.raises(LayoutError, match='train.json is not a COCO detection file'):
        find_layout(tmp_path)


def test_image_without_a_file_name_is_named(tmp_path: Path) -> None:
    ann_file = write_coco(tmp_path / 'annotations/train.json', tmp_path / 'images' / 'a.jpg')
    content = json.loads(ann_file.read_text())
    del content['images'][0]['file_name']
    ann_file.write_text(json.dumps(content))
    with pytest.raises(LayoutError, match=r'train.json: images\[0\] has no file_name'):
        find_layout(tmp_path)


@pytest.mark.subprocess
def test_import_loads_neither_numpy_nor_torch() -> None:
    code = (
        'import sys, mmdet_ext.data.coco.folders; '
        'print({"numpy", "torch", "mmengine"} & set(sys.modules))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'set()'


def test_bccd(shared_data: Path) -> None:
    root = (shared_data / 'bccd').resolve()
    assert find_layout(root) == VocLayout(root, 'train', 'test')
