"""Detector in a model file: what it finds, and files and options that it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.deploy import Detector, FaceRecogniser, ModelFileError
from mmdet_ext.deploy.__main__ import main
from mmdet_ext.deploy.errors import DeployError
from mmdet_ext.deploy.metadata import KEY, from_json
from mmdet_ext.deploy.runtimes import RUNTIMES, base
from tests._helpers.model_files import INFO, fixed_network, write_fixed

pytest.importorskip('onnxruntime')

#: An image twice as wide and four times as high as the network's input.
IMAGE = np.full((128, 64, 3), 100, np.uint8)
EXPECTED = [[8, 16, 24, 48], [32, 32, 56, 120]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_fixed(tmp_path / 'x.onnx')
    return tmp_path / 'x.onnx'


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_boxes_are_suppressed_and_scaled_to_the_image(file: Path, runtime: str) -> None:
    pytest.importorskip(RUNTIMES[runtime].package)
    (found,) = Detector(file, runtime, threads=1)([IMAGE])
    np.testing.assert_allclose(found.boxes, EXPECTED)
    np.testing.assert_allclose(found.scores, [0.9, 0.7])
    assert [found.classes[label] for label in found.labels] == ['cat', 'dog']


def test_a_least_score_and_a_list_of_images(file: Path) -> None:
    found = Detector(file, score=0.8)([IMAGE, IMAGE, IMAGE])
    assert [len(each) for each in found] == [1, 1, 1]
    assert found[0].to_list() == [dict(label='cat', score=0.9, box=[8.0, 16.0, 24.0, 48.0])]
    with pytest.raises(DeployError, match='must be a list'):
        Detector(file)(IMAGE)  # type: ignore[arg-type]


def test_drawing_leaves_the_image_as_it_is(file: Path) -> None:
    before = IMAGE.copy()
    (found,) = Detector(file)([IMAGE])
    drawn = found.draw(IMAGE)
    np.testing.assert_array_equal(IMAGE, before)
    assert (drawn[60, 32] != 100).any()
    assert (drawn[4, 60] == 100).all()


def test_a_file_without_a_description_is_named(tmp_path: Path) -> None:
    (tmp_path / 'x.onnx').write_bytes(fixed_network().SerializeToString())
    with pytest.raises(ModelFileError, match='no description.*not written by tools/deploy/export'):
        Detector(tmp_path / 'x.onnx')


@pytest.mark.parametrize('share', [0.0, 0.3, 0.9])
def test_a_truncated_file_is_named(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelFileError, match='x.onnx'):
        Detector(file)


@pytest.mark.parametrize(
    ('name', 'named'),
    [('x.pth', "no runtime reads files with the ending '.pth'"), ('y.onnx', 'there is no such')],
)
def test_a_file_of_another_kind_or_none_is_named(file: Path, name: str, named: str) -> None:
    other = file.with_name(name)
    if name == 'x.pth':
        other.write_bytes(b'0')
    with pytest.raises(ModelFileError, match=named):
        Detector(other)


def test_options_out_of_range_are_named(file: Path) -> None:
    with pytest.raises(DeployError, match='score must be in'):
        Detector(file, score=2.0)
    with pytest.raises(ModelFileError, match='threads must be at least 1'):
        Detector(file, threads=0)
    with pytest.raises(ModelFileError, match="not read by runtime='ncnn'"):
        Detector(file, 'ncnn')
    with pytest.raises(DeployError, match='batch=4, but the network takes 1'):
        Detector(file)([IMAGE], batch=4)


def test_a_detector_is_no_recogniser(file: Path) -> None:
    with pytest.raises(ModelFileError, match='holds no face recogniser.*open it by Detector'):
        FaceRecogniser(file)


def test_a_description_is_read_as_it_was_written() -> None:
    assert from_json(INFO.to_json(), 'x') == INFO


@pytest.mark.parametrize(
    ('text', 'named'),
    [
        ('{', 'cannot be read'),
        (json.dumps({**json.loads(INFO.to_json()), 'format': 99}), 'of format 99'),
        (json.dumps({**json.loads(INFO.to_json()), 'colour': 1}), 'unknown fields colour'),
    ],
)
def test_a_description_of_another_form_is_named(text: str, named: str) -> None:
    with pytest.raises(ModelFileError, match=named):
        from_json(text, 'x.onnx')


def test_the_command_draws_and_writes_what_it_finds(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.png'), IMAGE)
    (tmp_path / 'images/b.jpg').write_text('no image')
    out = tmp_path / 'out'
    assert main([str(file), str(tmp_path / 'images'), '--out', str(out)]) == 1
    assert 'b.jpg: the file is no image' in capsys.readouterr().err
    written = json.loads((out / 'detections.json').read_text())
    assert [each['label'] for each in written[str(tmp_path / 'images/a.png')]] == ['cat', 'dog']
    assert sorted(path.name for path in out.iterdir()) == ['a.png', 'detections.json']


def test_the_command_writes_nothing_for_bad_input(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    (tmp_path / 'b.jpg').write_text('no image')
    assert main([str(file), str(tmp_path / 'b.jpg'), '--out', str(out)]) == 2
    assert main([str(tmp_path / 'y.onnx'), str(tmp_path / 'b.jpg'), '--out', str(out)]) == 2
    assert 'y.onnx: there is no such file' in capsys.readouterr().err
    assert not out.exists()


def test_an_openvino_file_without_its_weights_is_named(file: Path, tmp_path: Path) -> None:
    pytest.importorskip('openvino')
    import onnx

    from mmdet_ext.export.targets import to_openvino, write_openvino

    model = to_openvino(onnx.load(file))
    write_openvino(model, INFO, tmp_path / 'x.xml')
    np.testing.assert_allclose(Detector(tmp_path / 'x.xml')([IMAGE])[0].boxes, EXPECTED)
    weights = tmp_path / 'x.bin'
    content = weights.read_bytes()
    weights.write_bytes(content[:-4])
    with pytest.raises(ModelFileError, match=r'x\.(xml|bin)'):
        Detector(tmp_path / 'x.xml')
    weights.write_bytes(content[:-4] + b'\0\0\0\0')
    with pytest.raises(ModelFileError, match='not the file that was exported with x.xml'):
        Detector(tmp_path / 'x.xml')
    weights.rename(tmp_path / 'y.bin')
    with pytest.raises(ModelFileError, match='x.bin is absent.*rename both alike'):
        Detector(tmp_path / 'x.xml')


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_an_int8_file_that_would_saturate_is_refused(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(runtime)
    write_fixed(tmp_path / 'z.onnx', precision='int8', saturation_safe=False)
    monkeypatch.setattr(base, 'int8_instructions', list)
    with pytest.raises(ModelFileError, match='sums would saturate.*--vnni no'):
        Detector(tmp_path / 'z.onnx', runtime)
    monkeypatch.setattr(base, 'int8_instructions', lambda: ['AVX-512 VNNI'])
    assert len(Detector(tmp_path / 'z.onnx', runtime)([IMAGE])[0]) == 2


def test_the_key_of_the_description_is_fixed() -> None:
    assert KEY == 'mmdet_ext'
