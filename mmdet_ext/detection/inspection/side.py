"""One side of a comparison: a config's data and detector, and the assignments that they give."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_ext.data.coco.image_names import image_places
from mmdet_ext.data.images import image_problem
from mmdet_ext.detection.datasets.plain import plain_dataset
from mmdet_ext.detection.inspection.detector import build_detector, load_weights
from mmdet_ext.detection.inspection.record import (
    AssignmentRecord,
    NoPlaceError,
    recorded_assignments,
)
from mmdet_ext.engine.errors import InputError, explained
from mmdet_ext.plots.assignments import ImageAssignment, LevelAssignment


@dataclass(frozen=True)
class Sight:
    """An image as one side prepares it, and its assignments.

    Attributes:
        image: (H, W, 3) uint8, RGB, as the network sees it.
        rows: one assignment per call of an assigner.
    """

    image: np.ndarray
    rows: list[ImageAssignment]


@dataclass(frozen=True)
class Side:
    """Data and detector of one config.

    Attributes:
        name: name of the config, for titles.
        dataset: its data set, with the pipeline of `plain_dataset`.
        paths: paths of the images, in the order of the data set.
        model: its detector.
        epoch: epoch from 0, for rules that change during training.
        warning: warning about the weights, empty if there is none.
    """

    name: str
    dataset: Any
    paths: list[str]
    model: Any
    epoch: int
    warning: str = ''

    def look(self, path: str, seed: int) -> Sight:
        """Prepare an image and assign its priors.

        Args:
            path: path of the image, as in the data set.
            seed: seed of samplers.

        Raises:
            InputError: if there is no such image, it is broken, or nothing is assigned in it.
        """
        index = image_places(self.paths).get(os.path.abspath(path))
        if index is None:
            raise InputError(f'{self.name} does not have the image {path} in its data')
        problem = image_problem(path) if os.path.exists(path) else None
        if problem:
            raise InputError(f'cannot read the image {path}: {problem}')
        with explained(f'{self.name} cannot load the image {path}'):
            sample = self.dataset[index]
        image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
        # Heads read the epoch where a runner writes it.
        hub = MessageHub.get_current_instance()
        with patch.dict(hub.runtime_info, epoch=self.epoch, iter=0):
            torch.manual_seed(seed)
            np.random.seed(seed)
            return Sight(np.ascontiguousarray(image), assign_image(self.model, sample, self.name))


def load_side(
    name: str,
    config: Config,
    *,
    split: str,
    checkpoint: Path | None = None,
    epoch: int | None = None,
    seed: int = 0,
) -> Side:
    """Build the data set and the detector of a config.

    Args:
        name: name of the config, for titles and messages.
        config: the config.
        split: 'train', 'val' or 'test'.
        checkpoint: weights of the detector; None for untrained weights.
        epoch: epoch from 1; None for the last epoch of the config.
        seed: seed of untrained weights.

    Raises:
        InputError: if data set or detector cannot be built, or the checkpoint does not fit.
    """
    with explained(f'cannot read the {split} data of {name}'):
        dataset = plain_dataset(config, split)
        paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    if not paths:
        raise InputError(f'the {split} data of {name} has no images')
    model = build_detector(name, config, seed)
    warning = '' if checkpoint is None else load_weights(model, name, checkpoint)
    # A loop that counts iterations has no max_epochs, and stays in the first epoch.
    last = (config.get('train_cfg') or {}).get('max_epochs') or 1
    return Side(name, dataset, paths, model, (epoch or last) - 1, warning)


def assign_image(model: Any, sample: dict[str, Any], config: str) -> list[ImageAssignment]:
    """Compute a detector's loss of one image, and return its assignments.

    Args:
        model: the detector.
        sample: sample of its data set.
        config: name of its config, for titles and messages.

    Raises:
        InputError: if the detector has no assigner, or one that assigns neither priors nor boxes.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()  # statistics of a single image would distort the predictions
    with (
        explained(f'{config} cannot compute its loss of the image', with_place=True),
        recorded_assignments(model) as records,
        torch.no_grad(),
    ):
        data = model.data_preprocessor(pseudo_collate([sample]), training=False)
        try:
            model.loss(data['inputs'], data['data_samples'])
        except NoPlaceError as error:
            raise InputError(f'{config} cannot be drawn: {error}') from error
    if not records:
        raise InputError(
            f"{config} has no assigner to look on at: mmdet's heads like FCOSHead assign by "
            "themselves. Set the head's type to ours, such as mmdet_ext.FCOSHead"
        )
    titles = [_title(record, config) for record in records]
    return [
        _as_assignment(record, title + _count_of(titles, number))
        for number, (record, title) in enumerate(zip(records, titles, strict=True))
    ]


def _title(record: AssignmentRecord, config: str) -> str:
    where = '' if record.head == 'bbox_head' else f' in {record.head}'
    what = '' if record.places == 'priors' else f'\n{record.places}'
    return f'{config}\n{record.assigner}{where}{what}'


def _count_of(titles: Sequence[str], number: int) -> str:
    """Return "k of n" for equal titles, such as those of the stages of Cascade R-CNN."""
    times = titles.count(titles[number])
    return f', {titles[:number].count(titles[number]) + 1} of {times}' if times > 1 else ''


def _as_assignment(record: AssignmentRecord, title: str) -> ImageAssignment:
    levels = int(record.level.max()) + 1 if len(record.level) else 1
    return ImageAssignment(
        title=title,
        boxes=record.gt_boxes.float().numpy(),
        levels=tuple(
            LevelAssignment(
                record.centers[record.level == level].float().numpy(),
                record.gt_index[record.level == level].numpy(),
            )
            for level in range(levels)
        ),
    )
