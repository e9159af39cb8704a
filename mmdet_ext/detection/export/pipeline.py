"""Preparation and selection that a config states, as a model file carries them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmdet_ext.deploy.images import padded_size
from mmdet_ext.deploy.metadata import InputInfo, SelectionInfo
from mmdet_ext.deploy.suppression import checked_options
from mmdet_ext.detection.export.decoding import Rule
from mmdet_ext.engine.configs import test_pipeline
from mmdet_ext.export.onnx_file import ExportError
from mmdet_ext.export.sources import interpolation_of

#: Transforms without an effect on the pixels of a test image.
WITHOUT_EFFECT = ('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs', 'LoadImageFromNDArray')
LOADER_DEFAULTS = dict(to_float32=False, color_type='color', imdecode_backend='cv2')


def read_input(config: Config, size: tuple[int, int] | str | None, batch: int | None) -> InputInfo:
    """Read how a config prepares test images.

    Args:
        config: with ``test_dataloader``, or ``test_pipeline``, and ``model.data_preprocessor``.
        size: height and width of the input, px; ``dynamic`` for any; None for the config's, where
            all its images get one size, and for any otherwise.
        batch: images per call; None for any number.

    Raises:
        ExportError: if the config has a transform or an option that the program in
            ``mmdet_ext.deploy`` does not have, or images would not fit the size.
    """
    found: dict[str, Any] = {}
    padded: Any = None
    for transform in pipeline_of(config):
        kind = str(transform['type']).rpartition('.')[2]
        if kind == 'LoadImageFromFile':
            _check_options(transform, LOADER_DEFAULTS)
        elif kind in ('Resize', 'FixScaleResize'):
            found.update(_resize(transform))
        elif kind == 'WarpResize':
            _check_options(transform, dict(zoom=(1.0, 1.0), stretch=(1.0, 1.0), translate=0.0))
            found.update(_resize(transform), warp=True)
        elif kind == 'Pad' and found:
            padded = transform
            found['pad_first'] = _pad_value(transform)
        elif kind not in WITHOUT_EFFECT:
            raise ExportError(
                f'the test pipeline has {kind}, which mmdet_ext.deploy does not have: it resizes '
                '(Resize), pads (Pad) and normalises'
            )
    if not found:
        raise ExportError('the test pipeline has no Resize, so that no size of input is known')
    found.update(_normalisation(config.model.get('data_preprocessor') or {}))
    divisor = found.pop('divisor')
    return InputInfo(**found, **_size(found, padded, divisor, size), batch=batch)


def read_selection(test_cfg: Mapping[str, Any] | None, rule: Rule) -> SelectionInfo:
    """Read how a config chooses among decoded priors.

    Args:
        test_cfg: of the model.
        rule: of the head.

    Raises:
        ExportError: if ``test_cfg`` is absent, or its suppression is unknown.
    """
    if test_cfg is None:
        raise ExportError('the config has no model.test_cfg, which says what is a detection')
    nms = test_cfg.get('nms')
    options = None if nms is None else {key: nms[key] for key in nms}
    try:
        checked_options(options)
    except ValueError as error:
        raise ExportError(str(error)) from error
    one_class = rule.selection == 'pairs' and not test_cfg.get('multi_label', True)
    return SelectionInfo(
        rule='one_class' if one_class else rule.selection,
        score_thr=float(test_cfg.get('score_thr', 0)),
        nms_pre=0 if rule.selection == 'best_class' else max(0, test_cfg.get('nms_pre', -1)),
        factor_thr=max(0.0, float(test_cfg.get('conf_thr', 0) or 0)),
        min_box_size=float(test_cfg.get('min_bbox_size', -1)) if rule.min_size else -1.0,
        max_per_image=max(0, test_cfg.get('max_per_img', -1)) if rule.limit else 0,
        clip=rule.clip,
        nms=options,
    )


def pipeline_of(config: Config) -> list[Any]:
    """Return the transforms of the test data set.

    Raises:
        ExportError: if there are none.
    """
    found = test_pipeline(config)
    if not found:
        raise ExportError('the config has no test_dataloader with a pipeline, nor a test_pipeline')
    return found


def _check_options(transform: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    for name, value in usual.items():
        if transform.get(name, value) != value:
            raise ExportError(
                f'{transform["type"]} of the test pipeline has {name}={transform[name]!r}, and '
                f'mmdet_ext.deploy has {value!r} alone'
            )


def _resize(transform: Mapping[str, Any]) -> dict[str, Any]:
    _check_options(transform, dict(backend='cv2', scale_factor=None))
    scale = transform.get('scale')
    if isinstance(scale, int):
        scale = (scale, scale)
    if not isinstance(scale, (tuple, list)) or len(scale) != 2 or min(scale) < 1:
        raise ExportError(f'Resize of the test pipeline has scale={scale!r}: two numbers, px')
    return dict(
        scale=(int(scale[0]), int(scale[1])),
        keep_ratio=bool(transform.get('keep_ratio', False)),
        interpolation=interpolation_of(transform),
    )


def _pad_value(transform: Mapping[str, Any]) -> tuple[float, ...]:
    _check_options(transform, dict(padding_mode='constant'))
    value: Any = transform.get('pad_val', 0)
    if isinstance(value, Mapping):
        value = value.get('img', 0)
    values = [value] * 3 if isinstance(value, (int, float)) else list(value)
    return tuple(float(each) for each in values)


def _normalisation(preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """Read mean, deviation and padding of the data preprocessor."""
    kind = str(preprocessor.get('type', 'DetDataPreprocessor')).rpartition('.')[2]
    if kind != 'DetDataPreprocessor':
        raise ExportError(f'data_preprocessor is {kind}: DetDataPreprocessor is exported alone')
    mean, std = preprocessor.get('mean'), preprocessor.get('std')
    value = preprocessor.get('pad_value', 0)
    swapped = preprocessor.get('bgr_to_rgb', False) or preprocessor.get('rgb_to_bgr', False)
    return dict(
        mean=tuple(map(float, mean)) if mean is not None else (0.0,) * 3,
        std=tuple(map(float, std)) if std is not None else (1.0,) * 3,
        to_rgb=bool(swapped),
        pad_value=float(value),
        divisor=int(preprocessor.get('pad_size_divisor', 1)),
    )


def _size(
    found: Mapping[str, Any],
    pad: Mapping[str, Any] | None,
    divisor: int,
    wanted: tuple[int, int] | str | None,
) -> dict[str, Any]:
    """Return the input's size, where it is fixed, and the divisor of it, where it is not."""
    own = _own_size(found, pad, divisor)
    if pad is not None and own is None:
        divisor = max(divisor, int(pad.get('size_divisor') or 1))
    if wanted == 'dynamic' or (wanted is None and own is None):
        if own is not None and not found['keep_ratio']:
            raise ExportError(
                f'size is dynamic, but the test pipeline makes every image {own[0]} x {own[1]}: '
                'leave --size out, or set keep_ratio=True in the config'
            )
        return dict(size=None, divisor=divisor)
    size: Any = own if wanted is None else wanted
    if wanted is not None:
        _check_size(found, own, wanted, divisor)
    return dict(size=tuple(size), divisor=divisor)


def _own_size(
    found: Mapping[str, Any], pad: Mapping[str, Any] | None, divisor: int
) -> tuple[int, int] | None:
    """Return the one size of a config's inputs (height, width); None where images differ."""
    width, height = found['scale']
    if pad is not None and pad.get('size') is not None:
        size = pad['size']
        width, height = (size, size) if isinstance(size, int) else size
        return padded_size((height, width), divisor)
    if pad is not None and pad.get('pad_to_square', False):
        longest = max(width, height)
        return padded_size((longest, longest), divisor)
    return None if found['keep_ratio'] else padded_size((height, width), divisor)


def _check_size(
    found: Mapping[str, Any], own: tuple[int, int] | None, wanted: Any, divisor: int
) -> None:
    """Raise unless the images of the config can have a size."""
    height, width = wanted
    if height % divisor or width % divisor:
        raise ExportError(
            f'size {height} x {width} is no multiple of pad_size_divisor={divisor} of the config'
        )
    if not found['keep_ratio'] and own != (height, width):
        raise ExportError(
            f'size is {height} x {width}, but the test pipeline makes every image {own}: '
            'change scale of Resize in the config, with which it was trained'
        )
