"""Data sets of drawn rectangles, as `boxes_root` writes them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS


def data_of(
    root: Path,
    part: str,
    classes: int,
    masks: bool = False,
    name: str = 'mmdet.CocoDataset',
    steps: list[Any] | None = None,
) -> dict[str, Any]:
    """Return the config of a data set.

    Args:
        root: folder of the fixture.
        part: 'train' or 'test'.
        classes: number of classes, up to six.
        masks: whether masks are loaded.
        name: type of the data set.
        steps: pipeline in place of the usual one.
    """
    usual = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=masks),
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
        dict(type='PackDetInputs'),
    ]
    return dict(
        type=name,
        data_root=str(root),
        ann_file=f'{part}.json',
        data_prefix=dict(img=part),
        metainfo=dict(classes=tuple('abcdef'[:classes])),
        test_mode=part == 'test',
        pipeline=usual if steps is None else steps,
    )


@cache
def built(root: Path, part: str, classes: int, masks: bool) -> Any:
    """Return a data set, which runs share: each of MMEngine's collects garbage."""
    return DATASETS.build(data_of(root, part, classes, masks))
