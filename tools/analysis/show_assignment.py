"""Draw which priors belong to which box, for any assigner of a config, stock's too.

    python tools/analysis/show_assignment.py CONFIG --out DIR
    python tools/analysis/show_assignment.py CONFIG --checkpoint x.pth --images 0 7 a.jpg --out DIR
    python tools/analysis/show_assignment.py CONFIG --versus OTHER_CONFIG --out DIR

A picture each, a panel a pyramid level: dots are priors in the colour of their box (of proposals or
predicted boxes, where these are assigned, the centres), grey crosses are ignored ones, a dashed box
has none. With --versus the other config's assignment stands below.

Pictures are those of the config's training data (--split), by number, file name or path, as its
network sees them, but for random changes. Assigners that go by predictions show what an untrained
network gets, unless there is a checkpoint; rules that change while training (TOOD) show the last
epoch's, unless there is an --epoch. Writes a PNG a picture, called as the picture, with its folders
where others are called alike, and counts.json.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.runner import load_checkpoint

from mmdet_ext.data.coco.image_names import choose_images, image_names, image_places
from mmdet_ext.data.images import image_problem
from mmdet_ext.detection.datasets.plain import plain_dataset
from mmdet_ext.detection.inspection.record import (
    AssignmentRecord,
    NoPlaceError,
    recorded_assignments,
)
from mmdet_ext.plots.assignments import LevelAssignment, PictureAssignment, draw_assignments
from mmdet_ext.utils.files import write_json


class ShowError(Exception):
    """Something that the user gave does not work; the message says what to do."""


def main(argv: list[str] | None = None) -> int:
    """Draw; returns 0, or 2 for bad input."""
    args = _parse(argv)
    register_all_modules()
    try:
        _check(args)
        with _quiet():
            show(args)
    except ShowError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path)
    parser.add_argument('--checkpoint', type=Path, help='weights of the config')
    parser.add_argument('--versus', type=Path, metavar='CONFIG', help='to set below')
    parser.add_argument('--versus-checkpoint', type=Path, help='its weights')
    parser.add_argument(
        '--images',
        nargs='+',
        default=[],
        metavar='WHICH',
        help='numbers, names or paths; default: the first --count',
    )
    parser.add_argument('--count', type=int, default=4)
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--epoch', type=int, help='from 1; default: the last of the config')
    parser.add_argument('--out', type=Path, required=True, help='folder')
    parser.add_argument('--seed', type=int, default=0, help='of untrained weights and of samplers')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='to set in the config, and in that of --versus',
    )
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    for name in ('count', 'epoch'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ShowError(f'--{name} must be 1 or more, got {value}')
    if args.versus_checkpoint and not args.versus:
        raise ShowError('--versus-checkpoint is of the config of --versus, which is not given')
    if args.out.exists() and not args.out.is_dir():
        raise ShowError(f'--out {args.out} is a file; give a folder')


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a line for each weight that is initialised."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def show(args: argparse.Namespace) -> None:
    """Draw the pictures that the options name, and write their counts.

    Raises:
        ShowError: if something that the user gave does not work.
    """
    configs = [read_config(path, args.cfg_options) for path in (args.config, args.versus) if path]
    names = [path.stem for path in (args.config, args.versus) if path]
    if len(set(names)) < len(names):
        names[1] += ' (--versus)'
    sides = [
        load_side(name, config, checkpoint, args)
        for name, config, checkpoint in zip(
            names, configs, (args.checkpoint, args.versus_checkpoint), strict=False
        )
    ]
    paths = sides[0].paths
    try:
        chosen = choose_images(paths, args.images) or range(min(args.count, len(paths)))
    except ValueError as error:
        raise ShowError(f'--images {error}') from error
    pictures = {}
    for index, name in image_names(paths, chosen).items():
        shown = [side.look(paths[index], args.seed) for side in sides]
        rows = [row for _, rows_of_side in shown for row in rows_of_side]
        images = [image for image, rows_of_side in shown for _ in rows_of_side]
        pictures[name] = [row.counts() for row in rows]
        with _writing(args.out):
            draw_assignments(images, rows, args.out / f'{name}.png')
        _report(args.out / f'{name}.png', sides, shown)
    with _writing(args.out):
        write_json(args.out / 'counts.json', {'pictures': pictures})


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ShowError(f'cannot write to --out {out}: {error}') from error


def _report(path: Path, sides: Sequence[Side], shown: Sequence[Any]) -> None:
    print(path)
    for row in [row.counts() for _, rows in shown for row in rows]:
        title = row['title'].replace('\n', ', ')
        print(
            f'  {title}: {row["positive"]:,} of {row["priors"]:,} priors positive, '
            f'{row["ignored"]:,} ignored, {row["boxes_without_prior"]} of '
            f'{row["boxes"]} boxes without'
        )
    sights = [
        f'{image.shape[1]} x {image.shape[0]} px and {len(rows[0].boxes)} boxes'
        for image, rows in shown
    ]
    if len(set(sights)) > 1:
        print(
            '  each as its own config prepares the picture: '
            + ', '.join(f'{side.name} {sight}' for side, sight in zip(sides, sights, strict=True))
        )


def read_config(path: Path, options: Sequence[str] = ()) -> Config:
    """A config, with options of the form KEY=VALUE set as MMEngine's tools set them.

    Raises:
        ShowError: if there is none, it cannot be read, or an option does not fit.
    """
    if not path.is_file():
        raise ShowError(f'no such config: {path}')
    for option in options:
        if '=' not in option:
            raise ShowError(f'--cfg-options {option!r} is not KEY=VALUE')
    with _explained(f'cannot read the config {path}'):
        config = Config.fromfile(path)
    with _explained(f'cannot set --cfg-options {" ".join(options)} in {path}'):
        parsed = argparse.Namespace(options={})
        DictAction([], 'options')(argparse.ArgumentParser(), parsed, list(options))
        config.merge_from_dict(parsed.options)
    return config


@contextmanager
def _explained(what: str, with_place: bool = False) -> Iterator[None]:
    """Any error in one line: configs, data and detectors run code of all kinds.

    Args:
        what: did not work.
        with_place: whether to name the line of code, for errors that say little by themselves.
    """
    try:
        yield
    except ShowError:
        raise
    except Exception as error:
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        if not isinstance(error, (OSError, ValueError)) or not text:
            text = f'{type(error).__name__}: {text}'
        text = ' '.join(text.split())
        if with_place:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text += f' ({Path(place.filename).name}, line {place.lineno})'
        raise ShowError(f'{what}: {text}') from error


@dataclass(frozen=True)
class Side:
    """One config: its pictures, prepared as it prepares them, and its detector.

    Attributes:
        name: for titles.
        dataset: its data.
        paths: of the pictures, in the order of the data.
        model: the detector.
        epoch: from 0, for rules that change while training.
    """

    name: str
    dataset: Any
    paths: list[str]
    model: Any
    epoch: int

    def look(self, path: str, seed: int) -> tuple[np.ndarray, list[PictureAssignment]]:
        """A picture (H, W, 3), RGB, as the network sees it, and what each assigner does with it.

        Args:
            path: as in the data.
            seed: of samplers.

        Raises:
            ShowError: if there is no such picture, it is broken, or nothing is assigned in it.
        """
        index = image_places(self.paths).get(os.path.abspath(path))
        if index is None:
            raise ShowError(f'{self.name} does not have the picture {path} in its data')
        problem = image_problem(path) if os.path.exists(path) else None
        if problem:
            raise ShowError(f'cannot read the picture {path}: {problem}')
        with _explained(f'{self.name} cannot load the picture {path}'):
            sample = self.dataset[index]
        image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
        hub = MessageHub.get_current_instance()  # where a runner would tell the epoch
        with patch.dict(hub.runtime_info, epoch=self.epoch, iter=0):
            torch.manual_seed(seed)
            np.random.seed(seed)
            return np.ascontiguousarray(image), assignments(self.model, sample, self.name)


def load_side(name: str, config: Config, checkpoint: Path | None, args: argparse.Namespace) -> Side:
    """Data and detector of a config.

    Raises:
        ShowError: if one of them cannot be made, or the checkpoint does not fit.
    """
    with _explained(f'cannot read the {args.split} data of {name}'):
        dataset = plain_dataset(config, args.split)
        paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    if not paths:
        raise ShowError(f'the {args.split} data of {name} has no pictures')
    model = build_model(name, config, args.seed)
    if checkpoint is not None:
        load_weights(model, name, checkpoint)
    # A loop that counts iterations stays in epoch 0.
    last = (config.get('train_cfg') or {}).get('max_epochs') or 1
    return Side(name, dataset, paths, model, (args.epoch or last) - 1)


def build_model(name: str, config: Config, seed: int) -> Any:
    """The detector, with untrained weights of a seed.

    Raises:
        ShowError: if it cannot be built.
    """
    torch.manual_seed(seed)
    if not config.get('model'):
        raise ShowError(f'the config {name} has no model')
    for part in (config.model, config.model.get('backbone') or {}):
        if (part.get('init_cfg') or {}).get('type') == 'Pretrained':
            part['init_cfg'] = None  # nothing is downloaded
    with _explained(f'cannot build the model of {name}'):
        model = MODELS.build(config.model)
        model.init_weights()
    return model.train()


def load_weights(model: Any, name: str, path: Path) -> None:
    """Load a checkpoint, and warn where it does not have all.

    Raises:
        ShowError: if it is none, or has no weight of this model.
    """
    if not path.is_file():
        raise ShowError(f'no such checkpoint: {path}')
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    with _explained(f'cannot load the checkpoint {path}'):
        loaded = load_checkpoint(model, str(path), map_location='cpu', logger='silent')
        given = loaded.get('state_dict', loaded)
        shapes = {k.removeprefix('module.'): getattr(v, 'shape', None) for k, v in given.items()}
    fitting = sum(shapes.get(key) == shape for key, shape in wanted.items())
    if not fitting:
        raise ShowError(
            f'the checkpoint {path} has none of the {len(wanted)} weights of {name}: it is of '
            f'another model. Its first are {", ".join(list(shapes)[:3]) or "none"}; wanted are '
            f'{", ".join(list(wanted)[:3])}'
        )
    if fitting < len(wanted):
        print(
            f'warning: the checkpoint {path} has {fitting} of the {len(wanted)} weights of '
            f'{name}; the others are untrained',
            file=sys.stderr,
        )


def assignments(model: Any, sample: dict[str, Any], config: str) -> list[PictureAssignment]:
    """What each assigner of a model does with one picture.

    Raises:
        ShowError: if the model has no assigner, or none of priors or boxes.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()  # one picture's statistics would spoil the predictions
    with (
        _explained(f'{config} cannot compute its loss of the picture', with_place=True),
        recorded_assignments(model) as records,
        torch.no_grad(),
    ):
        data = model.data_preprocessor(pseudo_collate([sample]), training=False)
        try:
            model.loss(data['inputs'], data['data_samples'])
        except NoPlaceError as error:
            raise ShowError(f'{config} cannot be drawn: {error}') from error
    if not records:
        raise ShowError(
            f'{config} has no assigner to look on at: stock heads like FCOSHead assign by '
            "themselves. Set the head's type to ours, such as mmdet_ext.FCOSHead"
        )
    titles = [_title(record, config) for record in records]
    return [
        _as_picture(record, title + _which(titles, number))
        for number, (record, title) in enumerate(zip(records, titles, strict=True))
    ]


def _title(record: AssignmentRecord, config: str) -> str:
    where = '' if record.head == 'bbox_head' else f' in {record.head}'
    what = '' if record.places == 'priors' else f'\n{record.places}'
    return f'{config}\n{record.assigner}{where}{what}'


def _which(titles: Sequence[str], number: int) -> str:
    """Which of those of the same title, such as the stages of Cascade R-CNN, one is."""
    times = titles.count(titles[number])
    return f', {titles[:number].count(titles[number]) + 1} of {times}' if times > 1 else ''


def _as_picture(record: AssignmentRecord, title: str) -> PictureAssignment:
    levels = int(record.level.max()) + 1 if len(record.level) else 1
    return PictureAssignment(
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


if __name__ == '__main__':
    sys.exit(main())
