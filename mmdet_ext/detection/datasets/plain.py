"""A config's pictures as its network sees them in training, but for random changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config

from mmdet_ext.detection.datasets.coco import CocoDataset


def plain_dataset(config: Config, split: str) -> Any:
    """The data of a split, prepared as for validation, with boxes, and masks if trained with.

    Pictures are not checked beforehand, and none is filtered out.

    Args:
        config: of a detector.
        split: 'train', 'val' or 'test'.

    Raises:
        ValueError: if the config lacks a loader.
        Exception: whatever the data set raises.
    """
    loader, validation = config.get(f'{split}_dataloader'), config.get('val_dataloader')
    if not loader or not validation:
        raise ValueError(f'the config has no {split}_dataloader, or no val_dataloader to load as')
    trained = config.get('train_dataloader') or loader
    loading = next(_steps(trained, 'LoadAnnotations'), {'type': 'LoadAnnotations'})
    pipeline = _with_boxes(validation.dataset.pipeline, {**loading, 'with_bbox': True})
    return DATASETS.build(_unwrapped(loader.dataset, pipeline))


def _unwrapped(options: Any, pipeline: list[Any]) -> dict[str, Any]:
    """A data set's options with that pipeline; wrappers that mix or repeat are taken off."""
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
    """All dicts, however deep, whose type ends like the name."""
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
    """The steps with the boxes loaded first; stock loads them after resizing, for evaluation.

    Args:
        pipeline: of validation.
        loading: the step that loads boxes, and masks, as for training.
    """
    steps = [step for step in pipeline if not _is_type(step, 'LoadAnnotations')]
    outlined = [_outline] if loading.get('with_mask') else []
    return [*steps[:1], *outlined, loading, *steps[1:]]


def _outline(results: dict[str, Any]) -> dict[str, Any]:
    """Give boxes without a mask their own outline, as mask heads cannot do without."""
    for instance in results.get('instances', ()):
        x1, y1, x2, y2 = instance['bbox']
        instance.setdefault('mask', [[x1, y1, x2, y1, x2, y2, x1, y2]])
    return results
