"""Preprocessor of faces: values, channels, mirror images, and use in ImageClassifier."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement

from mmdet_ext.face.preprocessor import FaceDataPreprocessor


def make_images(count: int = 3, channels: int = 3) -> torch.Tensor:
    """Make random images."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 5, 4), generator=generator, dtype=torch.uint8)


def test_values_and_channels() -> None:
    image = torch.zeros(3, 1, 2, dtype=torch.uint8)
    image[0], image[1], image[2] = 0, 127, 255  # blue, green, red
    batch = FaceDataPreprocessor()(dict(inputs=[image]))
    assert batch['data_samples'] is None
    assert batch['inputs'].dtype == torch.float32
    assert batch['inputs'][0, :, 0, 0].tolist() == [127.5 / 128, -0.5 / 128, -127.5 / 128]
    kept = FaceDataPreprocessor(to_rgb=False)(dict(inputs=[image]))['inputs']
    assert kept[0, :, 0, 0].tolist() == [-127.5 / 128, -0.5 / 128, 127.5 / 128]


def test_mean_and_std_per_channel_are_in_the_order_of_the_network() -> None:
    images = make_images()
    out = FaceDataPreprocessor(mean=(1, 2, 3), std=(4, 5, 6))(dict(inputs=images))['inputs']
    for channel, (mean, std) in enumerate([(1, 4), (2, 5), (3, 6)]):
        torch.testing.assert_close(out[:, channel], (images[:, 2 - channel].float() - mean) / std)


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
def test_lists_and_stacks_give_the_same(collate) -> None:
    images = make_images()
    samples = [BaseDataElement(metainfo=dict(img_path=f'{i}.jpg')) for i in range(3)]
    data = collate(
        [
            dict(inputs=image, data_samples=sample)
            for image, sample in zip(images, samples, strict=True)
        ]
    )
    batch = FaceDataPreprocessor()(data, training=True)
    torch.testing.assert_close(batch['inputs'], (images.flip(1).float() - 127.5) / 128)
    assert [sample.img_path for sample in batch['data_samples']] == ['0.jpg', '1.jpg', '2.jpg']


def test_grey_input_stays_grey() -> None:
    images = make_images(channels=1)
    out = FaceDataPreprocessor()(dict(inputs=images))['inputs']
    torch.testing.assert_close(out, (images.float() - 127.5) / 128)


def test_mirror_images_are_appended_only_at_test() -> None:
    images, samples = make_images(), [BaseDataElement() for _ in range(3)]
    preprocessor = FaceDataPreprocessor(flip_at_test=True)
    plain = FaceDataPreprocessor()(dict(inputs=images))['inputs']
    training = preprocessor(dict(inputs=images, data_samples=samples), training=True)
    torch.testing.assert_close(training['inputs'], plain)
    test = preprocessor(dict(inputs=images, data_samples=samples))
    torch.testing.assert_close(test['inputs'][:3], plain)
    torch.testing.assert_close(test['inputs'][3:], plain[..., [3, 2, 1, 0]])
    assert len(test['data_samples']) == 3


def test_sizes_that_differ_are_named() -> None:
    inputs = [torch.zeros(3, 5, 4), torch.zeros(3, 5, 4), torch.zeros(3, 6, 4)]
    samples = [BaseDataElement(metainfo=dict(img_path=f'{i}.jpg')) for i in range(3)]
    with pytest.raises(
        ValueError,
        match=(r'of one size .* got 2: \(3, 5, 4\) 0\.jpg; \(3, 6, 4\) 2\.jpg.*AlignFace'),
    ):
        FaceDataPreprocessor()(dict(inputs=inputs, data_samples=samples))
    with pytest.raises(ValueError, match=r'\(3, 6, 4\) number 2 of the batch'):
        FaceDataPreprocessor()(dict(inputs=inputs))
    with pytest.raises(ValueError, match=r'number 0 of the batch'):
        FaceDataPreprocessor()(dict(inputs=inputs, data_samples=[SimpleNamespace()] * 3))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(std=0), 'std must be above 0, got 0'),
        (dict(mean=(1, 2)), 'mean must be 1 number or 3'),
        (dict(batch_augments=dict(augments=[dict(type='Mixup')])), 'mixed images have no one'),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceDataPreprocessor(**options)


def test_inputs_of_three_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r'got a tensor of shape \(3, 5, 4\)'):
        FaceDataPreprocessor()(dict(inputs=torch.zeros(3, 5, 4)))


def test_it_adds_nothing_to_a_checkpoint_and_moves_with_the_model() -> None:
    preprocessor = FaceDataPreprocessor()
    assert preprocessor.state_dict() == {}
    assert preprocessor.to('meta')(dict(inputs=make_images()))['inputs'].device.type == 'meta'


def classifier(**options: object):
    models = pytest.importorskip('mmpretrain.registry').MODELS
    pytest.importorskip('mmpretrain.models')
    return models.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmpretrain.ResNet',
                depth=18,
                num_stages=1,
                strides=(1,),
                dilations=(1,),
                out_indices=(0,),
            ),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=64),
            data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor'),
            **options,
        )
    )


def test_image_classifier_trains_on_it() -> None:
    model = classifier()
    assert type(model.data_preprocessor) is MODELS.get('mmdet_ext.FaceDataPreprocessor')
    sample = pytest.importorskip('mmpretrain.structures').DataSample
    images = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    data = dict(inputs=list(images), data_samples=[sample().set_gt_label(i % 3) for i in range(4)])
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    # Equal images have equal scores, so the loss is the mean over their labels.
    scores = model(model.data_preprocessor(data)['inputs'])
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(losses['loss'], expected)
    with pytest.raises(ValueError, match='mixed images have no one identity'):
        classifier(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))


def test_an_empty_batch_and_constants_of_other_channels_are_named() -> None:
    with pytest.raises(ValueError, match='inputs is empty'):
        FaceDataPreprocessor()(dict(inputs=[]))
    for name in ('mean', 'std'):
        preprocess = FaceDataPreprocessor(**{name: (1, 2, 3)})
        with pytest.raises(ValueError, match=f'{name} has 3 numbers.* images have 1 channels'):
            preprocess(dict(inputs=make_images(channels=1)))
