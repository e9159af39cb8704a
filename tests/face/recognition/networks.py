"""ONNX networks in the form of InsightFace's recognisers, and of ours, made without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmdet_ext.deploy.metadata import KEY, InputInfo, ModelInfo

DIM = 6


def weights(seed: int = 0) -> np.ndarray:
    """Return the table (3 * 4 * 4, DIM) by which the network multiplies means of patches."""
    return np.random.default_rng(seed).standard_normal((48, DIM)).astype(np.float32)


def write_network(
    path: Path,
    batch: int | str = 'N',
    side: int | str = 112,
    inside: tuple[float, float] | None = None,
    seed: int = 0,
) -> Path:
    """Write a network (B, 3, H, W) to (B, DIM): means of 28 x 28 px by a table.

    Args:
        path: file.
        batch: number of images, or a name for any.
        side: height and width, or a name for any.
        inside: mean and divisor by which the network itself normalises, as those converted from
            MXNet do; None for none.
        seed: of the table.
    """
    nodes, values = [], {'table': weights(seed)}
    name = 'input.1'
    if inside is not None:
        nodes += [
            helper.make_node('Sub', [name, 'mean'], ['minus'], name='_minusscalar0'),
            helper.make_node('Mul', ['minus', 'factor'], ['scaled'], name='_mulscalar0'),
        ]
        values |= {'mean': np.float32(inside[0]), 'factor': np.float32(1 / inside[1])}
        name = 'scaled'
    nodes += [
        helper.make_node(
            'AveragePool', [name], ['cells'], name='pool', kernel_shape=[28, 28], strides=[28, 28]
        ),
        helper.make_node('Flatten', ['cells'], ['flat'], name='flatten'),
        helper.make_node('MatMul', ['flat', 'table'], ['683'], name='last'),
    ]
    graph = helper.make_graph(
        nodes,
        'arcface',
        [helper.make_tensor_value_info('input.1', TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info('683', TensorProto.FLOAT, [batch, DIM])],
        [numpy_helper.from_array(np.array(each), key) for key, each in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def write_detector(path: Path) -> Path:
    """Write a network with two outputs, as detectors of InsightFace have several."""
    graph = helper.make_graph(
        [
            helper.make_node('ReduceMean', ['x'], ['one'], name='one', keepdims=0),
            helper.make_node('Abs', ['one'], ['two'], name='two'),
        ],
        'scrfd',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 3, 'h', 'w'])],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, []) for each in ('one', 'two')],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    onnx.save(model, path)
    return path


def write_exported(path: Path) -> Path:
    """Write the network as a file of ``tools/deploy/export.py``."""
    model = onnx.load(write_network(path))
    for node in model.graph.node:
        node.input[:] = ['images' if name == 'input.1' else name for name in node.input]
        node.output[:] = ['embedding' if name == '683' else name for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = 'images', 'embedding'
    steps = InputInfo(
        scale=(112, 112),
        keep_ratio=False,
        size=(112, 112),
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        to_rgb=True,
    )
    info = ModelInfo(task='face', input=steps, outputs='embedding')
    model.metadata_props.add(key=KEY, value=info.to_json())
    path.write_bytes(model.SerializeToString())
    return path
