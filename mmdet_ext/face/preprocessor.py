"""Preprocessing of faces: (x - 127.5) / 128."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmdet_ext.registry import MODELS


@MODELS.register_module()
class FaceDataPreprocessor(BaseDataPreprocessor):  # type: ignore[misc]
    """Stacks images of one size, swaps blue and red, and scales to about -1 .. 1.

    ``(x - mean) / std``, for stock mmpretrain's ImageClassifier as its ``data_preprocessor``. What
    images of different sizes would need is alignment or a resize, not padding: they are an
    error.

    Args:
        mean: taken away, a number or one a channel, in the order that goes to the network.
        std: divided by, likewise, above 0. 128 is what the margin losses' papers name; InsightFace
            divides by 127.5.
        to_rgb: whether blue and red are swapped, which images of three channels are as loaded.
        flip_at_test: whether, outside of training, the mirrored images stand behind the batch:
            2N images for N data samples, for a head with ``flip_fusion``.
        batch_augments: what ImageClassifier passes on as its ``train_cfg``: must be empty, as
            mixed images have no one identity.
        non_blocking: whether the copy to a GPU may overlap.

    Raises:
        ValueError: if ``std`` is not above 0, ``mean`` or ``std`` is not of 1 or 3 numbers, or
            ``batch_augments`` is given; in use, if there are no images, they differ in size, or
            ``mean`` or ``std`` is of more channels than they.
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
        """Make a batch of what a loader gives.

        Args:
            data: ``inputs``, N tensors of (C, H, W) or one of (N, C, H, W), values 0 .. 255, BGR;
                ``data_samples``, N of them, or None, or absent.
            training: whether this is a step of training.

        Returns:
            ``inputs``, float32 of (N, C, H, W), or (2N, C, H, W) with ``flip_at_test`` outside of
            training, the mirrored ones behind; ``data_samples`` as given, on the device.
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
    """Raise unless each constant is one number or one a channel."""
    for name, numbers in constants.items():
        if len(numbers) not in (1, channels):
            raise ValueError(
                f'{name} has {len(numbers)} numbers, {numbers.flatten().tolist()}, but the '
                f'images have {channels} channels: give one number, or load images of '
                f'{len(numbers)} channels (mmdet_ext.LoadFace gives three)'
            )


def _check_sizes(inputs: Sequence[Tensor], data_samples: Sequence[Any] | None) -> None:
    """Raise, naming sizes and images, unless all are of one size."""
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
