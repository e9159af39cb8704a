"""Images of a config as its network sees them in training, without random changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config

from mmdet_ext.detection.datasets.coco import CocoDataset


def plain_dataset(config: Config, split: str) -> Any:
    """Build the data set of a split with the pipeline of validation, and with its boxes.

    Masks are loaded where training loads them. Images are not checked beforehand, and none is
    filtered out.

    Args:
        config: config of a detector.
        split: 'train', 'val' or 'test'.

    Raises:
        ValueError: if the config lacks a loader.
        Exception: any error of the data set.
    """
    loader, validation = config.get(f'{split}_dataloader'), config.get('val_dataloader')
    if not loader or not validation:
        raise ValueError(f'the config has no {split}_dataloader, or no val_dataloader to load as')
    trained = config.get('train_dataloader') or loader
    loading = next(_steps(trained, 'LoadAnnotations'), {'type': 'LoadAnnotations'})
    pipeline = _with_boxes(validation.dataset.pipeline, {**loading, 'with_bbox': True})
    return DATASETS.build(_unwrapped(loader.dataset, pipeline))


def _unwrapped(options: Any, pipeline: list[Any]) -> dict[str, Any]:
    """Give the innermost data sets the pipeline, and remove wrappers that mix or repeat."""
    if 'dataset' in options:
        return _unwrapped(options['dataset'], pipeline)
    if 'datasets' in options:
        return {**options, 'datasets': [_unwrapped(each, pipeline) for each in options['datasets']]}
    options = {**options, 'pipeline': pipeline, 'test_mode': True}
    kind = options['type'] if isinstance(options['type'], type) else DATASETS.get(options['type'])
    if kind and issubclass(kind, CocoDataset):
        options['bad_images'] = 'unchecked'
    return options


def _steps(node: Any, name: str) -> Iterator[Any]:
    """Yield all dicts within a config, at any depth, whose type ends with the name."""
    if isinstance(node, dict):
        if _is_type(node, name):
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _steps(child, name)


def _is_type(step: Any, name: str) -> bool:
    kind = step.get('type')
    return str(getattr(kind, '__name__', kind)).endswith(name)


def _with_boxes(pipeline: Sequence[Any], loading: dict[str, Any]) -> list[Any]:
    """Move the loading of boxes before all that changes the image.

    Validation loads boxes after resizing, as it evaluates in the size of the file.

    Args:
        pipeline: pipeline of validation.
        loading: step that loads boxes, and masks where training has them.
    """
    steps = [step for step in pipeline if not _is_type(step, 'LoadAnnotations')]
    outlined = [_outline] if loading.get('with_mask') else []
    return [*steps[:1], *outlined, loading, *steps[1:]]


def _outline(results: dict[str, Any]) -> dict[str, Any]:
    """Give boxes without a mask their own outline, because mask heads need a mask."""
    for instance in results.get('instances', ()):
        x1, y1, x2, y2 = instance['bbox']
        instance.setdefault('mask', [[x1, y1, x2, y1, x2, y2, x1, y2]])
    return results
