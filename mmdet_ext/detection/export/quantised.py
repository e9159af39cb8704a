"""Detector in int8, offered only once its cost in mAP has been measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from mmengine.config import Config

from mmdet_ext.deploy.detector import Detector
from mmdet_ext.deploy.errors import ImageError
from mmdet_ext.deploy.images import prepare, read_image, stack
from mmdet_ext.deploy.metadata import SUFFIXES, ModelInfo
from mmdet_ext.deploy.processor import int8_instructions
from mmdet_ext.detection.export.accuracy import Accuracy
from mmdet_ext.export.int8 import (
    Feeds,
    described,
    float_layers,
    quantise_onnx,
    quantise_openvino,
    stages,
)
from mmdet_ext.export.onnx_file import ExportError, write_onnx
from mmdet_ext.export.targets import write_openvino

#: Calibration images that are used; more change little.
MOST_IMAGES = 300


@dataclass(frozen=True)
class Int8Options:
    """Options of int8.

    Args:
        images: calibration images, of the kind that the detector will see.
        most_drop: largest loss of mAP that is accepted, points (0 .. 100).
        vnni: whether the device has instructions that sum int8 without saturation; ``auto`` asks
            this processor.
    """

    images: Sequence[Path]
    most_drop: float = 1.0
    vnni: Literal['auto', 'yes', 'no'] = 'auto'

    def saturation_safe(self) -> bool:
        """Return whether sums must not saturate without VNNI."""
        return self.vnni == 'no' or (self.vnni == 'auto' and not int8_instructions())


def export_int8(
    traced: tuple[onnx.ModelProto, ModelInfo],
    float_file: Path,
    path: Path,
    config: Config,
    options: Int8Options,
    report: Callable[[str], None] = print,
) -> ModelInfo:
    """Quantise a detector, measure what it costs, and write it if that is little enough.

    More layers stay in float, stage by stage, until the cost is accepted.

    Args:
        traced: float32 network of ONNX, and its description.
        float_file: the exported float32 file, ``.onnx`` or ``.xml``.
        path: file to write, with the same ending.
        config: whose test set and metric measure.
        options: of int8.
        report: called with each line that a tool prints.

    Raises:
        ExportError: if no stage is accepted. Nothing is written then.
    """
    model, info = traced
    safe = options.saturation_safe()
    have = int8_instructions()
    report(f'this processor has {", ".join(have) if have else "no VNNI"} for int8')
    report(
        'weights take 7 bits, so that sums fit without VNNI'
        if safe
        else 'weights take 8 bits: the file is refused where VNNI is absent'
    )
    accuracy = Accuracy(config)
    before = accuracy.measure(Detector(float_file), 'float32') * 100
    report(f'float32: mAP {before:.2f}')
    feeds = calibration(options.images, info)
    lines = []
    for stage in stages(model):
        with tempfile.TemporaryDirectory(dir=path.parent, prefix='.int8') as folder:
            part = Path(folder, path.name)
            written = _write(model, info, feeds, stage.layers, safe, part)
            after = accuracy.measure(Detector(part), 'int8') * 100
            kept = float_layers(model, stage.layers)
            lines.append(
                f'int8, {stage.name} in float: mAP {after:.2f}, {before - after:+.2f} lost'
            )
            report(lines[-1])
            if before - after <= options.most_drop:
                report(f'layers kept in float: {", ".join(kept) if kept else "none with weights"}')
                for each in sorted(Path(folder).iterdir()):
                    os.replace(each, path.with_suffix(each.suffix))
                return written
    raise ExportError(
        f'int8 costs more than {options.most_drop} points of mAP with every choice of layers, and '
        f'is not written: {"; ".join(lines)}. Give more images of the kind that will be seen, or '
        'take the float32 file'
    )


def calibration(images: Sequence[Path], info: ModelInfo) -> list[Feeds]:
    """Prepare calibration images as inputs of the network, at most `MOST_IMAGES` of them.

    Raises:
        ExportError: if none can be read.
    """
    step = max(1, len(images) // MOST_IMAGES)
    feeds: list[Feeds] = []
    problems = []
    for file in list(images)[::step][:MOST_IMAGES]:
        try:
            prepared = prepare(read_image(file), info.input, str(file))
        except ImageError as error:
            problems.append(str(error))
            continue
        rows = [prepared] * (info.input.batch or 1)
        feed: Feeds = {'images': stack(rows, info.input)}
        if info.outputs == 'detections' and info.selection.clip != 'never':
            feed['sizes'] = np.array([each.size for each in rows], np.float32)
        feeds.append(feed)
    if not feeds:
        raise ExportError(f'no image to calibrate with: {"; ".join(problems) or "none given"}')
    return feeds


def _write(
    model: onnx.ModelProto,
    info: ModelInfo,
    feeds: list[Feeds],
    keep: Sequence[str],
    safe: bool,
    path: Path,
) -> ModelInfo:
    new = described(info, safe)
    if path.suffix == SUFFIXES['openvino']:
        network: Any = quantise_openvino(model, feeds, keep, safe)
        return write_openvino(network, new, path)
    write_onnx(quantise_onnx(model, feeds, keep, safe), path, new)
    return new
