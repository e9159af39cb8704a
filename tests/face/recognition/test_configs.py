"""Recognisers and detectors of configs and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet_ext.deploy import FaceRecogniser
from mmdet_ext.deploy.images import read_image
from mmdet_ext.face.embeddings import embeddings_of
from mmdet_ext.face.image_embedder import ConfigEmbedder
from mmdet_ext.face.recognition import (
    ConfigCropEmbedder,
    ConfigDetector,
    DetectedFace,
    FaceRecognizer,
    RecognitionError,
)
from tests._helpers.exported import image_files
from tests._helpers.tools import load_tool
from tests.tools.test_export_tool import FACES, Case


def write_face(folder: Path, pipeline: list[dict[str, Any]] | None = None) -> tuple[Path, Path]:
    """Write the config and the checkpoint of a small recogniser."""
    from mmpretrain.registry import MODELS

    config = Config(FACES)
    if pipeline is not None:
        config.test_dataloader.dataset.pipeline = pipeline
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    config.dump(folder / 'face.py')
    torch.save(dict(state_dict=model.state_dict()), folder / 'face.pth')
    return folder / 'face.py', folder / 'face.pth'


def test_a_crop_is_embedded_as_its_file_is(tmp_path: Path) -> None:
    files = write_face(tmp_path)
    embedder = ConfigCropEmbedder(*files)
    images = image_files(tmp_path, ((40, 24), (80, 50)))
    found = embedder.embed_crops([read_image(image) for image in images])
    whole = ConfigEmbedder(Config.fromfile(files[0]), files[1])
    np.testing.assert_allclose(found, whole.embed(images), rtol=1e-4, atol=1e-5)
    assert embedder.size == (40, 24)


def test_a_recogniser_with_alignment_gets_crops_by_landmarks(tmp_path: Path) -> None:
    pipeline: list[dict[str, Any]] = [
        dict(type='mmdet_ext.LoadFace'),
        dict(type='mmdet_ext.AlignFace', size=(24, 40)),
        dict(type='PackInputs'),
    ]
    files = write_face(tmp_path, pipeline)
    (image,) = image_files(tmp_path, ((90, 110),))
    points = np.array([[40, 30], [70, 32], [56, 45], [45, 60], [68, 61]], np.float64)
    people = FaceRecognizer(
        ConfigCropEmbedder(*files),
        None,
        lambda image: [DetectedFace((30, 20, 80, 70), 1.0, points)],
    )
    (face,) = people.faces(image)
    whole = ConfigEmbedder(Config.fromfile(files[0]), files[1])
    data = [whole.pipeline({'img_path': str(image), 'gt_label': 0, 'landmarks': points})]
    expected = embeddings_of(whole.model, data, [0])[0][0]
    np.testing.assert_allclose(face.embedding, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_and_its_export_recognise_alike(tmp_path: Path) -> None:
    config, checkpoint = write_face(tmp_path)
    assert load_tool('deploy/export.py').main([str(config), str(checkpoint), '--to', 'onnx']) == 0
    images = image_files(tmp_path, ((40, 24), (80, 50), (33, 44)))
    one = FaceRecognizer.from_files(config=config, checkpoint=checkpoint, recogniser='small')
    other = FaceRecognizer.from_files(tmp_path / 'face.onnx', recogniser='small')
    assert one.embedder.size == other.embedder.size == (40, 24)
    for people in (one, other):
        people.enrol('ann', images[0])
        people.enrol('bob', images[1])
    rows = [face.embedding for (face,) in one.faces_of(images)]
    rows = [row / np.linalg.norm(row) for row in rows]
    np.testing.assert_allclose(
        rows, FaceRecogniser(tmp_path / 'face.onnx').embed(images), atol=1e-4
    )
    for (a,), (b,) in zip(one.recognize(images), other.recognize(images), strict=True):
        assert a.name == b.name and abs((a.similarity or 0) - (b.similarity or 0)) < 1e-3


def test_a_detector_of_mmdet_finds_boxes_in_the_image(tmp_path: Path) -> None:
    from mmdet.apis import inference_detector, init_detector

    case = Case(tmp_path)
    detector = ConfigDetector(case.config, case.checkpoint)
    image = read_image(tmp_path / 'images' / '0.png')
    found = detector(image)
    expected = inference_detector(
        init_detector(str(case.config), str(case.checkpoint), palette='coco', device='cpu'), image
    ).pred_instances
    assert len(found) == len(expected) > 3
    np.testing.assert_allclose(
        [f.box for f in found], expected.bboxes.numpy(), rtol=1e-4, atol=0.01
    )
    np.testing.assert_allclose([f.score for f in found], expected.scores.numpy(), atol=1e-5)
    first = detector.model.classes[int(expected.labels[0])]
    chosen = ConfigDetector(case.config, case.checkpoint, [first])(image)
    assert len(chosen) == int((expected.labels == expected.labels[0]).sum()) < len(found)


def test_a_detector_and_a_recogniser_work_together(tmp_path: Path) -> None:
    case = Case(tmp_path)
    config, checkpoint = write_face(tmp_path)
    people = FaceRecognizer.from_files(
        config=config,
        checkpoint=checkpoint,
        detector_config=case.config,
        detector_checkpoint=case.checkpoint,
        min_score=0.0,
        largest_only=True,
    )
    images = [tmp_path / 'images' / f'{name}.png' for name in '01']
    assert people.enrol('ann', images[0]).images == (str(images[0]),)
    (ann,), (other,) = people.recognize(images)
    assert ann.name == 'ann' and ann.similarity == 1
    assert other.similarity is not None and other.similarity < 1


def test_landmarks_of_a_detector_are_taken(tmp_path: Path) -> None:
    case = Case(tmp_path)
    detector = ConfigDetector(case.config, case.checkpoint)
    points = np.arange(30, dtype=np.float32).reshape(2, 5, 3)
    fields = dict(
        bboxes=np.array([[0, 0, 9, 9], [1, 1, 8, 8]], np.float32),
        scores=np.array([0.5, 0.75], np.float32),
        labels=np.array([0, 0]),
    )
    detector.model = lambda image: {**fields, 'keypoints': points}  # type: ignore[assignment]
    better, worse = detector(np.zeros((9, 9, 3), np.uint8))
    assert (better.score, worse.score) == (0.75, 0.5) and better.landmarks is not None
    np.testing.assert_array_equal(better.landmarks, points[1, :, :2])
    detector.model = lambda image: {**fields, 'keypoints': points[:, :4]}  # type: ignore
    assert detector(np.zeros((9, 9, 3), np.uint8))[0].landmarks is None


def test_configs_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    case = Case(tmp_path)
    config = Config.fromfile(case.config)
    with pytest.raises(FileNotFoundError, match=r'absent\.pth: there is no such file'):
        ConfigDetector(config, tmp_path / 'absent.pth')
    config.pop('test_dataloader')
    with pytest.raises(RecognitionError, match='has no test_dataloader'):
        ConfigDetector(config, case.checkpoint)
    face, checkpoint = write_face(tmp_path)
    with pytest.raises(RecognitionError, match='recogniser must be given where config is no file'):
        ConfigCropEmbedder(Config.fromfile(face), checkpoint)
    with pytest.raises(ValueError, match='does not fit the model'):
        ConfigDetector(case.config, checkpoint)
