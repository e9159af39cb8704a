"""ONNX files in InsightFace's form: stated preparation, batches, files of another form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmdet_ext.deploy import ModelFileError
from mmdet_ext.face.gallery import recogniser_id
from mmdet_ext.face.recognition import FaceRecognizer, InsightFaceEmbedder, RecognitionError

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from tests.face.recognition.networks import DIM, weights, write_detector, write_network  # noqa: E402


def crops(count: int, side: int = 112) -> list[np.ndarray]:
    """Return crops of noise."""
    generator = np.random.default_rng(5)
    return list(generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def expected(images: list[np.ndarray], mean: float, std: float, rgb: bool = True) -> np.ndarray:
    """Compute embeddings of length 1 with loops over the cells of an image."""
    rows = []
    for image in images:
        order = (2, 1, 0) if rgb else (0, 1, 2)
        cells = [
            (image[28 * y : 28 * y + 28, 28 * x : 28 * x + 28, channel].mean() - mean) / std
            for channel in order
            for y in range(4)
            for x in range(4)
        ]
        row = np.array(cells) @ weights().astype(np.float64)
        rows.append(row / np.sqrt((row**2).sum()))
    return np.array(rows)


@pytest.mark.parametrize('batch', ['N', 1, 2], ids=['free', 'one', 'two'])
@pytest.mark.parametrize('count', [1, 3])
def test_a_batch_of_any_form_gives_the_embeddings_of_its_crops(
    batch: Any, count: int, tmp_path: Path
) -> None:
    embedder = InsightFaceEmbedder(write_network(tmp_path / 'a.onnx', batch))
    assert embedder.size == (112, 112)
    found = embedder.embed_crops(crops(count))
    assert found.shape == (count, DIM)
    np.testing.assert_allclose(found, expected(crops(count), 127.5, 127.5), atol=1e-4)
    assert embedder.embed_crops([]).shape == (0, 0)


@pytest.mark.parametrize(
    ('mean', 'std', 'rgb'), [(127.5, 128.0, True), (0.0, 1.0, True), (127.5, 127.5, False)]
)
def test_the_preparation_is_what_is_stated(
    mean: float, std: float, rgb: bool, tmp_path: Path
) -> None:
    file = write_network(tmp_path / 'a.onnx')
    embedder = InsightFaceEmbedder(file, mean=mean, std=std, rgb=rgb)
    found = embedder.embed_crops(crops(2))
    np.testing.assert_allclose(found, expected(crops(2), mean, std, rgb), atol=1e-4)
    assert embedder.recogniser == (
        f'{recogniser_id([file])} {"RGB" if rgb else "BGR"} mean {mean:g} std {std:g}'
    )


def test_a_network_that_normalises_by_itself_takes_plain_pixels(tmp_path: Path) -> None:
    inside = write_network(tmp_path / 'a.onnx', inside=(127.5, 128.0))
    found = InsightFaceEmbedder(inside, mean=0, std=1).embed_crops(crops(2))
    outside = InsightFaceEmbedder(write_network(tmp_path / 'b.onnx'), std=128)
    np.testing.assert_allclose(found, outside.embed_crops(crops(2)), atol=1e-5)


def test_the_blob_is_that_of_opencv_which_insightface_calls(tmp_path: Path) -> None:
    embedder = InsightFaceEmbedder(write_network(tmp_path / 'a.onnx'))
    images = crops(1) + [cv2.resize(crops(1, 150)[0], (90, 130))]
    blob = cv2.dnn.blobFromImages(images, 1 / 127.5, (112, 112), (127.5,) * 3, swapRB=True)
    ours = np.stack([embedder._prepared(image) for image in images])
    np.testing.assert_allclose(ours, blob, atol=2 / 127.5)
    np.testing.assert_allclose(ours[0], blob[0], atol=1e-6)


def test_other_preparations_are_other_recognisers_to_a_gallery(tmp_path: Path) -> None:
    file = write_network(tmp_path / 'a.onnx')
    people = FaceRecognizer.from_files(file, insightface={'std': 128.0})
    people.enrol('ann', crops(2))
    people.gallery.save(tmp_path / 'gallery')
    again = FaceRecognizer.from_files(file, tmp_path / 'gallery', insightface={'std': 128.0})
    ((face,),) = again.recognize(crops(1))
    assert face.name == 'ann'
    with pytest.raises(ValueError, match=r'std 127\.5.*std 128'):
        FaceRecognizer.from_files(file, tmp_path / 'gallery', insightface={})


def test_a_size_that_the_file_leaves_free_is_asked_for(tmp_path: Path) -> None:
    file = write_network(tmp_path / 'a.onnx', side='s')
    with pytest.raises(ModelFileError, match=r'height and width free: give size=\(112, 112\)'):
        InsightFaceEmbedder(file)
    embedder = InsightFaceEmbedder(file, size=(112, 112))
    np.testing.assert_allclose(
        embedder.embed_crops(crops(1)), expected(crops(1), 127.5, 127.5), atol=1e-4
    )
    with pytest.raises(ModelFileError, match=r'takes 112 x 112 px, but size is \(128, 128\)'):
        InsightFaceEmbedder(write_network(file), size=(128, 128))


def test_files_of_another_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r'has inputs .* A detector of InsightFace is no'):
        InsightFaceEmbedder(write_detector(tmp_path / 'det.onnx'))
    with pytest.raises(ModelFileError, match='there is no such file'):
        InsightFaceEmbedder(tmp_path / 'absent.onnx')
    (tmp_path / 'cut.onnx').write_bytes(write_network(tmp_path / 'a.onnx').read_bytes()[:100])
    with pytest.raises(ModelFileError, match='cannot be loaded by onnxruntime'):
        InsightFaceEmbedder(tmp_path / 'cut.onnx')


@pytest.mark.parametrize(('mean', 'std'), [(0.0, 0.0), (float('nan'), 1.0), (0.0, float('inf'))])
def test_a_preparation_out_of_range_is_named(mean: float, std: float, tmp_path: Path) -> None:
    with pytest.raises(RecognitionError, match='mean must be finite and std above 0'):
        InsightFaceEmbedder(write_network(tmp_path / 'a.onnx'), mean=mean, std=std)
