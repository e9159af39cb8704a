"""Detector of a config and a checkpoint, written for a runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.deploy.images import padded_size
from mmdet_ext.deploy.metadata import InputInfo, ModelInfo
from mmdet_ext.detection.export.network import DetectorNetwork
from mmdet_ext.detection.export.options import ExportOptions
from mmdet_ext.detection.export.pipeline import read_input, read_selection
from mmdet_ext.export.folding import fold_network, noise_like
from mmdet_ext.export.made_of import made_of
from mmdet_ext.export.onnx_file import ExportError, to_onnx
from mmdet_ext.export.onnx_suppression import append_suppression, check_inside
from mmdet_ext.export.sources import load_all
from mmdet_ext.export.targets import write_ncnn, write_network

#: Batch with which a network of any batch is traced: a 1 would be taken for a constant.
TRACED_BATCH = 2


def load_detector(config: Config, checkpoint: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the detector of a config with the weights of a checkpoint.

    Averaged weights are taken where the config's test does so (``EMAHook`` swaps them at saving).

    Args:
        config: of mmdet.
        checkpoint: file of MMEngine.

    Returns:
        tuple: the detector in evaluation mode, and the names of its classes.

    Raises:
        ExportError: if weights of the model are missing, or of another shape.
        OSError: if the file cannot be read.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    content = load_from_local(str(checkpoint), 'cpu')
    weights = content.get('state_dict', content)
    settings = {**config.model, 'init_cfg': None}
    if isinstance(settings.get('backbone'), Mapping):  # pretrained weights are not fetched
        settings['backbone'] = {**settings['backbone'], 'init_cfg': None}
    model = MODELS.build(settings)
    if hasattr(model, 'drop_guidance'):  # a checkpoint may hold the part for training or not
        model.drop_guidance()
        weights = {key: weights[key] for key in weights if not key.startswith('aux_')}
    return load_all(model, weights, checkpoint), _classes(config, content, model)


def export_detector(
    model: nn.Module,
    config: Config,
    classes: tuple[str, ...],
    path: Path,
    options: ExportOptions | None = None,
    sources: Mapping[str, str] | None = None,
) -> ModelInfo:
    """Write a detector for a runtime: the file, and for OpenVINO and ncnn its ``.bin``.

    Args:
        model: single-stage detector.
        config: its config.
        classes: names of its classes.
        path: file to write, ``.onnx``, ``.xml`` or ``.param``.
        options: of the export.
        sources: names and files that it is made of.

    Returns:
        ModelInfo: description that the file carries. With ``options.fold`` its ``made_of`` has
        'folded', the line of `mmdet_ext.export.folding.Folding.text`.

    Raises:
        ExportError: if the detector, the config or the options cannot be exported. Nothing is
            written.
    """
    options = options or ExportOptions()
    network, info = _network(model, config, classes, options, sources)
    if options.target == 'ncnn':
        return write_ncnn(network, _example(info.input), info, path)
    return write_network(_traced(network, info, options), info, path, options.target)


def trace_detector(
    model: nn.Module,
    config: Config,
    classes: tuple[str, ...],
    options: ExportOptions,
    sources: Mapping[str, str] | None = None,
) -> tuple[onnx.ModelProto, ModelInfo]:
    """Return a detector as a network of ONNX, and its description; see `export_detector`."""
    network, info = _network(model, config, classes, options, sources)
    return _traced(network, info, options), info


def _network(
    model: nn.Module,
    config: Config,
    classes: tuple[str, ...],
    options: ExportOptions,
    sources: Mapping[str, str] | None,
) -> tuple[DetectorNetwork, ModelInfo]:
    """Return the network that is traced, and its description, once all options are checked."""
    batch = None if options.batch == 'dynamic' else options.batch
    inputs = read_input(config, options.size, batch)
    if options.target == 'ncnn' and inputs.size is None:
        raise ExportError(
            'the config keeps the ratio of images, so that their sizes differ, and ncnn needs one: '
            'give --size HEIGHT WIDTH'
        )
    network = DetectorNetwork(model)
    sources = dict(sources or {})
    if options.fold:
        sources['folded'] = fold_network(network.eval(), noise_like(_example(inputs))).text()
    info = _describe(network, config, classes, inputs, options, sources)
    network.with_levels = info.level_sizes is None
    if options.suppression == 'inside':
        check_inside(info)
    return network, info


def _traced(network: DetectorNetwork, info: ModelInfo, options: ExportOptions) -> onnx.ModelProto:
    example = _example(info.input)
    names = dataclasses.replace(info, outputs='priors').output_names()
    axes = {'images': _dynamic(info.input)}
    proto = to_onnx(network, {'images': example}, names, axes, options.opset)
    if options.suppression == 'inside':
        append_suppression(proto, info, info.level_sizes or (0,) * _levels(network, example))
    return proto


def _describe(
    network: DetectorNetwork,
    config: Config,
    classes: tuple[str, ...],
    inputs: InputInfo,
    options: ExportOptions,
    sources: dict[str, str],
) -> ModelInfo:
    example = tuple(_example(inputs).shape[-2:])
    sizes, has_factors, count = network.describe((example[0], example[1]))
    if count != len(classes):
        raise ExportError(
            f'the head predicts {count} classes, but there are {len(classes)} names '
            f'({", ".join(classes[:8])}{", ..." if len(classes) > 8 else ""}): set num_classes and '
            'metainfo.classes of the config alike'
        )
    one_level = network.rule.one_level or len(sizes) == 1
    known = inputs.size is not None
    return ModelInfo(
        task='detection',
        input=inputs,
        outputs='detections' if options.suppression == 'inside' else 'priors',
        classes=classes,
        selection=read_selection(config.model.get('test_cfg'), network.rule),
        has_factors=has_factors,
        level_sizes=sizes if known else (0,) if one_level else None,
        made_of=made_of(sources),
    )


def _levels(network: DetectorNetwork, example: torch.Tensor) -> int:
    sizes, _, _ = network.describe(tuple(example.shape[-2:]))  # type: ignore[arg-type]
    return len(sizes)


def _example(inputs: InputInfo) -> torch.Tensor:
    """Return an input to trace with: sides that differ, and no side of 1 cell on a level."""
    batch = inputs.batch or TRACED_BATCH
    if inputs.size is not None:
        return torch.zeros(batch, 3, *inputs.size)
    least = max(inputs.divisor, 32)
    height, width = padded_size((inputs.scale[1], inputs.scale[0]), least)
    if height == width:
        width += least
    return torch.zeros(batch, 3, max(height, 8 * 32), max(width, 10 * 32))


def _dynamic(inputs: InputInfo) -> dict[int, Any]:
    """Return the axes of the input that may change."""
    axes: dict[int, Any] = {}
    if inputs.batch is None:
        axes[0] = torch.export.Dim('batch')
    if inputs.size is None:
        for axis, name in ((2, 'height'), (3, 'width')):
            cells = torch.export.Dim(f'{name}_cells')
            axes[axis] = inputs.divisor * cells if inputs.divisor > 1 else cells
    return axes


def _classes(config: Config, content: Mapping[str, Any], model: nn.Module) -> tuple[str, ...]:
    """Return the names of the classes: of the checkpoint, the config, or its type of data set.

    Those of a type, as COCO's 80, count if the model has as many classes.
    """
    meta = content.get('meta') or {}
    found = (meta.get('dataset_meta') or {}).get('classes')
    count = getattr(getattr(model, 'bbox_head', None), 'num_classes', 0)
    if not found:
        data = (config.get('test_dataloader') or {}).get('dataset') or {}
        found = (data.get('metainfo') or config.get('metainfo') or {}).get('classes')
        if not found and data.get('type'):
            kind = data['type'] if isinstance(data['type'], type) else DATASETS.get(data['type'])
            usual = (getattr(kind, 'METAINFO', None) or {}).get('classes') or ()
            found = usual if len(usual) == count else None
    if isinstance(found, str):
        found = (found,)
    if not found:
        raise ExportError(
            f'neither the checkpoint nor the config names the {count} classes: give '
            "--cfg-options test_dataloader.dataset.metainfo.classes=\"('cat','dog')\""
        )
    return tuple(map(str, found))
