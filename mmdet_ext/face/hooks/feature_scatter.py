"""Pictures of the embeddings as training goes on."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from mmdet_ext.engine.loops import check_counts_epochs, unwrapped
from mmdet_ext.face.heads import MarginHead
from mmdet_ext.functional.numerics.checks import check_one_of, check_whole
from mmdet_ext.plots.scatter import (
    Projection,
    Scatter,
    draw_scatter,
    fit_projection,
    write_animation,
    write_picture,
)
from mmdet_ext.registry import DATASETS, HOOKS
from mmdet_ext.utils.files import whole_file

Projecting = Literal['auto', 'pca', 'pca_each']
_PARTS = ('train', 'val', 'test')
#: Labels are read of at most this many pictures for each one that is drawn.
_LOOKED_AT = 20
_VIEW = 'projection.npz'


@dataclass(frozen=True)
class _Chosen:
    """Which pictures are drawn.

    Attributes:
        dataset: that they are of.
        index: places in it, ascending.
        names: of its classes, by label.
        unseen: labels that are not in training.
        centre_of: label -> class of training.
    """

    dataset: Any
    index: list[int]
    names: list[str]
    unseen: frozenset[int]
    centre_of: dict[int, int]


@HOOKS.register_module()
class FeatureScatterHook(Hook):  # type: ignore[misc]
    """Draws embeddings as points in the plane, a colour a class: at first, at times, at last.

    Before training, after every ``interval`` epochs and after the last, the model computes the
    embeddings of the same pictures. Each drawing is a file, ``epoch_000005.png``, in ``out_dir``,
    and goes to the runner's visualizer as 'scatter'; at the end all become ``scatter.gif``.
    Embeddings of two numbers are drawn as they are, with the classes' centres as rays where the
    head has them; longer ones in the two directions in which they spread most. Classes that were
    not in training are crosses: told by their names where both data sets have ``classes``, else
    by labels that are not below the head's ``num_classes``.

    Training is as without it: modes of modules and the state of random numbers are put back. Only
    the main process draws.

    Args:
        interval: epochs, or steps, from drawing to drawing, at least 1.
        max_samples: how many pictures, at most.
        dataset: 'train', 'val' or 'test' for the data set of that loader, or the config of one.
            It must give what the model's ``data_preprocessor`` takes, with ``gt_label``.
        out_dir: None for ``scatter`` in the runner's work folder.
        animation: whether there is one.
        projection: of embeddings that have more than two numbers. 'auto' and 'pca': fitted to the
            first drawing and kept (in ``projection.npz``, for a resumed training), so that
            pictures are of one view; 'pca' also where they have two. 'pca_each': fitted to each
            drawing, which shows more where an untrained network's view is a bad one.
        max_classes: how many classes, at most, those of most pictures.
        by_epoch: whether ``interval`` counts epochs, or steps.
        seed: of the choice of pictures, and of what is random in the data set's pipeline.

    Raises:
        ValueError: if an option is out of its range. Before training: if the loader asked for is
            not there, or its pictures have no ``gt_label``.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 5,
        max_samples: int = 1000,
        dataset: str | Mapping[str, Any] = 'val',
        out_dir: str | None = None,
        animation: bool = True,
        projection: Projecting = 'auto',
        max_classes: int = 20,
        by_epoch: bool = True,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ('interval', interval, 1),
            ('max_samples', max_samples, 1),
            ('max_classes', max_classes, 1),
            ('seed', seed, 0),
        ):
            check_whole(name, value, least)
        if isinstance(dataset, str) and dataset not in _PARTS:
            raise ValueError(f'dataset must be one of {_PARTS} or a config, got {dataset!r}')
        check_one_of('projection', projection, Projecting)
        self.interval, self.max_samples, self.dataset = interval, max_samples, dataset
        self.animation, self.projection = animation, projection
        self.max_classes, self.by_epoch, self.seed = max_classes, by_epoch, seed
        self.out_dir = None if out_dir is None else Path(out_dir)
        self._chosen: _Chosen | None = None
        self._view: Projection | None = None
        self._frames: list[Path] = []
        self._drawn_at = -1

    def before_train(self, runner: Any) -> None:
        """Choose the pictures, and draw the untrained network's embeddings of them."""
        if self.by_epoch:
            check_counts_epochs(runner)
        with untouched_random_state():
            # On all processes, so that what is wrong is wrong for all.
            self._chosen = self._choose(runner)
        if not is_main_process():
            return
        self._view, self._frames = None, []
        done = self._done(runner)
        if done == 0:
            self._draw(runner, 0)
        else:
            self._take_up(self._folder(runner), done)

    def _take_up(self, folder: Path, done: int) -> None:
        """Go on with the drawings that are there, as training was resumed."""
        times = {path: path.stem.removeprefix(f'{self._unit}_') for path in folder.glob('*.png')}
        self._frames = sorted(
            path for path, time in times.items() if time.isdecimal() and int(time) <= done
        )
        self._drawn_at = done if folder / self._file_name(done) in self._frames else -1
        kept = folder / _VIEW
        if self.projection != 'pca_each' and kept.is_file():
            with np.load(kept, allow_pickle=False) as file:
                self._view = Projection(file['mean'], file['axes'], float(file['share']))

    def after_train_epoch(self, runner: Any) -> None:
        """Draw, every ``interval`` epochs."""
        # The loop counts an epoch, or a step, only after its hooks.
        if self.by_epoch and is_main_process() and (runner.epoch + 1) % self.interval == 0:
            self._draw(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Draw, every ``interval`` steps where it is by steps."""
        if not self.by_epoch and is_main_process() and (runner.iter + 1) % self.interval == 0:
            self._draw(runner, runner.iter + 1)

    def after_train(self, runner: Any) -> None:
        """Draw, and write the animation."""
        if not is_main_process():
            return
        if self._drawn_at != self._done(runner):
            self._draw(runner, self._done(runner))
        if self.animation and self._frames:
            path = self._folder(runner) / 'scatter.gif'
            write_animation(self._frames, path)
            runner.logger.info(f'FeatureScatterHook: {len(self._frames)} drawings, {path}')

    @property
    def _unit(self) -> str:
        return 'epoch' if self.by_epoch else 'step'

    def _file_name(self, time: int) -> str:
        return f'{self._unit}_{time:06d}.png'

    def _done(self, runner: Any) -> int:
        return int(runner.epoch if self.by_epoch else runner.iter)

    def _folder(self, runner: Any) -> Path:
        return self.out_dir if self.out_dir is not None else Path(runner.work_dir) / 'scatter'

    def _choose(self, runner: Any) -> _Chosen:
        dataset = self._find_dataset(runner)
        names = _class_names(dataset)
        index, labels = _labelled_sample(dataset, self.max_samples * _LOOKED_AT, self.seed)
        found, counts = np.unique(labels, return_counts=True)
        kept = found[np.argsort(-counts, kind='stable')[: self.max_classes]]
        index = np.sort(index[np.isin(labels, kept)][: self.max_samples])
        count = max(int(found.max()) + 1, len(names or ()))
        trained = _class_names(runner.train_dataloader.dataset)
        if names is not None and trained is not None:
            place = {name: number for number, name in enumerate(trained)}
            centre_of = {label: place[name] for label, name in enumerate(names) if name in place}
        else:
            head = getattr(unwrapped(runner.model), 'head', None)
            centre_of = {
                label: label for label in range(min(count, getattr(head, 'num_classes', count)))
            }
        full = [str(label) for label in range(count)]
        full[: len(names or ())] = names or ()
        return _Chosen(
            dataset, index.tolist(), full, frozenset(range(count)) - set(centre_of), centre_of
        )

    def _find_dataset(self, runner: Any) -> Any:
        if not isinstance(self.dataset, str):
            dataset = DATASETS.build(dict(self.dataset))
        elif self.dataset == 'train':
            dataset = runner.train_dataloader.dataset
        else:
            loop = runner.val_loop if self.dataset == 'val' else runner.test_loop
            if loop is None:
                raise ValueError(
                    f'dataset={self.dataset!r}: the config has no {self.dataset}_dataloader. Add '
                    "it, or set dataset to 'train' or to the config of a data set"
                )
            dataset = loop.dataloader.dataset
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        return dataset

    def _draw(self, runner: Any, time: int) -> None:
        """Draw the embeddings of the chosen pictures."""
        assert self._chosen is not None
        model, chosen = unwrapped(runner.model), self._chosen
        with evaluating(model), untouched_random_state():
            seed_all(self.seed)
            points, labels = embeddings_of(model, chosen.dataset, chosen.index)
        finite = np.isfinite(points).all(1)
        if not finite.any():
            print_log(
                f'FeatureScatterHook: no embedding is finite after {self._unit} {time}, '
                'nothing to draw',
                'current',
                logging.WARNING,
            )
            return
        title = f'{finite.sum():,} embeddings after {self._unit} {time}'
        if not finite.all():
            title += f'; {(~finite).sum():,} are not finite'
        points, labels = points[finite], labels[finite]
        as_they_are = points.shape[1] == 2 and self.projection == 'auto'
        if not as_they_are:
            points, share = self._project(points, self._folder(runner))
            title += f' ({share:.0%} of their variance)'
        scatter = Scatter(
            points,
            labels,
            chosen.names,
            chosen.unseen,
            _centres(model, chosen) if as_they_are else {},
        )
        picture = draw_scatter(scatter, title, around_zero=as_they_are)
        path = self._folder(runner) / self._file_name(time)
        write_picture(picture, path)
        self._frames = [frame for frame in self._frames if frame != path] + [path]
        runner.visualizer.add_image('scatter', picture, step=time)
        self._drawn_at = time

    def _project(self, points: np.ndarray, folder: Path) -> tuple[np.ndarray, float]:
        """Coordinates in the view, and the share of the variance that it shows."""
        if (
            self.projection == 'pca_each'
            or self._view is None
            or (self._view.axes.shape[1] != points.shape[1])
        ):
            self._view = fit_projection(points)
            if self.projection != 'pca_each':
                with whole_file(folder / _VIEW) as part, part.open('wb') as file:
                    np.savez(
                        file, mean=self._view.mean, axes=self._view.axes, share=self._view.share
                    )
        flat = self._view(points)
        total = float(points.var(0, dtype=np.float64).sum())
        return flat, float(flat.var(0).sum() / total) if total else 1.0


def _class_names(dataset: Any) -> list[str] | None:
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return None if classes is None else [str(name) for name in classes]


def _labelled_sample(dataset: Any, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of pictures, in an order drawn with the seed, and their labels.

    Raises:
        ValueError: if there is no picture, or none has a label.
    """
    index = np.random.default_rng(seed).permutation(len(dataset))
    if hasattr(dataset, 'get_gt_labels'):
        labels = np.asarray(dataset.get_gt_labels())[index]
    else:
        index = index[:most]
        found = [dataset.get_data_info(int(place)).get('gt_label') for place in index]
        labels = np.array([-1 if label is None else int(label) for label in found], np.int64)
    known = labels >= 0
    if not known.any():
        raise ValueError(
            f'of the {len(dataset)} pictures of {type(dataset).__name__} none has a gt_label: '
            'choose another dataset for FeatureScatterHook'
        )
    return index[known], labels[known]


@torch.no_grad()
def embeddings_of(
    model: nn.Module, dataset: Any, index: Sequence[int], batch: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, D) and labels (N,) of pictures, as the model gives them at test.

    Args:
        model: not wrapped, in evaluation mode.
        dataset: of the pictures.
        index: places of the pictures in it.
        batch: pictures at a time.

    Raises:
        ValueError: if the model writes no ``embedding``.
    """
    points, labels = [], []
    for start in range(0, len(index), batch):
        data = pseudo_collate([dataset[place] for place in index[start : start + batch]])
        for sample in model.test_step(data):  # type: ignore[operator]
            if 'embedding' not in sample:
                raise ValueError(
                    f'{type(model).__name__} wrote no embedding onto its data samples: '
                    "FeatureScatterHook wants head=dict(type='mmdet_ext.MarginHead', ...)"
                )
            points.append(sample.embedding.float().cpu().numpy())
            labels.append(int(sample.gt_label))
    return np.stack(points), np.array(labels, np.int64)


def _centres(model: nn.Module, chosen: _Chosen) -> dict[int, np.ndarray]:
    """Centres of the classes drawn, where the head has any and they have two numbers."""
    head = getattr(model, 'head', None)
    if not isinstance(head, MarginHead) or head.margin is None or head.weight.shape[1] != 2:
        return {}
    table = head.weight.detach().float().cpu().numpy().reshape(head.num_classes, -1, 2)
    return {label: table[place] for label, place in chosen.centre_of.items() if place < len(table)}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Afterwards the random numbers of Python, numpy and torch go on as if nothing had been."""
    python, arrays, processor = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(processor)
        if accelerator is not None:
            torch.cuda.set_rng_state(accelerator)


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
