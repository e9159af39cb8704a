"""Images as a program prepares them, against mmdet's own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import Compose

from mmdet_ext.deploy.errors import ImageError
from mmdet_ext.deploy.images import image_files, prepare, read_image, stack
from mmdet_ext.detection.export.pipeline import read_input
from mmdet_ext.export.onnx_file import ExportError

PREPROCESSOR = dict(
    type='DetDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
    pad_value=0.5,
)
GREY = dict(img=(114.0, 114.0, 114.0))
PIPELINES: dict[str, list[dict[str, Any]]] = {
    'ratio kept': [dict(type='Resize', scale=(200, 120), keep_ratio=True)],
    'ratio changed': [dict(type='Resize', scale=(96, 64), keep_ratio=False)],
    'cubic': [dict(type='Resize', scale=(96, 64), interpolation='bicubic')],
    'padded first': [
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
        dict(type='Pad', size=(128, 96), pad_val=GREY),
    ],
    'padded to a multiple': [
        dict(type='Resize', scale=(90, 70), keep_ratio=True),
        dict(type='Pad', size_divisor=32, pad_val=GREY),
    ],
    'warped': [dict(type='mmdet_ext.WarpResize', scale=(96, 64))],
}


def config_of(steps: list[dict[str, Any]], **preprocessor: Any) -> Config:
    pipeline = [dict(type='LoadImageFromFile'), *steps, dict(type='PackDetInputs')]
    return Config(
        dict(
            model=dict(data_preprocessor={**PREPROCESSOR, **preprocessor}),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )


def image(folder: Path, height: int, width: int, name: str = 'x.png') -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / name), pixels)
    return folder / name


@pytest.mark.parametrize('size', [(70, 110), (110, 70), (1, 1), (300, 40)])
@pytest.mark.parametrize('name', PIPELINES)
def test_pixels_and_sizes_are_those_of_mmdet(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    config, file = config_of(PIPELINES[name]), image(tmp_path, *size)
    info = read_input(config, None, 1)
    found = prepare(read_image(file), info)
    data = Compose(config.test_dataloader.dataset.pipeline)(dict(img_path=str(file), img_id=0))
    preprocessor = MODELS.build(config.model.data_preprocessor)
    batch = preprocessor(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]))
    np.testing.assert_allclose(found.pixels, batch['inputs'][0].numpy(), atol=1e-6)
    meta = batch['data_samples'][0]
    assert found.size == tuple(meta.img_shape[:2])
    assert found.factors == pytest.approx(tuple(meta.scale_factor[:2]))


def test_images_of_a_batch_are_padded_as_mmdet_pads_them(tmp_path: Path) -> None:
    config = config_of(PIPELINES['ratio kept'])
    info = read_input(config, None, None)
    files = [image(tmp_path, 70, 110, 'a.png'), image(tmp_path, 110, 70, 'b.png')]
    found = stack([prepare(read_image(file), info) for file in files], info)
    pipeline = Compose(config.test_dataloader.dataset.pipeline)
    data = [pipeline(dict(img_path=str(file), img_id=0)) for file in files]
    preprocessor = MODELS.build(config.model.data_preprocessor)
    batch = preprocessor({key: [each[key] for each in data] for key in data[0]})
    torch.testing.assert_close(torch.from_numpy(found), batch['inputs'])


def test_an_image_that_does_not_fit_a_fixed_size_is_made_smaller(tmp_path: Path) -> None:
    info = read_input(config_of(PIPELINES['ratio kept']), (128, 224), 1)
    upright = prepare(read_image(image(tmp_path, 200, 100)), info)
    assert upright.pixels.shape == (3, 128, 224)
    assert upright.size == (128, 64)
    assert upright.factors == (0.64, 0.64)


def test_grey_and_16_bit_files_are_read_as_in_training(tmp_path: Path) -> None:
    grey = np.arange(100, dtype=np.uint8).reshape(10, 10)
    cv2.imwrite(str(tmp_path / 'grey.png'), grey)
    np.testing.assert_array_equal(read_image(tmp_path / 'grey.png'), np.stack([grey] * 3, -1))
    deep = np.arange(100, dtype=np.uint16).reshape(10, 10) * 600
    for name in ('deep.png', 'deep.tiff'):
        cv2.imwrite(str(tmp_path / name), deep)
        with pytest.warns(UserWarning, match=f'{name} has 16 bits.*the upper 8 are used'):
            found = read_image(tmp_path / name)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found[..., 0], deep >> 8)


@pytest.mark.parametrize(
    ('pixels', 'named'),
    [
        (np.zeros((8, 8), np.uint8), r'shape \(8, 8\) and type uint8.*COLOR_GRAY2BGR'),
        (np.zeros((8, 8, 3), np.uint16), r'type uint16.*image // 257'),
        (np.zeros((0, 8, 3), np.uint8), r'shape \(0, 8, 3\)'),
    ],
)
def test_pixels_of_another_form_are_named(pixels: np.ndarray, named: str) -> None:
    with pytest.raises(ImageError, match=named):
        read_image(pixels)


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    with pytest.raises(ImageError, match='text.jpg: the file is no image that OpenCV can decode'):
        read_image(tmp_path / 'text.jpg')
    with pytest.raises(ImageError, match='empty.jpg: the file is empty'):
        read_image(tmp_path / 'empty.jpg')
    with pytest.raises(ImageError, match='absent.jpg: cannot be read'):
        read_image(tmp_path / 'absent.jpg')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(ImageError, match='the folder has no images'):
        image_files([tmp_path / 'folder'])


def test_an_image_that_would_have_no_pixels_is_named(tmp_path: Path) -> None:
    info = read_input(config_of(PIPELINES['ratio kept']), None, 1)
    thin = np.zeros((10, 8000, 3), np.uint8)
    with pytest.raises(ImageError, match='thin.png is 10 x 8000 px.*a side would be 0 px'):
        prepare(thin, info, 'thin.png')


@pytest.mark.parametrize(
    ('steps', 'size', 'named'),
    [
        ([dict(type='RandomCrop', crop_size=(8, 8))], None, 'has RandomCrop'),
        ([], None, 'has no Resize'),
        ([dict(type='Resize', scale=(64, 64), backend='pillow')], None, "backend='pillow'"),
        ([dict(type='Resize', scale=(96, 64))], (128, 128), 'makes every image'),
        ([dict(type='Resize', scale=(96, 64))], 'dynamic', 'makes every image 64 x 96'),
        ([dict(type='Resize', scale=(96, 64), keep_ratio=True)], (100, 96), 'no multiple'),
    ],
)
def test_a_pipeline_that_a_program_does_not_have_is_named(
    steps: list[dict[str, Any]], size: Any, named: str
) -> None:
    with pytest.raises(ExportError, match=named):
        read_input(config_of(steps), size, 1)
