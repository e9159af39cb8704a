"""Networks in int8: which layers stay in float, and what a processor without VNNI needs.

Products of int8 are summed in 16 bits on processors without VNNI, where they saturate without a
sign of it. With 7 bits for the weights (NNCF's overflow fix, onnxruntime's ``reduce_range``) sums
fit, at a small cost of accuracy.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from mmdet_ext.deploy.metadata import ModelInfo
from mmdet_ext.export.onnx_file import ExportError, prediction_layers
from mmdet_ext.export.targets import installed, to_openvino

#: Names of inputs -> values, one per calibration image.
Feeds = dict[str, np.ndarray]
_MULTIPLIED = ('Conv', 'Gemm', 'MatMul')


@dataclasses.dataclass(frozen=True)
class Stage:
    """Choice of layers that stay in float.

    Args:
        name: as a tool prints it.
        layers: names of convolutions in the network of ONNX.
    """

    name: str
    layers: tuple[str, ...]


def stages(model: onnx.ModelProto) -> list[Stage]:
    """List choices of layers that stay in float, each with those of the one before.

    Decoding, and what follows it, stays in float in all of them.

    Args:
        model: network of ONNX.
    """
    last, _ = prediction_layers(model)
    weights = {each.name: each for each in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == 'Conv']
    depthwise = tuple(
        node.name
        for node in convolutions
        if any(each.name == 'group' and each.i > 1 for each in node.attribute)
        and node.input[1] in weights
        and weights[node.input[1]].dims[1] == 1
    )
    found = [Stage('decoding', ()), Stage('decoding and predictions', tuple(last))]
    first = tuple(node.name for node in convolutions[:1])
    found.append(Stage('decoding, predictions and the first layer', (*last, *first)))
    if depthwise:
        both = tuple(dict.fromkeys((*last, *first, *depthwise)))
        found.append(
            Stage('decoding, predictions, the first layer and depthwise convolutions', both)
        )
    return found


def quantise_onnx(
    model: onnx.ModelProto, feeds: Sequence[Feeds], keep: Sequence[str], saturation_safe: bool
) -> onnx.ModelProto:
    """Quantise the convolutions of a network by onnxruntime, weights per channel.

    Args:
        model: network of ONNX, float32.
        feeds: calibration inputs.
        keep: names of convolutions that stay in float.
        saturation_safe: whether sums must not saturate without VNNI (7 bits for weights).

    Raises:
        ExportError: if onnxruntime is absent or fails.
    """
    quantization = installed('onnxruntime.quantization', 'onnxruntime')
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder, 'before.onnx'), Path(folder, 'after.onnx')
        before.write_bytes(model.SerializeToString())
        try:
            quantization.quantize_static(
                str(before),
                str(after),
                _reader(quantization, feeds),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=['Conv'],
                nodes_to_exclude=list(keep),
                per_channel=True,
                reduce_range=saturation_safe,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:
            raise ExportError(f'onnxruntime cannot quantise the network: {error}') from error
        return onnx.load(after)


def _reader(quantization: Any, feeds: Sequence[Feeds]) -> Any:
    """Return onnxruntime's reader of calibration inputs, which its own class must be base of."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows: Iterator[Feeds] = iter(feeds)

        def get_next(self) -> Feeds | None:
            return next(self.rows, None)

    return Reader()


def quantise_openvino(
    model: onnx.ModelProto, feeds: Sequence[Feeds], keep: Sequence[str], saturation_safe: bool
) -> Any:
    """Quantise a network by NNCF, for OpenVINO.

    Args:
        model: network of ONNX, float32.
        feeds: calibration inputs.
        keep: names of convolutions that stay in float.
        saturation_safe: whether sums must not saturate without VNNI (NNCF's overflow fix).

    Returns:
        Model: of OpenVINO.

    Raises:
        ExportError: if NNCF or OpenVINO is absent or fails.
    """
    nncf = installed('nncf', 'NNCF')
    advanced = installed('nncf.quantization.advanced_parameters', 'NNCF')
    network = to_openvino(model)
    fix = advanced.OverflowFix.ENABLE if saturation_safe else advanced.OverflowFix.DISABLE
    names = [*_matching(network, keep), *_behind(network)]
    with _quiet():
        try:
            return nncf.quantize(
                network,
                nncf.Dataset(list(feeds)),
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(feeds),
                ignored_scope=nncf.IgnoredScope(names=names, validate=False),
                advanced_parameters=advanced.AdvancedQuantizationParameters(overflow_fix=fix),
            )
        except Exception as error:
            raise ExportError(f'NNCF cannot quantise the network: {error}') from error


def float_layers(model: onnx.ModelProto, keep: Sequence[str]) -> list[str]:
    """List the layers with weights that stay in float, by their names in the network of ONNX."""
    _, behind = prediction_layers(model)
    constants = {each.name for each in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in _MULTIPLIED
        and (node.name in keep or node.name in behind)
        and any(name in constants for name in node.input)
    ]


def described(info: ModelInfo, saturation_safe: bool) -> ModelInfo:
    """Return the description of the int8 network of a float one."""
    return dataclasses.replace(info, precision='int8', saturation_safe=saturation_safe)


def _matching(network: Any, names: Sequence[str]) -> list[str]:
    """Return the names in OpenVINO's network of convolutions of ONNX."""
    found = []
    for op in network.get_ordered_ops():
        own = op.get_friendly_name()
        if 'Convolution' in op.get_type_name() and own.split('/WithoutBiases')[0] in names:
            found.append(own)
    if len(found) < len(names):
        raise ExportError(
            f"of {len(names)} layers to keep in float, OpenVINO's network names {len(found)}"
        )
    return found


def _behind(network: Any) -> list[str]:
    """Return the names of the operations behind the last convolutions."""
    reaches: dict[str, bool] = {}
    names = []
    for op in reversed(network.get_ordered_ops()):
        after = [
            target.get_node() for output in op.outputs() for target in output.get_target_inputs()
        ]
        own, kind = op.get_friendly_name(), op.get_type_name()
        reaches[own] = any(
            'Convolution' in each.get_type_name() or reaches[each.get_friendly_name()]
            for each in after
        )
        plain = kind not in ('Constant', 'Parameter', 'Result')
        if not reaches[own] and plain and 'Convolution' not in kind and not _is_bias(op):
            names.append(own)
    return names


def _is_bias(op: Any) -> bool:
    """Return whether an operation adds the bias of a convolution."""
    return op.get_type_name() == 'Add' and any(
        'Convolution' in each.get_source_output().get_node().get_type_name() for each in op.inputs()
    )


class _quiet:
    """Context in which NNCF's and onnxruntime's progress is not logged."""

    def __enter__(self) -> None:
        self.level = logging.getLogger('nncf').level
        logging.getLogger('nncf').setLevel(logging.ERROR)
        self.disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(self.disabled)
        logging.getLogger('nncf').setLevel(self.level)
