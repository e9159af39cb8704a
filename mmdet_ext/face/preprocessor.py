"""Preprocessing of batches of face images: (x - 127.5) / 128."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmdet_ext.registry import MODELS


@MODELS.register_module()
class FaceDataPreprocessor(BaseDataPreprocessor):  # type: ignore[misc]
    """Preprocessor that stacks images of one size, swaps blue and red, and scales to about -1 .. 1.

    It computes ``(x - mean) / std``. It is the ``data_preprocessor`` of mmpretrain's
    ImageClassifier. Images of different sizes are an error: faces need alignment or a resize, not
    padding.

    Args:
        mean: subtracted; one number, or one per channel, in the order that the network takes.
        std: divisor, above 0; one number, or one per channel. The papers of the margin losses
            divide by 128, InsightFace by 127.5.
        to_rgb: swap blue and red in images of three channels, which are loaded as BGR.
        flip_at_test: append the mirror images to the batch, except in training: 2N images for N
            data samples. This alone switches mirror fusion on. The head fuses the embeddings of
            an image and of its mirror image, as its ``flip_fusion`` says.
        batch_augments: ``train_cfg`` of ImageClassifier, which passes it on under this name. It
            must be empty, because mixed images have no single identity.
        non_blocking: allow the copy to a GPU to overlap with other work.

    Raises:
        ValueError: if ``std`` is not above 0, ``mean`` or ``std`` does not have 1 or 3 numbers, or
            ``batch_augments`` is given; in use, if there are no images, images differ in size, or
            ``mean`` or ``std`` has more channels than the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: float | Sequence[float] = 127.5,
        std: float | Sequence[float] = 128.0,
        to_rgb: bool = True,
        flip_at_test: bool = False,
        batch_augments: Mapping[str, Any] | None = None,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        if batch_augments:
            raise ValueError(
                f'batch_augments (train_cfg of ImageClassifier) is {batch_augments}: mixed '
                'images have no one identity. Leave it away'
            )
        for name, values in (('mean', mean), ('std', std)):
            numbers = torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            if len(numbers) not in (1, 3):
                raise ValueError(f'{name} must be 1 number or 3, got {values}')
            self.register_buffer(name, numbers, persistent=False)
        if not (self.std > 0).all():
            raise ValueError(f'std must be above 0, got {std}')
        self.to_rgb = to_rgb
        self.flip_at_test = flip_at_test

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Make a batch for the network from a batch of the data loader.

        Args:
            data: ``inputs``, N tensors of (C, H, W) or one tensor of (N, C, H, W), values 0 .. 255,
                BGR; and ``data_samples``, N of them, or None, or absent.
            training: whether this is a training step.

        Returns:
            dict: ``inputs``, float32 of (N, C, H, W), or of (2N, C, H, W) with ``flip_at_test``
            except in training, mirror images last; and ``data_samples`` as given, on the device.
        """
        data_samples = data.get('data_samples')
        inputs = data['inputs']
        if not isinstance(inputs, Tensor):
            if not len(inputs):
                raise ValueError('inputs is empty: a batch has at least one image')
            _check_sizes(inputs, data_samples)
            inputs = torch.stack(list(inputs))
        if inputs.ndim != 4:
            raise ValueError(
                'inputs must be (N, C, H, W), or a list of (C, H, W), got a tensor of shape '
                f'{tuple(inputs.shape)}'
            )
        _check_channels(inputs.shape[1], mean=self.mean, std=self.std)
        inputs = self.cast_data(inputs)
        if self.to_rgb and inputs.shape[1] == 3:
            inputs = inputs.flip(1)
        inputs = (inputs.float() - self.mean) / self.std
        if self.flip_at_test and not training:
            inputs = torch.cat([inputs, inputs.flip(-1)])
        return dict(inputs=inputs, data_samples=self.cast_data(data_samples))


def _check_channels(channels: int, **constants: Tensor) -> None:
    """Raise unless each constant has one number, or one per channel."""
    for name, numbers in constants.items():
        if len(numbers) not in (1, channels):
            raise ValueError(
                f'{name} has {len(numbers)} numbers, {numbers.flatten().tolist()}, but the '
                f'images have {channels} channels: give one number, or load images of '
                f'{len(numbers)} channels (mmdet_ext.LoadFace gives three)'
            )


def _check_sizes(inputs: Sequence[Tensor], data_samples: Sequence[Any] | None) -> None:
    """Raise unless all images are of one size; the error names sizes and images."""
    sizes: dict[tuple[int, ...], str] = {}
    for i, image in enumerate(inputs):
        if tuple(image.shape) not in sizes:
            sample = data_samples[i] if data_samples is not None else None
            path = getattr(sample, 'img_path', None) or f'number {i} of the batch'
            sizes[tuple(image.shape)] = path
    if len(sizes) > 1:
        shown = '; '.join(f'{size} {path}' for size, path in list(sizes.items())[:5])
        raise ValueError(
            f'the images of a batch must be of one size (C, H, W), got {len(sizes)}: {shown}. '
            "Put mmdet_ext.AlignFace or dict(type='Resize', scale=(112, 112)) into the pipeline"
        )
