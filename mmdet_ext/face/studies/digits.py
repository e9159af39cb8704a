"""Comparison of margin losses on digits, with embeddings of two numbers that can be drawn."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from mmdet_ext.face.embeddings import embeddings_of, evaluating
from mmdet_ext.face.metrics.verification import FaceVerificationMetric
from mmdet_ext.plots.scatter import Run, Scatter, angles_to_class, draw_comparison
from mmdet_ext.utils.files import write_json

#: Runs by name, and their titles in the figure. The config of a run is ``<name>_digits.py``.
TITLES = {
    'softmax': 'softmax',
    'softmax_center': 'softmax + centre loss',
    'sphereface': 'A-Softmax (SphereFace)',
    'arcface': 'ArcFace',
    'cosface': 'CosFace',
}
#: False accept rate at which the true accept rate is reported.
FAR = 0.01


@dataclass(frozen=True)
class Figures:
    """Figures of a run. Rates are from 0 to 1, angles in degrees.

    Attributes:
        name: name of the run.
        train_accuracy: share of the training images whose nearest class mean, by cosine, is their
            own.
        test_accuracy: share of the test images of trained digits whose nearest class mean, of the
            training images, is their own.
        angle: median angle from a test image of a trained digit to the mean direction of its class.
        neighbour_angle: mean over the classes of the angle to the nearest other class mean.
        seen_auc: AUC of verification over all pairs of test images of trained digits.
        seen_eer: equal error rate of the same pairs.
        seen_tar: true accept rate of the same pairs at a false accept rate of 1 %.
        unseen_auc: AUC of verification over all pairs of digits that were not in training.
        unseen_eer: equal error rate of the same pairs.
        unseen_tar: true accept rate of the same pairs at a false accept rate of 1 %.
        seconds: time of training.
    """

    name: str
    train_accuracy: float
    test_accuracy: float
    angle: float
    neighbour_angle: float
    seen_auc: float
    seen_eer: float
    seen_tar: float
    unseen_auc: float
    unseen_eer: float
    unseen_tar: float
    seconds: float


def train_and_measure(
    name: str,
    configs: Path,
    out: Path,
    seed: int,
    epochs: int | None = None,
    hooks: Sequence[Hook] = (),
) -> tuple[Figures, Run]:
    """Train a run and measure it.

    Args:
        name: name of the run, of `TITLES`.
        configs: folder of the configs.
        out: folder for a folder of the run.
        seed: seed of weights, order and shifts of the images.
        epochs: number of epochs instead of the config's, None for that.
        hooks: hooks of the runner beside those of the config.

    Returns:
        tuple: the figures of the run, and its panel for the figure.
    """
    cfg = prepared(name, configs, out, seed, epochs)
    start = time.monotonic()
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook, priority='VERY_LOW')
    runner.train()
    found, scatter = measure(name, runner, time.monotonic() - start)
    return found, Run(TITLES[name], notes(found), scatter)


def prepared(name: str, configs: Path, out: Path, seed: int, epochs: int | None) -> Config:
    """Load the config of a run, for a quiet training into its own folder.

    Raises:
        FileNotFoundError: if the config is absent.
    """
    path = configs / f'{name}_digits.py'
    if not path.is_file():
        raise FileNotFoundError(f'{path} is absent: run from a checkout')
    cfg = Config.fromfile(path)
    cfg.work_dir = str(out / name)
    cfg.randomness = dict(seed=seed)
    cfg.log_level = 'ERROR'
    # Names of runs and visualizers are global in MMEngine, so that each run needs its own.
    cfg.experiment_name = cfg.visualizer.name = f'digits_{name}_{time.time_ns()}'
    cfg.train_cfg.val_interval = cfg.train_cfg.max_epochs if epochs is None else epochs
    if epochs is not None:
        _set_length(cfg, epochs)
    return cfg


def _set_length(cfg: Config, epochs: int) -> None:
    """Set the number of epochs, and shorten the schedules with it."""
    share = epochs / cfg.train_cfg.max_epochs
    cfg.train_cfg.max_epochs = epochs
    for scheduler in cfg.param_scheduler:
        if scheduler.get('by_epoch'):
            scheduler.end = scheduler.T_max = epochs
        else:
            scheduler.end = max(2, round(scheduler.end * share))
    for hook in cfg.custom_hooks:
        if hook.get('end') is not None:
            hook.end = max(1, round(hook.end * share))


def measure(name: str, runner: Any, seconds: float) -> tuple[Figures, Scatter]:
    """Compute the figures of a trained model, and its embeddings of the test images."""
    cfg, model = runner.cfg, runner.model
    train_set = copy.deepcopy(cfg.train_dataloader.dataset)
    # Without the random shifts of training.
    train_set.update(pipeline=cfg.val_dataloader.dataset.pipeline, test_mode=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        known, tested = DATASETS.build(train_set), DATASETS.build(cfg.val_dataloader.dataset)
    with evaluating(model):
        train_points, train_labels = embeddings_of(model, known, range(len(known)))
        points, labels = embeddings_of(model, tested, range(len(tested)))
    classes = list(known.metainfo['classes'])
    names = list(tested.metainfo['classes'])
    # Labels of the trained digits among the tested ones.
    place = np.array([names.index(digit) for digit in classes])
    train_labels = place[train_labels]
    means = class_means(train_points, train_labels, place)
    seen = np.isin(labels, place)
    verified = {
        kind: verification(points[rows], labels[rows])
        for kind, rows in (('seen', seen), ('unseen', ~seen))
    }
    figures = Figures(
        name=name,
        train_accuracy=accuracy(train_points, train_labels, means, place),
        test_accuracy=accuracy(points[seen], labels[seen], means, place),
        angle=float(np.median(angles_to_class(points[seen], labels[seen]))),
        neighbour_angle=neighbour_angle(class_means(points[seen], labels[seen], place)),
        **{
            f'{kind}_{key}': value
            for kind, found in verified.items()
            for key, value in found.items()
        },
        seconds=round(seconds, 1),
    )
    rows = model.head.weight.detach().cpu().numpy()
    centers = {int(place[k]): rows[k : k + 1] for k in range(len(classes))}
    unseen = frozenset(range(len(names))) - set(place.tolist())
    return figures, Scatter(points, labels, names, unseen, centers)


def verification(points: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute AUC, EER, and TAR at a FAR of 1 %, over all pairs of images.

    Args:
        points: embeddings, (N, D).
        labels: (N,).

    Returns:
        dict: 'auc', 'eer' and 'tar', from 0 to 1.
    """
    metric = FaceVerificationMetric(pairs='all', fars=[FAR], prefix='face')
    metric.process(
        None,
        [
            dict(embedding=point, gt_label=label, sample_idx=number)
            for number, (point, label) in enumerate(zip(points, labels, strict=True))
        ],
    )
    found: Mapping[str, float] = metric.evaluate(len(points))
    return {
        'auc': found['face/auc'],
        'eer': found['face/eer'],
        'tar': next(value for key, value in found.items() if key.startswith('face/tar@')),
    }


def class_means(points: np.ndarray, labels: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Compute the mean direction of each class, of length 1.

    Args:
        points: embeddings, (N, D).
        labels: (N,).
        place: labels of the C classes, in the order of the result.

    Returns:
        np.ndarray: (C, D).
    """
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    means = np.stack([units[labels == label].mean(0) for label in place])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def accuracy(points: np.ndarray, labels: np.ndarray, means: np.ndarray, place: np.ndarray) -> float:
    """Compute the share of points whose nearest class mean, by cosine, is their own.

    Args:
        points: embeddings, (N, D).
        labels: (N,).
        means: mean directions, (C, D).
        place: label of each mean, (C,).
    """
    return float((place[(points @ means.T).argmax(1)] == labels).mean())


def neighbour_angle(means: np.ndarray) -> float:
    """Compute the mean over classes of the angle to the nearest other mean (C, D), degrees."""
    cosines = np.clip(means @ means.T, -1, 1)
    np.fill_diagonal(cosines, -1)
    return float(np.degrees(np.arccos(cosines.max(1))).mean())


def save(figures: Sequence[Figures], panels: Sequence[Run], seed: int, out: Path) -> Path:
    """Write digits.json and digits.png to a folder, and return the path of the figure."""
    write_json(out / 'digits.json', {'seed': seed, 'runs': [asdict(found) for found in figures]})
    scatter = panels[0].scatter
    trained = ', '.join(
        name for place, name in enumerate(scatter.names) if place not in scatter.unseen
    )
    path = out / 'digits.png'
    draw_comparison(
        panels,
        f'Trained on the digits {trained}; these are test pictures, in an embedding of two numbers',
        f'Rays: class centres that were learned. Seed {seed}. Angles to the own class: medians '
        'over test pictures. Accuracy: by the nearest class mean.\nEER and AUC: verification by '
        f'cosine, all pairs; an AUC of 0.5 is chance.\n{verdict(figures)}',
        path,
    )
    return path


def notes(figures: Figures) -> list[str]:
    """Return the lines above the panel of a run."""
    return [
        f'{figures.angle:.1f}° to the own class, {figures.neighbour_angle:.0f}° between classes',
        f'accuracy {figures.test_accuracy:.1%}, EER {figures.seen_eer:.1%}',
        f'AUC {figures.seen_auc:.3f}, of unseen digits {figures.unseen_auc:.2f}',
    ]


def verdict(figures: Sequence[Figures]) -> str:
    """Name the best runs in a sentence."""
    narrow = min(figures, key=lambda found: found.angle)
    fewest = min(figures, key=lambda found: found.seen_eer)
    unseen = max(figures, key=lambda found: found.unseen_auc)
    return (
        f'Narrowest classes here: {TITLES[narrow.name]} ({narrow.angle:.1f}°); fewest errors on '
        f'trained digits: {TITLES[fewest.name]} (EER {fewest.seen_eer:.1%}); best on unseen ones: '
        f'{TITLES[unseen.name]} (AUC {unseen.unseen_auc:.2f}).'
    )


def table(figures: Sequence[Figures]) -> str:
    """Format all figures as text, one row per run."""
    head = (
        f'{"":24} accuracy         angle to own     trained digits           unseen digits\n'
        f'{"loss":24} train    test    (neighbour)      AUC     EER    TAR@1%    AUC     EER    '
        'TAR@1%  seconds'
    )
    rows = [
        f'{TITLES[f.name]:24}{f.train_accuracy:6.1%}  {f.test_accuracy:6.1%}  '
        f'{f.angle:5.1f}° ({f.neighbour_angle:4.1f}°)   '
        f'{f.seen_auc:7.4f} {f.seen_eer:6.1%}  {f.seen_tar:6.1%}  '
        f'{f.unseen_auc:7.3f} {f.unseen_eer:6.1%}   {f.unseen_tar:6.1%}  {f.seconds:6.1f}'
        for f in figures
    ]
    return '\n'.join([head, *rows])
