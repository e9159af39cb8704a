"""Facts that a model file carries beside the network, as one JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

from mmdet_ext.deploy.errors import ModelFileError

#: Name under which a file has the text.
KEY = 'mmdet_ext'
#: Rises when a reader of an older text would read a newer one wrongly.
FORMAT = 1
#: Target of an export -> ending of its file. ncnn's keeps its weights apart from OpenVINO's.
SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'ncnn': '.ncnn.param'}

T = TypeVar('T')


@dataclass(frozen=True)
class InputInfo:
    """Preparation of an image: resize, pad, normalise, in this order.

    Args:
        scale: width and height, px, of the resize; with ``keep_ratio`` the long and the short side
            that the image may have.
        keep_ratio: whether the resize keeps the ratio of the sides.
        interpolation: of the resize, OpenCV's name in small letters.
        warp: whether pixel (0, 0) stays at (0, 0), as in ``mmdet_ext.WarpResize``, where a resize
            aligns the outer borders of the pixels.
        size: height and width of the network's input, px; None where it follows from the image.
        divisor: of height and width of the input, where ``size`` is None.
        batch: number of images of a call; None for any.
        pad_first: values, BGR, by which the image is padded before it is normalised, as a
            transform of the pipeline pads; None for padding afterwards.
        pad_value: value of padding after the normalisation.
        mean: subtracted, per channel, in the order of the network.
        std: divisor, per channel.
        to_rgb: whether blue and red are swapped.
    """

    scale: tuple[int, int]
    keep_ratio: bool
    interpolation: str = 'linear'
    warp: bool = False
    size: tuple[int, int] | None = None
    divisor: int = 1
    batch: int | None = None
    pad_first: tuple[float, ...] | None = None
    pad_value: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    to_rgb: bool = False


@dataclass(frozen=True)
class SelectionInfo:
    """Choice of detections among decoded priors: the options of mmdet's ``test_cfg``.

    Args:
        rule: ``pairs``, ``one_class`` or ``best_class``, as in `mmdet_ext.deploy.selection`.
        score_thr: least score; a candidate of ``best_class`` is not below it, others are above.
        nms_pre: candidates per level; 0 for all.
        factor_thr: least factor of a prior; 0 for any.
        min_box_size: sides of a box must be above it, px of the image; -1 for any.
        max_per_image: detections of an image; 0 for any number.
        clip: whether boxes are clipped to the image ``first``, before the suppression, ``last``,
            or ``never``.
        nms: options of the suppression, as mmdet's ``nms``; None for none.
    """

    rule: Literal['pairs', 'one_class', 'best_class'] = 'pairs'
    score_thr: float = 0.0
    nms_pre: int = 0
    factor_thr: float = 0.0
    min_box_size: float = -1.0
    max_per_image: int = 0
    clip: Literal['first', 'last', 'never'] = 'first'
    nms: dict[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class ModelInfo:
    """Contents of the JSON text of a model file.

    Args:
        task: ``detection`` or ``face``.
        input: preparation of the images.
        outputs: what the network returns: ``priors`` (boxes, scores, and factors where
            ``has_factors``), ``detections`` (suppressed in the network) or ``embedding``.
        classes: names of the classes, in the order of the labels.
        selection: choice of detections.
        has_factors: whether there are factors beside the scores.
        level_sizes: priors per level; None where a further output ``levels`` has the level of each.
        mirror: how embeddings of an image and its mirror image are fused: ``none``, ``sum``
            or ``concat``.
        precision: ``float32`` or ``int8``.
        saturation_safe: whether an int8 network is right on a processor without VNNI.
        made_of: config, checkpoint and versions.
        weights_sha256: of the file of weights beside this one; None where there is none.
    """

    task: Literal['detection', 'face']
    input: InputInfo
    outputs: Literal['priors', 'detections', 'embedding']
    classes: tuple[str, ...] = ()
    selection: SelectionInfo = field(default_factory=SelectionInfo)
    has_factors: bool = False
    level_sizes: tuple[int, ...] | None = None
    mirror: str = 'none'
    precision: Literal['float32', 'int8'] = 'float32'
    saturation_safe: bool = True
    made_of: dict[str, str] = field(default_factory=dict)
    weights_sha256: str | None = None

    def output_names(self) -> tuple[str, ...]:
        """Return the names of the network's outputs, in their order."""
        if self.outputs == 'embedding':
            return ('embedding',)
        if self.outputs == 'detections':
            return 'boxes', 'scores', 'labels'
        factors = ('factors',) if self.has_factors else ()
        levels = ('levels',) if self.level_sizes is None else ()
        return 'boxes', 'scores', *factors, *levels

    def to_json(self) -> str:
        """Return the text that a file carries."""
        return json.dumps({'format': FORMAT, **asdict(self)}, sort_keys=True)


def from_json(text: str | None, file: Any) -> ModelInfo:
    """Read the text of a model file.

    Args:
        text: as `ModelInfo.to_json` wrote it; None where the file has none.
        file: name of the file, for errors.

    Raises:
        ModelFileError: if there is no text, or it is of a newer format or of another form.
    """
    if not text:
        raise ModelFileError(
            f'{file} carries no description of classes and sizes. It was not written by '
            'tools/deploy/export.py, or another program has written it again: export it anew'
        )
    try:
        content = json.loads(text)
        found = content.pop('format')
        if found != FORMAT:
            raise ModelFileError(
                f'{file} has a description of format {found}, and this package reads format '
                f'{FORMAT}: export it anew, or install the release of mmdet_ext that wrote it'
            )
        content['input'] = _build(InputInfo, content['input'])
        content['selection'] = _build(SelectionInfo, content['selection'])
        return _build(ModelInfo, content)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ModelFileError(
            f'the description in {file} cannot be read ({error!r}): export it anew'
        ) from error


def _build(kind: type[T], content: Mapping[str, Any]) -> T:
    """Build a dataclass of json's values, with tuples for lists."""
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(content) - names)
    if unknown:
        raise TypeError(f'unknown fields {", ".join(unknown)}')
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in content.items()})
