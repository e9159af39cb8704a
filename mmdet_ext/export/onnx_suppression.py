"""Suppression as nodes of an ONNX network, appended to decoded boxes and scores.

The nodes compute what `mmdet_ext.deploy.selection.select` computes, in px of the input:

1. per level, the ``nms_pre`` best pairs of a prior and a class; pairs at or below ``score_thr`` get
   the score -1;
2. factors multiply the scores; boxes are clipped to ``sizes``, here or at last; boxes without area
   get the score -1;
3. classes are shifted apart and NonMaxSuppression runs once for all;
4. the ``max_per_image`` best are kept; rows without a detection have the score -1.

At an IoU of exactly the threshold onnxruntime keeps a box and OpenVINO suppresses it. The nodes
have the next larger float32 as their threshold, so that either keeps it, as mmcv does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmdet_ext.deploy.metadata import ModelInfo
from mmdet_ext.deploy.suppression import checked_options
from mmdet_ext.export.onnx_file import ExportError

#: Score of a row that holds no detection.
NONE = -1.0


def check_inside(info: ModelInfo) -> None:
    """Raise unless the suppression that a model asks for can be a part of its network.

    Raises:
        ExportError: if it cannot.
    """
    options = checked_options(info.selection.nms)
    if options is None:
        raise ExportError('the config has no nms in test_cfg: export with --suppression outside')
    reason = None
    if options['type'] != 'nms':
        reason = f'nms is of type {options["type"]}, and runtimes have the plain one alone'
    elif options['offset'] or options['score_threshold'] > 0:
        reason = 'nms has offset or score_threshold, which runtimes do not have'
    elif info.selection.min_box_size > 0:
        reason = 'min_bbox_size is above 0, in px of the image, which the network does not know'
    if reason is not None:
        raise ExportError(f'{reason}: export with --suppression outside')


class Builder:
    """Nodes and constants that are appended to a graph.

    Args:
        graph: the graph, which is changed.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self._count = 0

    def constant(self, values: Any, kind: Any) -> str:
        """Append a constant; return its name."""
        self._count += 1
        name = f'suppress_c{self._count}'
        self.graph.initializer.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; return the name of its output, or a list of several."""
        self._count += 1
        names = [f'suppress_{kind}_{self._count}_{place}' for place in range(outputs)]
        self.graph.node.append(
            helper.make_node(kind, list(inputs), names, name=names[0], **attributes)
        )
        return names[0] if outputs == 1 else names

    def whole(self, *values: int) -> str:
        """Append a constant of int64."""
        return self.constant(list(values), np.int64)

    def number(self, value: float) -> str:
        """Append a scalar of float32."""
        return self.constant(value, np.float32)


def append_suppression(model: onnx.ModelProto, info: ModelInfo, level_sizes: Sequence[int]) -> None:
    """Append selection and suppression to a network of decoded priors.

    Args:
        model: with outputs ``boxes`` (B, P, 4), ``scores`` (B, P, C) and, where the description
            says so, ``factors`` (B, P); it is changed. Its new outputs are ``boxes`` (B, M, 4),
            ``scores`` (B, M) and ``labels`` (B, M), its new input ``sizes`` (B, 2), height and
            width, where boxes are clipped.
        info: description, with the options.
        level_sizes: priors per level; zeros for a network of any size, whose output ``levels``
            has the level of each prior.

    Raises:
        ExportError: if the options cannot be a part of a network.
    """
    check_inside(info)
    graph = model.graph
    batch = graph.output[0].type.tensor_type.shape.dim[0]
    classes = graph.output[1].type.tensor_type.shape.dim[2].dim_value
    for value in graph.output:
        _rename(graph, value.name, f'priors_{value.name}')
    make = Builder(graph)
    factors = 'priors_factors' if info.has_factors else None
    scores, place, labels = _candidates(make, info, classes, level_sizes, factors)
    boxes = _gather(make, 'priors_boxes', place)
    clip = info.selection.clip
    if clip != 'never':
        graph.input.append(helper.make_tensor_value_info('sizes', TensorProto.FLOAT, [None, 2]))
        graph.input[-1].type.tensor_type.shape.dim[0].CopyFrom(batch)
    if clip == 'first':
        boxes = _clip(make, boxes)
    if info.selection.min_box_size >= 0:
        scores = _with_area(make, boxes, scores)
    kept = _suppressed(make, boxes, scores, labels, info)
    if clip == 'last':
        boxes = _clip(make, boxes)
    _outputs(make, boxes, kept, labels, info, batch)


def _candidates(
    make: Builder,
    info: ModelInfo,
    classes: int,
    level_sizes: Sequence[int],
    factors: str | None,
) -> tuple[str, str, str]:
    """Return scores (B, K), places of priors (B, K) and labels (B, K) of the candidates."""
    scores, options = 'priors_scores', info.selection
    one_class, columns = options.rule != 'pairs', classes
    if one_class:
        best_label = make.node('ArgMax', scores, axis=2, keepdims=0)
        scores, columns = make.node('ReduceMax', scores, make.whole(2), keepdims=1), 1
    if factors is not None and options.rule == 'best_class':
        scores = make.node('Mul', scores, make.node('Unsqueeze', factors, make.whole(2)))
        factors = None
    if factors is not None and options.factor_thr > 0:
        low = make.node('Less', factors, make.number(options.factor_thr))
        low = make.node('Unsqueeze', low, make.whole(2))
        scores = make.node('Where', low, make.number(NONE), scores)
    flat = make.node('Reshape', scores, make.whole(0, -1))  # (B, P columns)
    found = []
    for start, end, size in _levels(make, level_sizes, columns):
        part = make.node('Slice', flat, start, end, make.whole(1)) if end else flat
        best, index = _top(make, part, options.nms_pre or None, size)
        found.append((best, make.node('Add', index, start)))
    best = _joined(make, [each[0] for each in found])
    index = _joined(make, [each[1] for each in found])
    kind = 'GreaterOrEqual' if options.rule == 'best_class' else 'Greater'
    above = make.node(kind, best, make.number(options.score_thr))
    place, labels = index, index
    if one_class:
        labels = make.node('GatherElements', best_label, index, axis=1)
    else:
        count = make.whole(classes)
        place = make.node('Div', index, count)
        labels = make.node('Sub', index, make.node('Mul', place, count))
    if factors is not None:
        best = make.node('Mul', best, make.node('GatherElements', factors, place, axis=1))
    return make.node('Where', above, best, make.number(NONE)), place, labels


def _levels(
    make: Builder, sizes: Sequence[int], classes: int
) -> Iterator[tuple[str, str | None, int | None]]:
    """Yield begin and end of each level in the flat scores, and its size where it is known.

    The end is None where there is one level.
    """
    if len(sizes) == 1:
        yield make.whole(0), None, sizes[0] * classes or None
        return
    if all(sizes):
        start = 0
        for size in sizes:
            end = start + size * classes
            yield make.whole(start), make.whole(end), size * classes
            start = end
        return
    begin = make.whole(0)
    for level in range(len(sizes)):
        own = make.node('Equal', 'priors_levels', make.number(float(level)))
        count = make.node('ReduceSum', make.node('Cast', own, to=TensorProto.INT64), keepdims=1)
        end = make.node('Add', begin, make.node('Mul', count, make.whole(classes)))
        yield begin, end, None
        begin = end


def _top(make: Builder, values: str, most: int | None, known: int | None = None) -> tuple[str, str]:
    """Return the best values (B, K) of a table and their indices; all, in order, for None."""
    if known is not None and most is not None:
        count = make.whole(min(most, known))
    else:
        size = make.node('Shape', values, start=1, end=2)
        count = size if most is None else make.node('Min', size, make.whole(most))
    best, index = make.node('TopK', values, count, outputs=2, axis=1, largest=1, sorted=1)
    return best, index


def _joined(make: Builder, parts: Sequence[str]) -> str:
    joined: str = make.node('Concat', *parts, axis=1) if len(parts) > 1 else parts[0]
    return joined


def _gather(make: Builder, table: str, place: str) -> str:
    """Return the rows (B, K, 4) of a table (B, P, 4)."""
    index = make.node('Unsqueeze', place, make.whole(2))
    index = make.node('Expand', index, make.whole(1, 1, 4))
    gathered: str = make.node('GatherElements', table, index, axis=1)
    return gathered


def _clip(make: Builder, boxes: str) -> str:
    """Clip boxes (B, K, 4) to ``sizes`` (B, 2)."""
    limits = make.node('Gather', 'sizes', make.whole(1, 0, 1, 0), axis=1)
    limits = make.node('Unsqueeze', limits, make.whole(1))
    clipped: str = make.node('Min', make.node('Max', boxes, make.number(0.0)), limits)
    return clipped


def _with_area(make: Builder, boxes: str, scores: str) -> str:
    """Give boxes with a side of 0 the score of none."""
    one, step = make.whole(1), make.whole(2)
    low = make.node('Slice', boxes, make.whole(0), make.whole(2), step, one)
    high = make.node('Slice', boxes, make.whole(2), make.whole(4), step, one)
    side = make.node('ReduceMin', make.node('Sub', high, low), step, keepdims=0)
    real = make.node('Greater', side, make.number(0.0))
    chosen: str = make.node('Where', real, scores, make.number(NONE))
    return chosen


def _suppressed(make: Builder, boxes: str, scores: str, labels: str, info: ModelInfo) -> str:
    """Return the scores (B, K), -1 for what is suppressed."""
    options = checked_options(info.selection.nms)
    assert options is not None
    real = make.node('Greater', scores, make.number(NONE / 2))
    shifted = boxes
    if not options['class_agnostic']:
        mask = make.node('Unsqueeze', real, make.whole(2))
        largest = make.node(
            'ReduceMax',
            make.node('Where', mask, boxes, make.number(0.0)),
            make.whole(1, 2),
            keepdims=1,
        )
        step = make.node('Add', largest, make.number(1.0))
        label = make.node('Cast', labels, to=TensorProto.FLOAT)
        label = make.node('Unsqueeze', label, make.whole(2))
        shifted = make.node('Add', boxes, make.node('Mul', label, step))
    threshold = np.nextafter(np.float32(options['iou_threshold']), np.float32(np.inf))
    chosen = make.node(
        'NonMaxSuppression',
        shifted,
        make.node('Unsqueeze', scores, make.whole(1)),
        make.node('Shape', scores, start=1, end=2),
        make.constant([threshold], np.float32),
        make.constant([NONE / 2], np.float32),
    )
    places = make.node('Gather', chosen, make.whole(0, 2), axis=1)
    values = make.node('GatherND', scores, places)
    nothing = make.node(
        'ConstantOfShape',
        make.node('Shape', scores),
        value=helper.make_tensor('none', TensorProto.FLOAT, [1], [NONE]),
    )
    scattered: str = make.node('ScatterND', nothing, places, values)
    return scattered


def _outputs(
    make: Builder, boxes: str, scores: str, labels: str, info: ModelInfo, batch: Any
) -> None:
    """Make the best rows the outputs."""
    options = checked_options(info.selection.nms) or {}
    limits = [each for each in (info.selection.max_per_image, options['max_num']) if each > 0]
    most = min(limits) if limits else None
    best, place = _top(make, scores, most)
    results = {
        'boxes': _gather(make, boxes, place),
        'scores': best,
        'labels': make.node('GatherElements', labels, place, axis=1),
    }
    graph = make.graph
    del graph.output[:]
    for name, source in results.items():
        graph.node.append(helper.make_node('Identity', [source], [name], name=f'out_{name}'))
        kind = TensorProto.INT64 if name == 'labels' else TensorProto.FLOAT
        shape = [None, None, 4] if name == 'boxes' else [None, None]
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
        graph.output[-1].type.tensor_type.shape.dim[0].CopyFrom(batch)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value wherever it is written or read."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    for value in graph.value_info:
        if value.name == old:
            value.name = new
