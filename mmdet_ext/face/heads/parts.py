"""Parts of `MarginHead`: margin, neck, auxiliary losses, and the fusion of mirror images."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard, get_args

import torch
from torch import Tensor, nn

from mmdet_ext.face.losses.base import FeatureLoss
from mmdet_ext.face.margins.base import Margin
from mmdet_ext.functional.numerics.checks import check_one_of
from mmdet_ext.registry import MARGINS, MODELS

FlipFusion = Literal['concat', 'sum']
Neck = Literal['none', 'fc', 'fc-bn', 'bn-fc-bn', 'bn-dropout-fc-bn']
#: A name or a class, or ``dict(type=..., ...)``.
MarginConfig = str | type | Mapping[str, Any]
#: Configs of several losses, of one, or None.
LossConfigs = Sequence[Mapping[str, Any]] | Mapping[str, Any] | None


def build_margin(cfg: MarginConfig, num_classes: int) -> Margin:
    """Build a margin from ``dict(type=..., ...)``, or from its type alone.

    Args:
        cfg: the type may be a name, with or without ``mmdet_ext.``, a full path or a class.
        num_classes: number of classes of the head.

    Raises:
        KeyError: for an unknown name.
        TypeError: for a config without ``type``, or an option that the margin does not have.
    """
    options = {'type': cfg} if isinstance(cfg, (str, type)) else cfg
    if not isinstance(options, Mapping) or not isinstance(options.get('type'), (str, type)):
        raise TypeError(f"margin must be dict(type='ArcFace', ...) or 'ArcFace', got {cfg!r}")
    options = dict(options)
    built = _margin_class(options.pop('type'))(**options)
    built.bind(num_classes)
    return built


def _margin_class(name: str | type) -> type[Margin]:
    """Return the registered margin of a name, or the class itself if it is a margin."""
    found: Any = name
    if isinstance(name, str):
        try:
            found = MARGINS.get(name)
        except KeyError:
            # The error says what is wrong with a name or a path of this package.
            if name.partition('.')[0] in (name, 'mmdet_ext'):
                raise
        except RuntimeError:
            # MMEngine raises it for a name with dots that it cannot import.
            pass
    if isinstance(found, type) and issubclass(found, Margin):
        return found
    names = ', '.join(sorted(MARGINS.module_dict))
    raise KeyError(
        f"there is no margin named {name!r}; there are, with or without 'mmdet_ext.': {names}"
    )


def build_neck(
    neck: Neck | None, channels: int, embedding: int | None, dropout: float
) -> nn.Sequential | None:
    """Build the layers from the features to the embedding; None for no layer.

    Args:
        neck: as in `MarginHead`.
        channels: channels of the features.
        embedding: channels of the embedding; None for those of the features.
        dropout: dropout rate.

    Raises:
        ValueError: for options that do not fit.
    """
    neck = neck or ('bn-fc-bn' if embedding is not None else 'none')
    check_one_of('neck', neck, Neck)
    if dropout and 'dropout' not in neck:
        raise ValueError(f"dropout={dropout} is for neck='bn-dropout-fc-bn', got neck={neck!r}")
    if neck == 'none':
        if embedding is not None and embedding != channels:
            raise ValueError(
                f'embedding_channels={embedding} differs from in_channels={channels}: that needs '
                f'a neck, one of {get_args(Neck)[1:]}'
            )
        return None
    embedding = embedding or channels
    layers: list[nn.Module] = []
    for part in neck.split('-'):
        if part == 'fc':
            layers.append(nn.Linear(channels, embedding, bias='-bn' not in neck))
        elif part == 'dropout':
            layers.append(nn.Dropout(dropout))
        else:
            layers.append(nn.BatchNorm1d(embedding if layers else channels))
    return nn.Sequential(*layers)


def build_losses(configs: LossConfigs, num_classes: int, channels: int) -> dict[str, nn.Module]:
    """Build the auxiliary losses.

    Args:
        configs: a list of ``dict(type=..., ...)``, one such dict, or None.
        num_classes: number of classes of the head, given to losses with an option
            ``num_classes``.
        channels: channels of the embedding, given to losses with an option ``in_channels``.

    Returns:
        dict: losses by short names: 'center' for CenterLoss, 'center_2' for a second one.

    Raises:
        KeyError: for an unknown name.
        TypeError: for a value that is no such config, or a loss that takes other inputs.
        ValueError: for a number of classes or channels that differs from the head's.
    """
    configs = [configs] if isinstance(configs, Mapping) else configs or ()
    losses: dict[str, nn.Module] = {}
    sizes = {'num_classes': num_classes, 'in_channels': channels}
    for cfg in configs:
        module = _build_loss(cfg, sizes)
        name = type(module).__name__.removesuffix('Loss').lower()
        repeats = sum(key.partition('_')[0] == name for key in losses)
        losses[f'{name}_{repeats + 1}' if repeats else name] = module
    return losses


def _build_loss(cfg: Any, sizes: dict[str, int]) -> FeatureLoss:
    """Build a loss, with the sizes of the head where it has options for them."""
    if not isinstance(cfg, Mapping) or 'type' not in cfg:
        raise TypeError(
            f"aux_losses must be a list of dict(type='TripletLoss', ...), got {cfg!r} in it"
        )
    options = dict(cfg)
    cls = _loss_class(options['type'])
    taken = inspect.signature(cls).parameters
    for key, size in sizes.items():
        if key in taken and options.setdefault(key, size) != size:
            raise ValueError(
                f'{key}={options[key]!r} of {cls.__name__} in aux_losses differs from {size} of '
                'the head: leave it out, and the head fills it in'
            )
    return MODELS.build({**options, 'type': cls})


def _loss_class(name: Any) -> type[FeatureLoss]:
    """Return the registered loss of a name, or the class itself if it is a `FeatureLoss`."""
    known = name if not isinstance(name, str) or '.' in name else f'mmdet_ext.{name}'
    found = MODELS.get(known) if isinstance(known, str) else known
    if _is_loss(found):
        return found
    ours = [key for key, cls in MODELS.module_dict.items() if _is_loss(cls)]
    names = ', '.join(sorted(ours))
    wrong = KeyError if found is None else TypeError
    raise wrong(f'aux_losses take losses on features and labels, which are {names}; got {name!r}')


def _is_loss(found: Any) -> TypeGuard[type[FeatureLoss]]:
    """Return whether it is a subclass of `FeatureLoss`."""
    return isinstance(found, type) and issubclass(found, FeatureLoss)


def fuse_mirror_images(embedding: Tensor, images: int, fusion: FlipFusion | None) -> Tensor:
    """Fuse the embedding of each image with that of its mirror image.

    Args:
        embedding: (images, D), or (2 images, D) with the mirror images behind the images.
        images: number of images.
        fusion: 'concat' or 'sum'; None for 'sum' if the mirror images are there.

    Returns:
        Tensor: (images, D), or (images, 2 D) for 'concat'.

    Raises:
        ValueError: if the number of embeddings is another, or ``fusion`` is given and the mirror
            images are missing.
    """
    if fusion is None and len(embedding) == images:
        return embedding
    if len(embedding) != 2 * images:
        raise ValueError(
            f'flip_fusion={fusion!r} wants {2 * images if fusion else images} embeddings for '
            f'{images} images, got {len(embedding)}: mirror images come from '
            "data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', flip_at_test=True)"
        )
    plain, mirrored = embedding[:images], embedding[images:]
    return torch.cat([plain, mirrored], 1) if fusion == 'concat' else plain + mirrored


def checked_labels(data_samples: Sequence[Any], embedding: Tensor, num_classes: int) -> Tensor:
    """Return the labels of data samples, (N,), int64, after checking them.

    Args:
        data_samples: one per image, with its ``gt_label``.
        embedding: (N, D), on whose device the labels are wanted.
        num_classes: number of classes of the head.

    Raises:
        ValueError: if an image has no label, several labels, or a label outside the classes.
    """
    for place, sample in enumerate(data_samples):
        if 'gt_label' not in sample:
            raise ValueError(
                f'data sample {place} has no gt_label, the identity of its image: look at '
                'the data set, and whether the pipeline packs it (PackInputs)'
            )
        if 'gt_score' in sample:
            raise ValueError(
                'data_samples have gt_score: a margin is for one identity per image. Take '
                'mixing augmentations (Mixup, CutMix) out of train_cfg'
            )
    given = [torch.as_tensor(sample.gt_label).view(-1) for sample in data_samples]
    labels = torch.cat(given) if given else torch.zeros(0, dtype=torch.int64)
    if len(labels) != len(embedding):
        raise ValueError(
            f'data_samples hold {len(labels)} labels for {len(embedding)} images: one each '
            'is wanted'
        )
    if labels.is_floating_point():
        raise ValueError(f'labels must be whole numbers, got {labels.dtype}')
    # On a GPU this waits for the embedding. A failing kernel would not name the labels.
    outside = (labels < 0) | (labels >= num_classes)
    if bool(outside.any()):
        place = int(outside.nonzero()[0])
        path = getattr(data_samples[place], 'img_path', None)
        raise ValueError(
            f'{int(outside.sum())} of {len(labels)} labels are not from 0 to '
            f'{num_classes - 1} (num_classes={num_classes}), the first is '
            f'{int(labels[place])}{f" of {path}" if path else ""}: compare num_classes with '
            'the data set'
        )
    return labels.to(embedding.device, torch.int64)


def last_of(feats: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the features themselves, or the last of several."""
    return feats if isinstance(feats, Tensor) else feats[-1]


def gradient_type(feature: Tensor, embedding: Tensor) -> torch.dtype:
    """Return float16 if gradients pass through it, else the precision of the embedding."""
    kind = feature.device.type
    cast_to_half = (
        torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    )
    half = cast_to_half or feature.dtype == torch.float16
    return torch.float16 if half else embedding.dtype
