"""tools/analysis/show_assignment.py: assignments of our assigners and of mmdet's, as figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MessageHub

from tests._helpers.configs import CONFIGS, shrink
from tests._helpers.tools import load_tool

show_assignment = load_tool('analysis/show_assignment.py')

OURS = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_12e_bccd.py'
MMDET = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_stock_12e_bccd.py'
TWO_STAGE = CONFIGS / 'ablations' / 'losses' / 'bccd' / 'faster_rcnn_stock_4e_bccd.py'


@pytest.fixture
def configs(shapes_root: Path, tmp_path: Path) -> list[str]:
    """Write small configs: ours, mmdet's, and one of two stages."""
    paths = []
    for leaf in (OURS, MMDET, TWO_STAGE):
        path = tmp_path / f'{leaf.stem}.py'
        shrink(leaf, shapes_root).dump(path)
        paths.append(str(path))
    return paths


@pytest.mark.slow
def test_assignments_of_mmdet_are_drawn_below_ours(configs: list[str], tmp_path: Path) -> None:
    out = tmp_path / 'out'
    assert (
        show_assignment.main(
            [configs[0], '--versus', configs[1], '--count', '2', '--out', str(out)]
        )
        == 0
    )
    pictures = json.loads((out / 'counts.json').read_text())['pictures']
    assert len(pictures) == 2
    for name, (ours, theirs) in pictures.items():
        assert 'mmdet.ATSSAssigner' in theirs.pop('title')
        assert 'ATSSAssigner' in ours.pop('title')
        assert ours == theirs
        assert ours['positive'] == sum(ours['priors_of_box']) > 0
        assert len(ours['priors_of_box']) == ours['boxes'] and len(ours['levels']) == 5
        assert sum(level['priors'] for level in ours['levels']) == ours['priors']
        height, width = cv2.imread(str(out / f'{name}.png')).shape[:2]
        assert width > 1000 and height > 300


@pytest.mark.slow
def test_images_by_name_of_a_detector_of_two_stages_with_a_checkpoint(
    configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_all_modules()
    model = MODELS.build(Config.fromfile(configs[2]).model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'x.pth')
    args = [configs[2], '--checkpoint', str(tmp_path / 'x.pth'), '--out', str(tmp_path / 'out')]
    assert show_assignment.main([*args, '--count', '1']) == 0
    (name,) = json.loads((tmp_path / 'out' / 'counts.json').read_text())['pictures']
    assert show_assignment.main([*args, '--images', f'{name}.jpg', '1']) == 0
    pictures = json.loads((tmp_path / 'out' / 'counts.json').read_text())['pictures']
    assert name in pictures and len(pictures) == 2
    titles = [row['title'] for row in pictures[name]]
    assert ['in rpn_head' in titles[0], 'in roi_head' in titles[1]] == [True, True]
    assert show_assignment.main([*args, '--images', 'none.jpg']) == 2
    assert 'neither a number below' in capsys.readouterr().err


def drawn(out: Path, *args: str) -> dict[str, list[dict[str, Any]]]:
    """Run the tool, and return the counts of each assigner per image."""
    assert show_assignment.main([*args, '--out', str(out)]) == 0
    pictures = json.loads((out / 'counts.json').read_text())['pictures']
    assert {path.stem for path in out.glob('*.png')} >= set(pictures)
    return pictures


def mmdet_config(name: str, root: Path, folder: Path, **options: Any) -> str:
    """Write a config of mmdet, made small, to a file."""
    leaf, path = folder / f'{Path(name).stem}_leaf.py', folder / f'{Path(name).stem}.py'
    leaf.write_text(f'_base_ = {"mmdet::" + name!r}\n')
    shrink(leaf, root, **options).dump(path)
    return str(path)


@pytest.mark.slow
def test_priors_beyond_the_border_are_not_counted(configs: list[str], tmp_path: Path) -> None:
    """Mmdet's assigner never receives them, ours receives them marked."""
    ((ours, theirs),) = drawn(
        tmp_path / 'out',
        configs[0],
        '--versus',
        configs[1],
        '--count',
        '1',
        '--cfg-options',
        'model.bbox_head.type=mmdet_ext.ATSSHead',
        'model.train_cfg.allowed_border=0',
        'model.bbox_head.anchor_generator.octave_base_scale=2',
    ).values()
    ours.pop('title'), theirs.pop('title')
    assert ours == theirs
    # Images have 96 x 72 px. Anchors of 16, 32 and 64 px, 8, 16 and 32 px apart, lie within.
    assert [level['priors'] for level in ours['levels']] == [10 * 7, 4 * 3, 1]
    assert ours['positive'] > 0 and ours['ignored'] == 0


@pytest.mark.slow
def test_a_rule_that_changes_is_shown_as_in_the_last_epoch(
    shapes_root: Path, tmp_path: Path
) -> None:
    """TOOD assigns by ATSS in its first four epochs."""
    theirs = mmdet_config(
        'tood/tood_r50_fpn_1x_coco.py', shapes_root, tmp_path, **{'train_cfg.max_epochs': 12}
    )
    ours = tmp_path / 'ours.py'
    leaf = CONFIGS / 'ablations' / 'assigners' / 'coco' / 'tood_r50_task_aligned_1x_coco.py'
    shrink(leaf, shapes_root, **{'train_cfg.max_epochs': 12}).dump(ours)
    before = dict(MessageHub.get_current_instance().runtime_info)
    args = [str(ours), '--versus', theirs, '--count', '1']
    for epoch, rule in (([], 'TaskAlignedAssigner'), (['--epoch', '4'], 'ATSSAssigner')):
        ((one, other),) = drawn(tmp_path / 'out', *args, *epoch).values()
        assert one.pop('title') == f'ours\n{rule}'
        assert other.pop('title') == f'tood_r50_fpn_1x_coco\nmmdet.{rule}'
        assert one == other and one['positive'] > 0
    assert MessageHub.get_current_instance().runtime_info == before


@pytest.mark.slow
def test_stages_in_lists_and_detectors_with_masks(shapes_root: Path, tmp_path: Path) -> None:
    """Cascade R-CNN has one assigner per stage, and needs masks, which the drawn shapes lack."""
    config = mmdet_config(
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', shapes_root, tmp_path
    )
    few = [f'model.train_cfg.rcnn.{stage}.sampler.num=8' for stage in range(3)]
    rows, others = drawn(tmp_path / 'out', config, '--count', '2', '--cfg-options', *few).values()
    assert [row['title'].partition('\n')[2] for row in rows] == [
        'mmdet.MaxIoUAssigner in rpn_head',
        *(f'mmdet.MaxIoUAssigner in roi_head, {stage} of 3' for stage in (1, 2, 3)),
    ]
    # The first stage has 50 proposals, the others those that the stage before sampled.
    assert rows[1]['priors'] == 50 and rows[2]['priors'] <= 8
    # Stages sample at random; the seed is set again for each image.
    (alone,) = drawn(tmp_path / 'out', config, '--images', '1', '--cfg-options', *few).values()
    assert others == alone


@pytest.mark.slow
def test_cfg_options_are_read_as_in_other_tools(
    configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [configs[0], '--count', '1', '--cfg-options']
    (four,) = drawn(tmp_path / 'out', *args, 'model.train_cfg.assigner.topk=4').values()
    (nine,) = drawn(tmp_path / 'out', *args[:-1]).values()
    assert 0 < four[0]['positive'] < nine[0]['positive']
    out = ['--out', str(tmp_path / 'out')]
    for option, message in (
        ('model.train_cfg.assigner.top=4', "did you mean 'topk'?"),
        ('model.neck.num_outs=3', 'cannot compute its loss of the image: '),
        ('model.neck.num_outs=three', 'cannot build the model of'),
        ('val_dataloader.dataset.pipeline.99.a=1', 'cannot set --cfg-options val_dataloader.'),
        ('a=(1,(2)', 'cannot set --cfg-options a=(1,(2)'),
    ):
        assert show_assignment.main([*args, option, *out]) == 2
        assert message in one_error(capsys)


@pytest.mark.slow
def test_each_config_prepares_the_image_in_its_own_way(
    configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    larger = Config.fromfile(configs[0])
    (resize,) = [s for s in larger.val_dataloader.dataset.pipeline if s.type == 'Resize']
    resize.scale = (192, 144)
    larger.dump(tmp_path / 'larger.py')
    both = [configs[0], '--versus', str(tmp_path / 'larger.py'), '--count', '1']
    (rows,) = drawn(tmp_path / 'out', *both).values()
    assert 'larger 192 x 144 px and 19 boxes' in capsys.readouterr().out
    alone = [drawn(tmp_path / 'out', path, '--count', '1') for path in (both[0], both[2])]
    assert rows == [row for pictures in alone for row in next(iter(pictures.values()))]
    assert rows[1]['priors'] > 3 * rows[0]['priors']
    assert 'px and' not in capsys.readouterr().out


@pytest.mark.slow
def test_figures_of_images_with_one_name_bear_their_folders(
    shapes_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / 'cameras'
    shutil.copytree(shapes_root, root)
    listing = root / 'annotations' / 'instances_train.json'
    content = json.loads(listing.read_text())
    for image, camera in zip(content['images'], ('cam1', 'cam2'), strict=False):
        (root / 'images' / 'train' / camera).mkdir()
        path = root / 'images' / 'train' / image['file_name']
        image['file_name'] = f'{camera}/0001.jpg'
        path.rename(path.with_name(camera) / '0001.jpg')
    listing.write_text(json.dumps(content))
    shrink(OURS, root).dump(tmp_path / 'config.py')
    config = str(tmp_path / 'config.py')
    both = drawn(tmp_path / 'both', config, '--images', '0', '1')
    assert list(both) == ['cam1_0001', 'cam2_0001']
    assert both['cam1_0001'] != both['cam2_0001']
    one = drawn(tmp_path / 'one', config, '--images', 'cam2/0001.jpg')
    assert one == {'cam2_0001': both['cam2_0001']}
    assert [path.name for path in (tmp_path / 'one').glob('*.png')] == ['cam2_0001.png']


@pytest.mark.slow
def test_only_images_that_are_drawn_must_be_whole(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'broken'
    shutil.copytree(shapes_root, root)
    missing, broken, whole = sorted((root / 'images' / 'train').iterdir())[:3]
    missing.unlink()
    broken.write_bytes(b'not an image')
    config, out = tmp_path / 'config.py', tmp_path / 'out'
    shrink(OURS, root, **{'train_dataloader.dataset.type': 'mmdet_ext.CocoDataset'}).dump(config)
    assert list(drawn(out, str(config), '--images', whole.name)) == [whole.stem]
    for path, message in ((missing, 'No such file'), (broken, f'{broken}: not an image')):
        args = [str(config), '--images', path.name, '--out', str(out)]
        assert show_assignment.main(args) == 2
        assert message in one_error(capsys)


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_refused_or_warned_about(
    configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = MODELS.build(Config.fromfile(configs[0]).model).state_dict()
    path = tmp_path / 'x.pth'
    args = [configs[0], '--checkpoint', str(path), '--count', '1']
    torch.save({'state_dict': {f'module.{key}': value for key, value in weights.items()}}, path)
    drawn(tmp_path / 'out', *args)
    assert 'warning' not in capsys.readouterr().err
    half = {key: value for key, value in weights.items() if key.startswith('backbone')}
    torch.save({'state_dict': half}, path)
    drawn(tmp_path / 'out', *args)
    assert f'has {len(half)} of the {len(weights)} weights' in capsys.readouterr().err
    for content, message in (
        ({'state_dict': {'conv1.weight': torch.zeros(1)}}, 'has none of the'),
        ({'state_dict': {key: torch.zeros(0) for key in weights}}, 'has none of the'),
        ([1, 2], 'cannot load the checkpoint'),
    ):
        torch.save(content, path)
        assert show_assignment.main([*args, '--out', str(tmp_path / 'out')]) == 2
        assert message in one_error(capsys)
    path.write_text('text')
    assert show_assignment.main([*args, '--out', str(tmp_path / 'out')]) == 2
    assert 'cannot load the checkpoint' in one_error(capsys)


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error of a run: the last line, without a traceback."""
    err = capsys.readouterr().err
    assert 'Traceback' not in err
    (line,) = [line for line in err.splitlines() if line.startswith('error: ')]
    assert err.endswith(line + '\n')
    return line


@pytest.mark.slow
def test_wrong_input_is_refused_in_one_line(
    configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / 'file.txt', tmp_path / 'out'
    file.write_text('text')
    for name, content in (
        ('syntax', b'model = dict(\n'),
        ('base', b"_base_ = 'nowhere.py'\n"),
        ('code', b'\xff\xfe\x00'),
        ('empty', b'a = 1\n'),
        ('typo', Path(configs[0]).read_bytes().replace(b'ATSSAssigner', b'ATSAssigner')),
        ('no_model', Path(configs[0]).read_bytes() + b'\nmodel = None\n'),
        ('elsewhere', Path(configs[0]).read_bytes().replace(b'instances_train', b'nothing')),
    ):
        (tmp_path / f'{name}.py').write_bytes(content)
    config = configs[0]
    for args, message in (
        ([str(tmp_path / 'no.py')], 'no such config'),
        ([str(tmp_path)], 'no such config'),
        ([str(file)], f'cannot read the config {file}: Only py'),
        ([str(tmp_path / 'syntax.py')], 'SyntaxError'),
        ([str(tmp_path / 'base.py')], 'nowhere.py'),
        ([str(tmp_path / 'code.py')], "'utf-8' codec can't decode"),
        ([str(tmp_path / 'empty.py')], 'no train_dataloader'),
        ([str(tmp_path / 'no_model.py')], 'has no model'),
        ([str(tmp_path / 'typo.py')], "did you mean 'ATSSAssigner'"),
        ([str(tmp_path / 'elsewhere.py')], 'cannot read the train data of elsewhere: '),
        ([config, '--versus', str(tmp_path / 'no.py')], 'no such config'),
        ([config, '--checkpoint', str(tmp_path / 'no.pth')], 'no such checkpoint'),
        ([config, '--versus-checkpoint', str(file)], '--versus, which is not given'),
        ([config, '--cfg-options', 'a'], 'is not KEY=VALUE'),
        ([config, '--images', '²'], '--images ²: neither a number'),
        ([config, '--images', '99'], '--images 99: neither a number below 4'),
        ([config, '--count', '0'], '--count must be 1 or more, got 0'),
        ([config, '--count', '-3'], '--count must be 1 or more, got -3'),
        ([config, '--epoch', '0'], '--epoch must be 1 or more'),
    ):
        assert show_assignment.main([*args, '--out', str(out)]) == 2
        assert message in one_error(capsys), args
    assert not out.exists()
    for folder in (file, file / 'below'):
        assert show_assignment.main([config, '--count', '1', '--out', str(folder)]) == 2
        assert f'--out {folder}' in one_error(capsys)


def test_the_other_config_must_have_the_image(
    configs: list[str], shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(shapes_root, tmp_path / 'copy')
    shrink(MMDET, tmp_path / 'copy').dump(tmp_path / 'other.py')
    args = [configs[0], '--versus', str(tmp_path / 'other.py'), '--out', str(tmp_path / 'out')]
    assert show_assignment.main(args) == 2
    assert 'other does not have the image' in one_error(capsys)


@pytest.mark.slow
def test_a_config_may_be_compared_with_itself(configs: list[str], tmp_path: Path) -> None:
    ((one, other),) = drawn(
        tmp_path / 'out', configs[0], '--versus', configs[0], '--count', '1'
    ).values()
    assert other.pop('title') == one.pop('title').replace('\n', ' (--versus)\n')
    assert one == other
