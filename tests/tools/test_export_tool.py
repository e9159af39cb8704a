"""The tool that exports detectors and recognisers: files, checks, int8, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmdet_ext.deploy import Detector, FaceRecogniser
from mmdet_ext.detection.export import quantised
from mmdet_ext.detection.export.write import _classes
from mmdet_ext.export.onnx_file import ExportError
from tests._helpers.exported import NAMES, built, config_of, image_files, model_config
from tests._helpers.tools import load_tool

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
main = load_tool('deploy/export.py').main

FACES: dict[str, Any] = dict(
    model=dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', flip_at_test=True),
        backbone=dict(
            type='mmdet_ext.IResNet',
            depth=18,
            base_channels=4,
            num_features=16,
            input_size=(40, 24),
        ),
        head=dict(type='mmdet_ext.MarginHead', num_classes=5, in_channels=16, margin='ArcFace'),
    ),
    default_scope='mmpretrain',
    test_dataloader=dict(
        dataset=dict(
            pipeline=[
                dict(type='mmdet_ext.LoadFace'),
                dict(type='Resize', scale=(24, 40)),
                dict(type='PackInputs'),
            ]
        )
    ),
)


class Case:
    """Config, checkpoint and images of a small detector."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        config = config_of(model_config('ATSSHead'))
        config.merge_from_dict(changes)
        self.config = folder / 'small.py'
        config.dump(self.config)
        self.checkpoint = folder / 'small.pth'
        self.model = built(config)
        meta = dict(dataset_meta=dict(classes=NAMES))
        torch.save(dict(state_dict=self.model.state_dict(), meta=meta), self.checkpoint)
        (folder / 'images').mkdir()
        image_files(folder / 'images', ((90, 120), (140, 70), (1, 1)))

    def run(self, *words: Any) -> int:
        """Run the tool."""
        return main([str(word) for word in (self.config, self.checkpoint, *words)])

    def files(self) -> list[str]:
        """List the files beside the checkpoint, without those of the case."""
        own = ('small.py', 'small.pth', 'images')
        return sorted(path.name for path in self.folder.iterdir() if path.name not in own)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('target', 'words', 'files'),
    [
        ('onnx', ['--suppression', 'inside'], ['small.onnx']),
        ('openvino', ['--size', 96, 128, '--batch', 2], ['small.bin', 'small.xml']),
        ('ncnn', ['--size', 96, 128], ['small.ncnn.bin', 'small.ncnn.param']),
        ('onnx', ['--fold'], ['small.onnx']),
        ('openvino', ['--fold'], ['small.bin', 'small.xml']),
        ('ncnn', ['--size', 96, 128, '--fold'], ['small.ncnn.bin', 'small.ncnn.param']),
    ],
)
def test_a_file_is_written_and_checked(
    target: str, words: list[Any], files: list[str], case: Case, capsys: Any
) -> None:
    pytest.importorskip({'onnx': 'onnxruntime'}.get(target, target))
    assert case.run('--to', target, '--check', case.folder / 'images', *words) == 0
    out = capsys.readouterr().out
    assert '3 images' in out and 'equal within the tolerances' in out
    assert ('batch norms folded: 20, kept: 0;' in out) is ('--fold' in words)
    assert case.files() == files
    detector = Detector(case.folder / files[-1])
    assert detector.classes == NAMES
    assert detector.info.made_of['checkpoint'] == 'small.pth'


@pytest.mark.slow
def test_a_difference_ends_in_exit_code_1(
    case: Case, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdet_ext.detection.export import reference

    monkeypatch.setattr(reference, 'BOX_TOLERANCE', -1.0)
    assert case.run('--to', 'onnx', '--check', case.folder / 'images') == 1
    assert 'NOT EQUAL' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'named'),
    [
        (['--to', 'ncnn'], 'give --size HEIGHT WIDTH'),
        (['--to', 'ncnn', '--suppression', 'inside'], 'ncnn has no suppression'),
        (['--to', 'ncnn', '--batch', 2, '--size', 96, 128], 'one image at a time'),
        (['--to', 'onnx', '--opset', 11], 'opset must be in 18 .. 23, got 11'),
        (['--to', 'onnx', '--size', 100, 128], 'no multiple of pad_size_divisor=32'),
        (['--to', 'onnx', '--check', 'absent'], 'absent: there is no such file or folder'),
        (
            ['--to', 'onnx', '--cfg-options', 'model.bbox_head.num_classes=7'],
            'does not fit the model of the config',
        ),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(
    words: list[Any], named: str, case: Case, capsys: Any
) -> None:
    assert case.run(*words) == 2
    assert named in capsys.readouterr().err
    assert case.files() == []


@pytest.mark.parametrize(
    ('text', 'named'),
    [
        ('model = dict(', 'SyntaxError'),
        ('model = 1 / 0', 'ZeroDivisionError'),
        (None, 'no such config'),
    ],
    ids=['syntax', 'error', 'absent'],
)
def test_a_config_that_cannot_be_read_is_named_in_one_line(
    text: str | None, named: str, case: Case, tmp_path: Path, capsys: Any
) -> None:
    config = tmp_path / 'images' / 'broken.py'
    if text is not None:
        config.write_text(text, encoding='utf-8')
    assert main([str(config), str(case.checkpoint), '--to', 'onnx']) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith('error: ') and named in line
    assert case.files() == []


def test_names_of_a_type_of_data_set_count_where_their_number_fits() -> None:
    config = Config(dict(test_dataloader=dict(dataset=dict(type='mmdet_ext.CocoDataset'))))

    def names(count: int) -> tuple[str, ...]:
        model: Any = SimpleNamespace(bbox_head=SimpleNamespace(num_classes=count))
        return _classes(config, {}, model)

    found = names(80)
    assert (len(found), found[0], found[-1]) == (80, 'person', 'toothbrush')
    with pytest.raises(ExportError, match='names the 4 classes'):
        names(4)


def test_other_weights_and_truncated_checkpoints_are_named(case: Case, capsys: Any) -> None:
    whole = case.checkpoint.read_bytes()
    case.checkpoint.write_bytes(whole[: len(whole) // 2])
    assert case.run('--to', 'onnx') == 2
    assert 'small.pth' in capsys.readouterr().err
    torch.save(dict(state_dict={'a.b.weight': torch.zeros(3)}), case.checkpoint)
    assert case.run('--to', 'onnx') == 2
    assert 'does not fit the model of the config' in capsys.readouterr().err
    meta = dict(dataset_meta=dict(classes=('a', 'b')))
    torch.save(dict(state_dict=case.model.state_dict(), meta=meta), case.checkpoint)
    assert case.run('--to', 'onnx') == 2
    assert 'the head predicts 4 classes, but there are 2 names (a, b)' in capsys.readouterr().err
    torch.save(dict(state_dict=case.model.state_dict()), case.checkpoint)
    assert case.run('--to', 'onnx') == 2
    assert 'neither the checkpoint nor the config names the 4 classes' in capsys.readouterr().err
    assert case.files() == []


def _with_test_set(folder: Path, root: Path) -> Case:
    annotations = str(root / 'annotations/instances_val.json')
    names = {f'class{number}': 0 for number in range(len(NAMES))}
    content = json.loads(Path(annotations).read_text())
    for category, name in zip(content['categories'], names, strict=False):
        category['name'] = name
    content['categories'].append(dict(id=99, name=NAMES[-1]))
    renamed = folder / 'images.json'
    renamed.write_text(json.dumps(content))
    dataset = dict(
        type='mmdet_ext.CocoDataset',
        ann_file=str(renamed),
        data_prefix=dict(img=str(root / 'images/val') + '/'),
        metainfo=dict(classes=NAMES),
        test_mode=True,
    )
    evaluator = dict(type='CocoMetric', ann_file=str(renamed), metric='bbox')
    changes = {'test_dataloader.dataset': dataset, 'test_evaluator': evaluator}
    return Case(folder, **changes)


@pytest.mark.slow
@pytest.mark.parametrize('target', ['onnx', 'openvino'])
def test_int8_is_measured_and_written(
    target: str, tmp_path: Path, shapes_root: Path, capsys: Any
) -> None:
    pytest.importorskip('nncf' if target == 'openvino' else 'onnxruntime')
    case = _with_test_set(tmp_path, shapes_root)
    images = shapes_root / 'images/val'
    assert case.run('--to', target, '--size', 96, 128, '--int8', images, '--vnni', 'no') == 0
    out = capsys.readouterr().out
    assert 'int8, decoding in float: mAP' in out and 'layers kept in float' in out
    suffix = {'onnx': '.onnx', 'openvino': '.xml'}[target]
    detector = Detector(tmp_path / f'small_int8{suffix}')
    assert detector.info.precision == 'int8' and detector.info.saturation_safe
    assert len(detector([images.parent / 'val' / sorted(images.iterdir())[0].name])) == 1


@pytest.mark.slow
def test_int8_that_costs_too_much_is_not_written(
    tmp_path: Path, shapes_root: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _with_test_set(tmp_path, shapes_root)
    figures = iter([0.9, 0.5, 0.6, 0.7, 0.8])
    monkeypatch.setattr(quantised.Accuracy, 'measure', lambda *given: next(figures))
    words = ['--to', 'onnx', '--size', 96, 128, '--int8', shapes_root / 'images/val']
    assert case.run(*words) == 1
    assert 'int8 costs more than 1.0 points of mAP' in capsys.readouterr().err
    assert case.files() == ['images.json', 'small.onnx']


@pytest.mark.slow
@pytest.mark.parametrize(
    ('target', 'fold'),
    [('onnx', False), ('openvino', False), ('ncnn', False), ('onnx', True)],
)
def test_a_recogniser_is_written_and_checked(
    target: str, fold: bool, tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip({'onnx': 'onnxruntime'}.get(target, target))
    from mmpretrain.registry import MODELS

    config = Config(FACES)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    config.dump(tmp_path / 'face.py')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'face.pth')
    (tmp_path / 'images').mkdir()
    files = image_files(tmp_path / 'images', ((80, 50), (40, 24)))
    words = [tmp_path / 'face.py', tmp_path / 'face.pth', '--to', target, '--check', *files]
    words += ['--fold'] * fold
    assert main([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert 'equal within the tolerance' in out
    # Of 8 blocks the first norm stands before its convolution, and two stand behind the last one.
    assert ('batch norms folded: 21, kept: 10 (' in out) is fold
    suffix = {'onnx': '.onnx', 'openvino': '.xml', 'ncnn': '.ncnn.param'}[target]
    recogniser = FaceRecogniser(tmp_path / f'face{suffix}')
    cosines = recogniser.similarity(files, files)
    torch.testing.assert_close(torch.from_numpy(cosines).diagonal(), torch.ones(2))


def test_an_interpolation_that_opencv_lacks_is_named(tmp_path: Path, capsys: Any) -> None:
    from mmpretrain.registry import MODELS

    config = Config(FACES)
    config.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(32, 32), interpolation='hamming'),
        dict(type='PackInputs'),
    ]
    config.dump(tmp_path / 'face.py')
    torch.save(dict(state_dict=MODELS.build(config.model).state_dict()), tmp_path / 'face.pth')
    words = [tmp_path / 'face.py', tmp_path / 'face.pth', '--to', 'onnx']
    assert main([str(word) for word in words]) == 2
    assert "interpolation='hamming', expected one of nearest" in capsys.readouterr().err
    assert not (tmp_path / 'face.onnx').exists()
