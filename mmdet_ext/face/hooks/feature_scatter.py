"""Hook that draws embeddings during training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from mmdet_ext.engine.loops import check_counts_epochs, unwrapped
from mmdet_ext.face.embeddings import (
    embeddings_of,
    evaluating,
    seed_all,
    untouched_random_state,
)
from mmdet_ext.face.heads.margin_head import MarginHead
from mmdet_ext.functional.numerics.checks import check_one_of, check_that, check_whole
from mmdet_ext.plots.projection import Projection, fit_projection
from mmdet_ext.plots.raster import write_animation, write_image
from mmdet_ext.plots.scatter import Scatter, draw_scatter
from mmdet_ext.registry import DATASETS, HOOKS
from mmdet_ext.utils.files import whole_file

Projecting = Literal['auto', 'pca', 'pca_each']
_PARTS = ('train', 'val', 'test')
# Number of images whose labels are read, per image that is drawn.
_LOOKED_AT = 20
_VIEW = 'projection.npz'


@dataclass(frozen=True)
class _Chosen:
    """Images to draw.

    Attributes:
        dataset: their data set.
        index: their indices in it, ascending.
        names: names of the classes, by label.
        unseen: labels of classes that are not in training.
        center_of: label -> class of training.
    """

    dataset: Any
    index: list[int]
    names: list[str]
    unseen: frozenset[int]
    center_of: dict[int, int]


@HOOKS.register_module()
class FeatureScatterHook(Hook):  # type: ignore[misc]
    """Hook that draws embeddings as points in the plane, with one colour per class.

    It draws the same images before training, after every ``interval`` epochs, and at the end. Each
    plot is written to ``out_dir``, as ``epoch_000005.png``, and passed to the runner's visualizer
    as 'scatter'. At the end all plots become ``scatter.gif``.

    Embeddings of two numbers are drawn unchanged, with the centres of the head as rays. Longer
    embeddings are projected to the two directions in which they spread most. Classes that were not
    in training are crosses. They are recognised by their names if both data sets have ``classes``,
    and otherwise by labels from the head's ``num_classes`` on.

    Training is not affected: the modes of modules and the random state are restored. Only the main
    process draws.

    Args:
        interval: epochs, or steps, between two plots, at least 1.
        max_samples: largest number of images.
        dataset: 'train', 'val' or 'test' for the data set of that loader, or the config of a data
            set. It must return the inputs of the model's ``data_preprocessor``, with ``gt_label``.
        out_dir: folder for the plots; None for ``scatter`` in the runner's work folder.
        animation: whether to write ``scatter.gif``.
        projection: 'auto' and 'pca' fit the projection to the first plot and keep it, in
            ``projection.npz`` for resumed training, so that all plots show one view. 'pca'
            projects embeddings of two numbers too. 'pca_each' fits each plot anew, which shows
            more where the view of the untrained network is a poor one.
        max_classes: largest number of classes; those with most images are kept.
        by_epoch: whether ``interval`` counts epochs instead of steps.
        seed: seed of the choice of images, and of random steps in the pipeline of the data set.

    Raises:
        ValueError: if an option is out of range. Before training: if the chosen loader is absent,
            or none of its images has a ``gt_label``.
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
        holds = not isinstance(dataset, str) or dataset in _PARTS
        check_that(holds, 'dataset', dataset, f'one of {_PARTS} or a config')
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
        """Choose the images, and draw their embeddings by the untrained network."""
        if self.by_epoch:
            check_counts_epochs(runner)
        with untouched_random_state():
            # Every process chooses, so that an error stops all of them.
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
        """Continue the plots in the folder, as training was resumed after ``done`` epochs."""
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
        """Draw every ``interval`` epochs."""
        # The loop counts an epoch, or a step, after its hooks have run.
        if self.by_epoch and is_main_process() and (runner.epoch + 1) % self.interval == 0:
            self._draw(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Draw every ``interval`` steps, unless by epochs."""
        if not self.by_epoch and is_main_process() and (runner.iter + 1) % self.interval == 0:
            self._draw(runner, runner.iter + 1)

    def after_train(self, runner: Any) -> None:
        """Draw the trained network's embeddings, and write the animation."""
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
        """Return the number of epochs, or steps, that are over."""
        return int(runner.epoch if self.by_epoch else runner.iter)

    def _folder(self, runner: Any) -> Path:
        return self.out_dir if self.out_dir is not None else Path(runner.work_dir) / 'scatter'

    def _choose(self, runner: Any) -> _Chosen:
        """Choose the images to draw: the classes with most images, and a sample of these."""
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
            center_of = {label: place[name] for label, name in enumerate(names) if name in place}
        else:
            head = getattr(unwrapped(runner.model), 'head', None)
            center_of = {
                label: label for label in range(min(count, getattr(head, 'num_classes', count)))
            }
        full = [str(label) for label in range(count)]
        full[: len(names or ())] = names or ()
        return _Chosen(
            dataset, index.tolist(), full, frozenset(range(count)) - set(center_of), center_of
        )

    def _find_dataset(self, runner: Any) -> Any:
        """Return the data set of the option ``dataset``."""
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
        """Draw the embeddings of the chosen images after ``time`` epochs, or steps."""
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
            _centers(model, chosen) if as_they_are else {},
        )
        image = draw_scatter(scatter, title, around_zero=as_they_are)
        path = self._folder(runner) / self._file_name(time)
        write_image(image, path)
        self._frames = [frame for frame in self._frames if frame != path] + [path]
        runner.visualizer.add_image('scatter', image, step=time)
        self._drawn_at = time

    def _project(self, points: np.ndarray, folder: Path) -> tuple[np.ndarray, float]:
        """Return coordinates in the plane, and the share of the variance that they keep."""
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
    """Return the names of the classes of a data set, None if it has none."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return None if classes is None else [str(name) for name in classes]


def _labelled_sample(dataset: Any, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of images in a random order drawn with the seed, and their labels.

    Args:
        dataset: data set of the images.
        most: largest number of images whose entries are read. A data set with ``get_gt_labels``
            has all labels at hand.
        seed: seed of the order.

    Raises:
        ValueError: if the data set is empty, or no image has a label.
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
            f'of the {len(dataset)} images of {type(dataset).__name__} none has a gt_label: '
            'choose another dataset for FeatureScatterHook'
        )
    return index[known], labels[known]


def _centers(model: nn.Module, chosen: _Chosen) -> dict[int, np.ndarray]:
    """Return the centres of the drawn classes, if the head has centres of two numbers."""
    head = getattr(model, 'head', None)
    if not isinstance(head, MarginHead) or head.margin is None or head.weight.shape[1] != 2:
        return {}
    table = head.weight.detach().float().cpu().numpy().reshape(head.num_classes, -1, 2)
    return {label: table[place] for label, place in chosen.center_of.items() if place < len(table)}
