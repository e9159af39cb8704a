"""Recognisers of exported files: without torch, with a detector, and wrong combinations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmdet_ext.deploy import FaceRecogniser, ModelFileError
from mmdet_ext.face.gallery import FaceGallery, recogniser_id
from mmdet_ext.face.recognition import FaceRecognizer, FileDetector, RecognitionError

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from tests._helpers.model_files import SIDE, write_fixed  # noqa: E402
from tests.face.recognition.networks import write_exported  # noqa: E402

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def image() -> np.ndarray:
    """Return an image of noise of the size of the detector's input."""
    return np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def test_an_image_without_a_detector_is_embedded_as_by_the_gallery_tool(
    tmp_path: Path, image: np.ndarray
) -> None:
    file = write_exported(tmp_path / 'face.onnx')
    people = FaceRecognizer.from_files(file)
    assert people.embedder.recogniser == recogniser_id([file])
    (face,) = people.faces(image)
    np.testing.assert_array_equal(face.embedding, FaceRecogniser(file).embed([image])[0])


def test_a_detector_in_a_file_finds_the_faces_of_its_classes(
    tmp_path: Path, image: np.ndarray
) -> None:
    write_fixed(tmp_path / 'det.onnx')
    both = FileDetector(tmp_path / 'det.onnx')(image)
    assert [face.box for face in both] == [(4, 4, 12, 12), (16, 8, 28, 30)]
    np.testing.assert_allclose([face.score for face in both], [0.9, 0.7])
    assert both[0].landmarks is None
    (dog,) = FileDetector(tmp_path / 'det.onnx', ['dog'])(image)
    assert dog.box == (16, 8, 28, 30)
    for wrong in (['cow'], 'dog'):
        with pytest.raises(RecognitionError, match=r'face_classes .* which has cat, dog'):
            FileDetector(tmp_path / 'det.onnx', wrong)


def test_a_gallery_is_kept_between_programs(tmp_path: Path, image: np.ndarray) -> None:
    write_fixed(tmp_path / 'det.onnx')
    file = write_exported(tmp_path / 'face.onnx')
    options: dict[str, Any] = dict(detector=tmp_path / 'det.onnx', margin=0.1)
    first = FaceRecognizer.from_files(file, tmp_path / 'people', **options, face_classes=['cat'])
    assert len(first.gallery) == 0
    first.enrol('cat', image)
    first.gallery.save(tmp_path / 'people')
    again = FaceRecognizer.from_files(file, tmp_path / 'people', threshold=0.999, **options)
    assert isinstance(again.gallery, FaceGallery)
    ((cat, dog),) = again.recognize(image)
    assert (cat.name, dog.name) == ('cat', 'unknown') and cat.similarity == 1


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({}, 'give model, or config and checkpoint'),
        ({'model': 'a', 'config': 'b', 'checkpoint': 'c'}, 'give model, or config and checkpoint'),
        ({'config': 'b'}, 'give model, or config and checkpoint'),
        ({'config': 'b', 'checkpoint': 'c', 'insightface': {}}, 'insightface belongs to model'),
        ({'model': None, 'detector_config': 'a'}, 'give model'),
    ],
)
def test_files_that_do_not_go_together_are_refused(given: Any, message: str) -> None:
    with pytest.raises(RecognitionError, match=message):
        FaceRecognizer.from_files(**given)


@pytest.mark.parametrize(
    'given',
    [
        {'detector_config': 'a'},
        {'detector_checkpoint': 'a'},
        {'detector': 'a', 'detector_config': 'b', 'detector_checkpoint': 'c'},
    ],
)
def test_half_a_detector_and_two_are_refused(given: Any, tmp_path: Path) -> None:
    with pytest.raises(RecognitionError, match='give detector_config and detector_checkpoint'):
        FaceRecognizer.from_files(write_exported(tmp_path / 'face.onnx'), **given)


def test_files_of_the_other_task_are_refused(tmp_path: Path) -> None:
    write_fixed(tmp_path / 'det.onnx')
    face = write_exported(tmp_path / 'face.onnx')
    with pytest.raises(ModelFileError, match='no face recogniser'):
        FaceRecognizer.from_files(tmp_path / 'det.onnx')
    with pytest.raises(ModelFileError, match='no detector'):
        FaceRecognizer.from_files(face, detector=face)


#: Enrols and recognises with imports of torch and OpenMMLab refused.
PROGRAM = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'torchvision', 'mmdet', 'mmcv', 'mmengine', 'onnx'):
            raise ImportError(f'{name} is refused here')

sys.meta_path.insert(0, Refuse())
from mmdet_ext.face.recognition import FaceRecognizer

face, detector, image = sys.argv[1:]
people = FaceRecognizer.from_files(face, detector=detector, largest_only=True)
people.enrol('ann', image)
print([found.name for found in people.recognize(image)[0]])
"""


@pytest.mark.subprocess
def test_exported_files_need_neither_torch_nor_openmmlab(tmp_path: Path, image: np.ndarray) -> None:
    write_fixed(tmp_path / 'det.onnx')
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    words = [str(tmp_path / name) for name in ('face.onnx', 'det.onnx', 'a.png')]
    write_exported(tmp_path / 'face.onnx')
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, *words], capture_output=True, text=True, cwd=REPO
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['ann']"
