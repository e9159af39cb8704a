"""What `MarginHead` is built of, from configs: its margin, its neck and its auxiliary losses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard, get_args

from torch import nn

from mmdet_ext.face.losses import FeatureLoss
from mmdet_ext.face.margins.base import Margin
from mmdet_ext.functional.numerics.checks import check_one_of
from mmdet_ext.registry import MARGINS, MODELS

Neck = Literal['none', 'fc', 'fc-bn', 'bn-fc-bn', 'bn-dropout-fc-bn']
#: A name, or ``dict(type=..., ...)``.
MarginConfig = str | Mapping[str, Any]
#: Some losses, one, or none.
LossConfigs = Sequence[Mapping[str, Any]] | Mapping[str, Any] | None


def build_margin(cfg: MarginConfig, num_classes: int) -> Margin:
    """Build a margin of ``dict(type=..., ...)``, or of a name where its defaults will do.

    Args:
        cfg: the type may be a name, with or without ``mmdet_ext.``, or a class.
        num_classes: of the head.

    Raises:
        KeyError: for a name that there is not.
        TypeError: for a config without ``type``, or options that the margin has not.
    """
    options = {'type': cfg} if isinstance(cfg, str) else cfg
    if not isinstance(options, Mapping) or not isinstance(options.get('type'), (str, type)):
        raise TypeError(f"margin must be dict(type='ArcFace', ...) or 'ArcFace', got {cfg!r}")
    options = dict(options)
    built = _margin_class(options.pop('type'))(**options)
    built.bind(num_classes)
    return built


def _margin_class(name: str | type) -> type[Margin]:
    found: Any = name
    if isinstance(name, str):
        try:
            found = MARGINS.get(name)
        except KeyError:
            # Of ours it names the nearest; of another package's the nearest may be the same name.
            if name.rpartition('.')[0] in ('', 'mmdet_ext'):
                raise
        except RuntimeError:
            # MMEngine's, for a name with dots that it cannot import.
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
    """The layers from the features to the embedding; see `MarginHead`.

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
    """The auxiliary losses by short names: 'center' of CenterLoss; a second one is 'center_2'.

    Args:
        configs: one ``dict(type=..., ...)`` each; one alone needs no list.
        num_classes: of the head; what a loss that takes ``num_classes`` gets.
        channels: of the embedding; likewise ``in_channels``.

    Raises:
        KeyError: for a name that there is not.
        TypeError: for what is no such config, or another sort of loss.
        ValueError: for numbers of classes or channels other than the head's.
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
    known = name if not isinstance(name, str) or '.' in name else f'mmdet_ext.{name}'
    found = MODELS.get(known) if isinstance(known, str) else known
    if _is_loss(found):
        return found
    ours = [key for key, cls in MODELS.module_dict.items() if _is_loss(cls)]
    names = ', '.join(sorted(ours))
    wrong = KeyError if found is None else TypeError
    raise wrong(f'aux_losses take losses on features and labels, which are {names}; got {name!r}')


def _is_loss(found: Any) -> TypeGuard[type[FeatureLoss]]:
    return isinstance(found, type) and issubclass(found, FeatureLoss)
