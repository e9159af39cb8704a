"""Training data behind the pipeline of a config, and the learning rate of every step."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS

from mmdet_ext.engine.errors import InputError


class TrainingSample(NamedTuple):
    """An image as the network gets it, before it is normalised.

    Attributes:
        image: RGB, (H, W, 3), uint8.
        boxes: x1, y1, x2 and y2, px, (N, 4).
        labels: numbers of the classes, (N,).
        ignored: boxes that do not count, (M, 4).
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


class TrainingSet:
    """Training data of a config.

    Args:
        config: of a detector.

    Attributes:
        classes: names of the classes.

    Raises:
        InputError: if the config has no training data.
    """

    def __init__(self, config: Config) -> None:
        loader = config.get('train_dataloader')
        if loader is None:
            raise InputError('the config has no train_dataloader')
        self._data: Any = DATASETS.build(copy.deepcopy(loader['dataset']))
        if hasattr(self._data, 'full_init'):
            self._data.full_init()
        self.classes: Sequence[str] = self._data.metainfo.get('classes', ())

    def __len__(self) -> int:
        """Return the number of images of an epoch."""
        return len(self._data)

    def sample(self, number: int, seed: int) -> TrainingSample:
        """Send an image through the pipeline.

        Args:
            number: of the image, from 0.
            seed: of all random generators.

        Raises:
            InputError: if there is no such image.
        """
        if not 0 <= number < len(self):
            raise InputError(f'there is no image {number}: the training data have {len(self)}')
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        packed = self._data[number]
        image = packed['inputs'].permute(1, 2, 0).numpy()
        truth, ignored = (
            getattr(packed['data_samples'], name) for name in ('gt_instances', 'ignored_instances')
        )
        return TrainingSample(
            # Images are read in BGR; the preprocessor turns them where the network takes RGB.
            np.ascontiguousarray(image[..., ::-1]),
            _corners(truth.bboxes),
            truth.labels.numpy(),
            _corners(ignored.bboxes),
        )


def _corners(boxes: Any) -> np.ndarray:
    found: np.ndarray = getattr(boxes, 'tensor', boxes).numpy()
    return found


class Schedule(NamedTuple):
    """Learning rate of every step.

    Attributes:
        rates: (T,).
        epoch_length: steps of an epoch; None where training counts steps alone.
        waits: names of schedulers that follow a figure of validation, and are left out.
    """

    rates: np.ndarray
    epoch_length: int | None
    waits: tuple[str, ...]


def learning_rates(config: Config, images: int) -> Schedule:
    """Run the schedulers of a config without a network.

    Args:
        config: its optimizer, schedulers and length of training count; groups of weights with
            rates of their own do not.
        images: number of images of an epoch.

    Raises:
        InputError: if the config has no training loop, or no optimizer.
    """
    loop, wrapper = config.get('train_cfg'), config.get('optim_wrapper')
    if loop is None or wrapper is None or 'optimizer' not in wrapper:
        raise InputError('the config has no train_cfg, or no optimizer in its optim_wrapper')
    length = max(1, math.ceil(images / int(config.train_dataloader.batch_size)))
    epochs = loop.get('max_epochs')
    steps = int(loop['max_iters'] if epochs is None else epochs * length)
    optimizer = OPTIMIZERS.build(
        dict(wrapper['optimizer'], params=[torch.nn.Parameter(torch.zeros(1))])
    )
    every_step: list[Any] = []
    every_epoch: list[Any] = []
    waits: list[str] = []
    given = config.get('param_scheduler') or []
    for each in given if isinstance(given, (list, tuple)) else [given]:
        options = dict(copy.deepcopy(each))
        cls = PARAM_SCHEDULERS.get(options.pop('type'))
        if 'Plateau' in cls.__name__:
            waits.append(cls.__name__)
            continue
        if options.pop('convert_to_iter_based', False):
            made = cls.build_iter_from_epoch(
                optimizer=optimizer, epoch_length=length, **{'by_epoch': True, **options}
            )
        else:
            made = cls(optimizer=optimizer, **options)
        (every_epoch if made.by_epoch else every_step).append(made)
    rates = np.empty(steps)
    with warnings.catch_warnings():
        # The optimizer has nothing to step.
        warnings.simplefilter('ignore')
        for step in range(steps):
            rates[step] = optimizer.param_groups[0]['lr']
            for scheduler in every_step:
                scheduler.step()
            if (step + 1) % length == 0:
                for scheduler in every_epoch:
                    scheduler.step()
    return Schedule(rates, None if epochs is None else length, tuple(waits))
