"""Why margins? Four losses side by side, each on an embedding of two numbers that can be drawn.

    python tools/face/digits_demo.py --out work_dirs/digits

Trains configs/ablations/margins/digits/{softmax,softmax_center,sphereface,arcface}_digits.py on the digits 0 to
6, half a minute each on one core, and draws test pictures of all ten: 7, 8 and 9 are as new to the
network as people are to a face recogniser. Prints a table, and writes to the folder digits.png,
digits.json (its figures), and a folder a run with its log, checkpoint, and scatter/scatter.gif,
how the embeddings came about.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from mmdet_ext.face.embeddings import embeddings_of, evaluating
from mmdet_ext.face.metrics import FaceVerificationMetric
from mmdet_ext.plots.scatter import Run, Scatter, angles_to_class, draw_comparison
from mmdet_ext.utils.files import write_json

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'ablations' / 'margins' / 'digits'
#: What is run unless --runs says otherwise, and what the picture calls it.
TITLES = {
    'softmax': 'softmax',
    'softmax_center': 'softmax + centre loss',
    'sphereface': 'A-Softmax (SphereFace)',
    'arcface': 'ArcFace',
    'cosface': 'CosFace',
}
DEFAULT_RUNS = ('softmax', 'softmax_center', 'sphereface', 'arcface')
FAR = 0.01


@dataclass(frozen=True)
class Figures:
    """What is measured of a run. Rates are from 0 to 1, angles in degrees.

    Attributes:
        name: of the run.
        train_accuracy: training pictures whose nearest class mean, by cosine, is their own.
        test_accuracy: test pictures of trained digits whose nearest class mean, of the training
            pictures, is their own.
        angle: from test pictures of trained digits to the mean direction of their class, median.
        neighbour_angle: from one class's mean direction to the nearest other's, mean over classes.
        seen_auc, seen_eer, seen_tar: verification over all pairs of test pictures of trained
            digits; TAR at a FAR of 1 %.
        unseen_auc, unseen_eer, unseen_tar: likewise of the digits that were not in training.
        seconds: of training.
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


class _Progress(Hook):  # type: ignore[misc]
    """Says where training is, on one line of a terminal, else on some."""

    priority = 'VERY_LOW'

    def __init__(self, name: str) -> None:
        self.name = name

    def after_train_epoch(self, runner: Any) -> None:
        """Say it."""
        done, last = runner.epoch + 1, runner.max_epochs
        terminal = sys.stdout.isatty()
        if terminal or done == last or done % 8 == 0:
            loss = runner.message_hub.get_scalar('train/loss').mean(len(runner.train_dataloader))
            text = f'{self.name}: epoch {done}/{last}, loss {loss:.3f}'
            end = '\r' if terminal and done < last else '\n'
            print(f'{text:60}', end=end, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the demonstration; returns 0, or 2 for bad input."""
    args = _parse(argv)
    threads = torch.get_num_threads()
    # So small a network is slower on several, and its sums then hang on how many there are.
    torch.set_num_threads(1)
    try:
        _check(args)
        args.out.mkdir(parents=True, exist_ok=True)
        demonstrate(args.runs, args.out, args.seed, args.epochs)
    except (ImportError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    finally:
        torch.set_num_threads(threads)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='folder')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--runs',
        nargs='+',
        choices=list(TITLES),
        default=list(DEFAULT_RUNS),
        metavar='RUN',
        help=f'of {", ".join(TITLES)}; default: the first four',
    )
    parser.add_argument('--epochs', type=int, help='instead of what the configs say')
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    if args.seed < 0:
        raise ValueError(f'--seed must be at least 0, got {args.seed}')
    if args.epochs is not None and args.epochs < 2:
        raise ValueError(f'--epochs must be at least 2, got {args.epochs}')
    if len(set(args.runs)) < len(args.runs):
        raise ValueError(f'--runs must name each run once, got {" ".join(args.runs)}')


def demonstrate(runs: list[str], out: Path, seed: int, epochs: int | None) -> list[Figures]:
    """Train, measure, print, draw.

    Args:
        runs: names of configs.
        out: folder for what comes of it.
        seed: of weights, order and shifts of the pictures.
        epochs: instead of the configs', None for theirs.
    """
    figures, panels = [], []
    for name in runs:
        cfg = prepared(name, out, seed, epochs)
        start = time.monotonic()
        runner = Runner.from_cfg(cfg)
        runner.register_hook(_Progress(TITLES[name]), priority='VERY_LOW')
        runner.train()
        seconds = time.monotonic() - start
        found, scatter = measure(name, runner, seconds)
        figures.append(found)
        panels.append(Run(TITLES[name], notes(found), scatter))
    print(f'\n{table(figures)}\n\n{verdict(figures)}')
    write_json(out / 'digits.json', {'seed': seed, 'runs': [asdict(found) for found in figures]})
    draw(panels, figures, seed, out / 'digits.png')
    print(f'\n{out / "digits.png"}')
    return figures


def draw(panels: list[Run], figures: list[Figures], seed: int, path: Path) -> None:
    """Draw the runs side by side."""
    scatter = panels[0].scatter
    trained = ', '.join(
        name for place, name in enumerate(scatter.names) if place not in scatter.unseen
    )
    draw_comparison(
        panels,
        f'Trained on the digits {trained}; these are test pictures, in an embedding of two numbers',
        f'Rays: class centres that were learned. Seed {seed}. Angles to the own class: medians '
        'over test pictures. Accuracy: by the nearest class mean.\nEER and AUC: verification by '
        f'cosine, all pairs; an AUC of 0.5 is chance.\n{verdict(figures)}',
        path,
    )


def prepared(name: str, out: Path, seed: int, epochs: int | None) -> Config:
    """The config of a run, to be run here without a word but its progress."""
    path = CONFIGS / f'{name}_digits.py'
    if not path.is_file():
        raise FileNotFoundError(f'{path} is absent: run from a checkout')
    cfg = Config.fromfile(path)
    cfg.work_dir = str(out / name)
    cfg.randomness = dict(seed=seed)
    cfg.log_level = 'ERROR'
    # Names of runs and visualizers are global in MMEngine: each wants its own.
    cfg.experiment_name = cfg.visualizer.name = f'digits_{name}_{time.time_ns()}'
    cfg.train_cfg.val_interval = cfg.train_cfg.max_epochs if epochs is None else epochs
    if epochs is not None:
        _set_length(cfg, epochs)
    return cfg


def _set_length(cfg: Config, epochs: int) -> None:
    """Make training last so many epochs, and its schedules with it."""
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
    """Figures of a trained model, and its embeddings of the test pictures, to be drawn."""
    cfg, model = runner.cfg, runner.model
    train_set = copy.deepcopy(cfg.train_dataloader.dataset)
    # As they are, without shifts.
    train_set.update(pipeline=cfg.val_dataloader.dataset.pipeline, test_mode=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        known, tested = DATASETS.build(train_set), DATASETS.build(cfg.val_dataloader.dataset)
    with evaluating(model):
        train_points, train_labels = embeddings_of(model, known, range(len(known)))
        points, labels = embeddings_of(model, tested, range(len(tested)))
    classes = list(known.metainfo['classes'])
    names = list(tested.metainfo['classes'])
    # The places of trained digits among the tested ones.
    place = np.array([names.index(digit) for digit in classes])
    train_labels = place[train_labels]
    means = _class_means(train_points, train_labels, place)
    seen = np.isin(labels, place)
    verified = {
        kind: verification(points[rows], labels[rows])
        for kind, rows in (('seen', seen), ('unseen', ~seen))
    }
    figures = Figures(
        name=name,
        train_accuracy=_accuracy(train_points, train_labels, means, place),
        test_accuracy=_accuracy(points[seen], labels[seen], means, place),
        angle=float(np.median(angles_to_class(points[seen], labels[seen]))),
        neighbour_angle=_neighbour_angle(_class_means(points[seen], labels[seen], place)),
        **{
            f'{kind}_{key}': value
            for kind, found in verified.items()
            for key, value in found.items()
        },
        seconds=round(seconds, 1),
    )
    rows = model.head.weight.detach().cpu().numpy()
    centres = {int(place[k]): rows[k : k + 1] for k in range(len(classes))}
    unseen = frozenset(range(len(names))) - set(place.tolist())
    return figures, Scatter(points, labels, names, unseen, centres)


def verification(points: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """AUC, EER, and TAR at a FAR of 1 %, over all pairs of pictures."""
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


def _class_means(points: np.ndarray, labels: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Mean direction of each class, (C, D), of length 1."""
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    means = np.stack([units[labels == label].mean(0) for label in place])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def _accuracy(
    points: np.ndarray, labels: np.ndarray, means: np.ndarray, place: np.ndarray
) -> float:
    return float((place[(points @ means.T).argmax(1)] == labels).mean())


def _neighbour_angle(means: np.ndarray) -> float:
    """Mean over classes of the degrees to the nearest other class."""
    cosines = np.clip(means @ means.T, -1, 1)
    np.fill_diagonal(cosines, -1)
    return float(np.degrees(np.arccos(cosines.max(1))).mean())


def notes(figures: Figures) -> list[str]:
    """What the picture says of a run."""
    return [
        f'{figures.angle:.1f}° to the own class, {figures.neighbour_angle:.0f}° between classes',
        f'accuracy {figures.test_accuracy:.1%}, EER {figures.seen_eer:.1%}',
        f'AUC {figures.seen_auc:.3f}, of unseen digits {figures.unseen_auc:.2f}',
    ]


def verdict(figures: list[Figures]) -> str:
    """Which run came out best, in words that are true whatever the figures."""
    narrow = min(figures, key=lambda found: found.angle)
    fewest = min(figures, key=lambda found: found.seen_eer)
    unseen = max(figures, key=lambda found: found.unseen_auc)
    return (
        f'Narrowest classes here: {TITLES[narrow.name]} ({narrow.angle:.1f}°); fewest errors on '
        f'trained digits: {TITLES[fewest.name]} (EER {fewest.seen_eer:.1%}); best on unseen ones: '
        f'{TITLES[unseen.name]} (AUC {unseen.unseen_auc:.2f}).'
    )


def table(figures: list[Figures]) -> str:
    """All figures as text, a row a run."""
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


if __name__ == '__main__':
    sys.exit(main())
