"""One ONNX file of a network: weights inside, described, checked before it is written."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from mmdet_ext.deploy.metadata import KEY, ModelInfo
from mmdet_ext.utils.files import whole_file

#: Versions of ONNX's operators that torch's exporter writes; it stays at the least for older ones.
LEAST_OPSET, MOST_OPSET = 18, 23

#: Weights from which on a file cannot hold them, as protobuf counts bytes in 31 bits.
MOST_BYTES = (1 << 31) - 1


class ExportError(ValueError):
    """Error for a network or an option that cannot be exported."""


def to_onnx(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, Any]] | None = None,
    opset: int = LEAST_OPSET,
) -> onnx.ModelProto:
    """Trace a network to ONNX.

    Args:
        network: in evaluation mode; its forward pass takes the inputs by name, in their order.
        inputs: name -> example.
        outputs: names of the results, in their order.
        dynamic: name of an input -> its axes that may change, as `torch.export.Dim`.
        opset: version of ONNX's operators.

    Raises:
        ExportError: if ``opset`` is out of its range, the network is too large for one file, or
            torch's exporter cannot trace it.
    """
    if not LEAST_OPSET <= opset <= MOST_OPSET:
        raise ExportError(
            f'opset must be in {LEAST_OPSET} .. {MOST_OPSET}, got {opset}: the exporter of torch '
            f'{torch.__version__} stays at {LEAST_OPSET} for an older one without a word'
        )
    if 'external_data' not in inspect.signature(torch.onnx.export).parameters:
        raise ExportError(
            f'torch {torch.__version__} exports no network in one file: install torch 2.7 or newer'
        )
    size = sum(each.numel() * each.element_size() for each in network.state_dict().values())
    if size >= MOST_BYTES:
        raise ExportError(
            f'the weights take {size / 1e9:.1f} GB, and one ONNX file holds below 2.1 GB'
        )
    shapes = {name: dict((dynamic or {}).get(name, {})) for name in inputs}
    with _quiet():
        try:
            # Traced here, as the exporter itself tries other ways where this one fails, and they
            # may fix an axis that was to change.
            traced = torch.export.export(
                network,
                tuple(inputs.values()),
                dynamic_shapes=tuple(shapes.values()) if any(shapes.values()) else None,
                strict=False,
            )
            program = torch.onnx.export(
                traced,
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
        except Exception as error:
            cause = str(error.__cause__ or error).strip().splitlines()
            raise ExportError(
                f"torch {torch.__version__}'s exporter cannot trace {type(network).__name__}: "
                f'{cause[0] if cause else type(error).__name__}'
            ) from error
    model: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]
    _strip(model)
    found = max(each.version for each in model.opset_import if each.domain in ('', 'ai.onnx'))
    if found != opset:
        raise ExportError(f'opset={opset} was asked for, and the exporter wrote {found}')
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: for each node the lines and paths of the code it comes from."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField('metadata_props')
        part.ClearField('doc_string')
    for constant in graph.initializer:
        constant.ClearField('metadata_props')


def write_onnx(model: onnx.ModelProto, path: Path, info: ModelInfo) -> None:
    """Write a network and its description to one file, whole or not at all.

    Raises:
        ExportError: if ONNX's own checker refuses the network.
    """
    described = onnx.ModelProto()
    described.CopyFrom(model)
    keep = [each for each in described.metadata_props if each.key != KEY]
    del described.metadata_props[:]
    described.metadata_props.extend(keep)
    described.metadata_props.add(key=KEY, value=info.to_json())
    described.producer_name = 'mmdet_ext'
    try:
        onnx.checker.check_model(described)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"ONNX's checker refuses the network: {error}") from error
    with whole_file(path) as part:
        part.write_bytes(described.SerializeToString())


def prediction_layers(model: onnx.ModelProto) -> tuple[list[str], set[str]]:
    """Find the last convolutions of a network, and what follows them.

    Returns:
        tuple: names of the convolutions from which none other is reached, and names of all nodes
        behind the convolutions, which decode.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    reaches: dict[str, bool] = {}
    for node in reversed(model.graph.node):  # in topological order
        after = [each for name in node.output for each in readers.get(name, [])]
        reaches[node.name] = any(
            each.op_type in ('Conv', 'Gemm') or reaches[each.name] for each in after
        )
    last = [
        node.name
        for node in model.graph.node
        if node.op_type in ('Conv', 'Gemm') and not reaches[node.name]
    ]
    behind = {
        node.name
        for node in model.graph.node
        if not reaches[node.name] and node.op_type not in ('Conv', 'Gemm')
    }
    return last, behind


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress and its warnings, none of which a user can act on."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
