"""Conversion of files of weights of YOLOv5 to checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmdet_ext.compat.layouts import grouped_keys
from mmdet_ext.compat.weights import ConversionError
from mmdet_ext.compat.yolov5 import YOLOv5File, block_counts, read_yolov5
from mmdet_ext.detection.backbones.layers import scaled
from mmdet_ext.detection.backbones.yolov5 import STAGES, STEM, YOLOv5Backbone, deepened
from mmdet_ext.detection.heads.yolo.yolov5 import COCO_ANCHORS, YOLOv5Head
from mmdet_ext.detection.necks.yolov5 import BLOCKS, YOLOv5Neck
from mmdet_ext.utils.files import whole_file
from mmdet_ext.version import __version__

#: Depth and width of the published sizes.
SIZES = {'n': (0.33, 0.25), 's': (0.33, 0.5), 'm': (0.67, 0.75), 'l': (1.0, 1.0), 'x': (1.33, 1.25)}
#: Strides of the levels, px.
STRIDES = (8, 16, 32)
#: Lines of a comparison that a message shows.
SHOWN = 8


class YOLOv5Layout(NamedTuple):
    """Numbers that fix the layers of a network.

    Attributes:
        depth: factor on the numbers of blocks.
        width: factor on the channels.
        num_classes: C.
        anchors_per_cell: number of anchors of a level.
    """

    depth: float
    width: float
    num_classes: int
    anchors_per_cell: int

    @property
    def size(self) -> str | None:
        """Letter of the published network of this depth and width, if there is one."""
        own = (self.depth, self.width)
        return next((size for size, both in SIZES.items() if both == own), None)


def convert_yolov5(source: Path, out: Path) -> str:
    """Convert a file such as ``yolov5s.pt`` to a checkpoint in MMEngine's form.

    The size of the network and its classes are inferred from the weights. Every name and shape is
    compared with those of that network before anything is written.

    Args:
        source: File of YOLOv5 or MMYOLO, or a plain state dict of either.
        out: The checkpoint to write. Its meta information holds the anchors, px, and the names of
            the classes where the file has them, which mmdet's inferencer shows.

    Returns:
        What was converted, in some lines.

    Raises:
        ConversionError: If the weights are those of another layout, or incomplete, or ``out`` is
            the source.
        OSError: If a file cannot be read.
    """
    if out.resolve() == source.resolve():
        raise ConversionError(f'{out} would be written over what is read: name another file')
    file = read_yolov5(source)
    layout = layout_of(source, file)
    model = build_parts(layout)
    own = model.state_dict()
    differences = grouped_keys(own, file.weights)
    if differences:
        shown = '\n  '.join(differences[:SHOWN])
        more = f'\n  and {len(differences) - SHOWN} more' * (len(differences) > SHOWN)
        raise ConversionError(
            f'{source} does not hold a YOLOv5 of layout v6 with depth={layout.depth} and '
            f'width={layout.width}:\n  {shown}{more}'
        )
    # Counts of batches are absent in some files; nothing reads them here.
    weights = {name: file.weights.get(name, value) for name, value in own.items()}
    anchors = _anchors_px(file)
    with whole_file(out) as part:
        torch.save({'meta': _meta(source, file, layout, anchors), 'state_dict': weights}, part)
    count = sum(each.numel() for each in model.parameters())
    return '\n'.join(
        [
            f'{out}: {_named(layout)} with {layout.num_classes} classes, {len(file.weights)} '
            f'tensors, {count:,} parameters' + f', from {file.part!r}' * bool(file.part),
            *_advice(layout, anchors),
        ]
    )


def layout_of(source: Path, file: YOLOv5File) -> YOLOv5Layout:
    """Infer the layout of a network from its weights.

    Args:
        source: The file, for messages.
        file: Its content.

    Raises:
        ConversionError: If the numbers of blocks are those of no depth, or layers are missing.
    """
    needed = ('backbone.stages.0.conv.weight', 'bbox_head.convs_pred.0.weight')
    absent = [name for name in needed if name not in file.weights]
    if absent:
        raise ConversionError(
            f'{source} has no {absent[0]}, the weights of the '
            f'{"head" if "head" in absent[0] else "first convolution"} of YOLOv5, layout v6. A '
            'backbone alone is not converted'
        )
    found = block_counts(file.weights)
    full = [*(count for _, count in STAGES), BLOCKS]
    depths = [own for own, _ in SIZES.values() if [deepened(count, own) for count in full] == found]
    if not depths:
        raise ConversionError(
            f'{source} has {found} residual blocks in its four stages and its neck, which no '
            f'published size has: {sorted({depth for depth, _ in SIZES.values()})} times {full}'
        )
    anchors = 3 if file.anchors is None else file.anchors.shape[1]
    rows = len(file.weights[needed[1]])
    if rows % anchors or rows // anchors < 6:
        raise ConversionError(
            f'{source} has {rows} numbers per cell in its head, no multiple of {anchors} anchors '
            'times 5 and one class or more'
        )
    width = len(file.weights[needed[0]]) / STEM
    return YOLOv5Layout(depths[0], width, rows // anchors - 5, anchors)


def build_parts(layout: YOLOv5Layout) -> nn.ModuleDict:
    """Build backbone, neck and head, by the names that they have in mmdet's detector."""
    channels = [scaled(full, layout.width) for full, _ in STAGES[1:]]
    return nn.ModuleDict(
        dict(
            backbone=YOLOv5Backbone(layout.depth, layout.width),
            neck=YOLOv5Neck(channels, layout.depth),
            bbox_head=YOLOv5Head(
                layout.num_classes,
                channels,
                anchors=[[(8, 8)] * layout.anchors_per_cell] * len(STRIDES),
            ),
        )
    )


def _anchors_px(file: YOLOv5File) -> list[list[list[float]]] | None:
    if file.anchors is None:
        return None
    table: Tensor = file.anchors * file.anchors.new_tensor(STRIDES)[:, None, None]
    return [[[round(side, 2) for side in pair] for pair in level] for level in table.tolist()]


def _meta(source: Path, file: YOLOv5File, layout: YOLOv5Layout, anchors: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {
        'source': 'yolov5',
        'source_file': source.name,
        'mmdet_ext_version': __version__,
        **layout._asdict(),
    }
    if anchors is not None:
        meta['anchors'] = anchors
    if file.classes is not None and len(file.classes) == layout.num_classes:
        meta['dataset_meta'] = {'classes': file.classes}
    return meta


def _named(layout: YOLOv5Layout) -> str:
    if layout.size is not None:
        return f'YOLOv5{layout.size}'
    return f'YOLOv5 with depth={layout.depth} and width={layout.width}'


def _advice(layout: YOLOv5Layout, anchors: Any) -> list[str]:
    lines = []
    if layout.size in ('n', 's', 'm', 'l'):
        lines.append(f'config: configs/detection/yolo/yolov5_{layout.size}_300e_coco.py')
    else:
        lines.append(f'config: set depth={layout.depth} and width={layout.width} of the backbone')
    if layout.num_classes != 80:
        lines.append(f'set model.bbox_head.num_classes={layout.num_classes}')
    if anchors is None:
        lines.append('the file has no anchors: those of the config must be those of the training')
    elif anchors != [[list(map(float, pair)) for pair in level] for level in COCO_ANCHORS]:
        lines.append(f'set model.bbox_head.anchors={anchors}')
    return lines
