"""Model files of a network that finds the same boxes in every image, made without torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmdet_ext.deploy.metadata import KEY, InputInfo, ModelInfo, SelectionInfo

SIDE = 32
#: Two boxes of an object, px of the input, and one of another.
BOXES = np.array([[4, 4, 12, 12], [4, 4, 12, 13], [16, 8, 28, 30]], np.float32)
SCORES = np.array([[0.9, 0.1], [0.8, 0.05], [0.1, 0.7]], np.float32)

INFO = ModelInfo(
    task='detection',
    input=InputInfo(scale=(SIDE, SIDE), keep_ratio=False, size=(SIDE, SIDE), batch=1),
    outputs='priors',
    classes=('cat', 'dog'),
    selection=SelectionInfo(
        score_thr=0.2, max_per_image=10, nms=dict(type='nms', iou_threshold=0.5)
    ),
    level_sizes=(3,),
)


def fixed_network(boxes: np.ndarray = BOXES, scores: np.ndarray = SCORES) -> onnx.ModelProto:
    """Return a network that adds 0 times its input to boxes (P, 4) and scores (P, C)."""
    nodes = [
        helper.make_node('ReduceMean', ['images'], ['mean'], keepdims=0, noop_with_empty_axes=0),
        helper.make_node('Mul', ['mean', 'zero'], ['nothing']),
        helper.make_node('Add', ['table_boxes', 'nothing'], ['boxes']),
        helper.make_node('Add', ['table_scores', 'nothing'], ['scores']),
    ]
    constants = {
        'zero': np.float32(0),
        'table_boxes': boxes[None],
        'table_scores': scores[None],
    }
    graph = helper.make_graph(
        nodes,
        'fixed',
        [helper.make_tensor_value_info('images', TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info('boxes', TensorProto.FLOAT, [1, *boxes.shape]),
            helper.make_tensor_value_info('scores', TensorProto.FLOAT, [1, *scores.shape]),
        ],
        [numpy_helper.from_array(np.array(each), name) for name, each in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)


def write_fixed(path: Path, **changes: Any) -> ModelInfo:
    """Write the network to an ONNX file.

    Args:
        path: file.
        **changes: fields of the description to change.
    """
    info = dataclasses.replace(INFO, **changes)
    model = fixed_network()
    model.metadata_props.add(key=KEY, value=info.to_json())
    path.write_bytes(model.SerializeToString())
    return info
