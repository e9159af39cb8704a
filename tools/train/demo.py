"""Train a small detector, test it, and draw how it went: on made-up shapes or on your own data.

    python tools/train/demo.py
    python tools/train/demo.py --data FOLDER        (COCO or Pascal VOC layout)

Runs ``mim train mmdet`` and ``mim test mmdet`` as anyone would type them, then writes
detections.png, loss_curve.png, precision_recall.png and report.json to the work directory. Nothing
is written into FOLDER.
"""

from __future__ import annotations

import argparse
import math
import os
import pprint
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmdet_ext.analysis.run_report import Evaluation, ReportError
from mmdet_ext.data.coco.annotations import (
    is_number,
    load_coco,
    number_categories,
    repeated_names,
    usable_annotations,
)
from mmdet_ext.data.coco.folders import CocoSplit, VocLayout, find_layout
from mmdet_ext.data.coco.voc import convert_voc
from mmdet_ext.data.coco.voc_folder import VocError
from mmdet_ext.data.images import find_bad_images
from mmdet_ext.data.reports import LayoutError
from mmdet_ext.data.synthetic.shape_scenes import ShapesError
from mmdet_ext.data.synthetic.shapes import make_shapes
from mmdet_ext.utils.files import write_json, write_text
from mmdet_ext.utils.mim import MimError, run_mim, shown

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / 'configs' / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'
# The set that the config is made for; data of the user's is given as many pictures' worth of time.
SHAPES_TRAIN, SHAPES_VAL = 240, 60
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Subset:
    """Contents of a COCO file, and the folder of its pictures."""

    coco: dict[str, Any]
    image_dir: Path

    def limited(self, count: int, seed: int) -> Subset:
        """At most ``count`` of the pictures, drawn with the seed, in their order."""
        images = self.coco['images']
        if len(images) <= count:
            return self
        chosen = sorted(random.Random(seed).sample(range(len(images)), count))
        return self.only({images[index]['id'] for index in chosen})

    def only(self, ids: set[int]) -> Subset:
        """The pictures of the given ids with their boxes."""
        images = [image for image in self.coco['images'] if image['id'] in ids]
        boxes = [box for box in self.coco['annotations'] if box['image_id'] in ids]
        return Subset({**self.coco, 'images': images, 'annotations': boxes}, self.image_dir)


@dataclass(frozen=True)
class OwnData:
    """The user's data, ready to train on."""

    train: Subset
    test: Subset
    classes: tuple[str, ...]


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns 0, 1 if training or testing failed, or 2 for bad input."""
    args = _parse(argv)
    start = time.monotonic()
    work_dir = args.work_dir.expanduser().resolve()
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        if args.data is None:
            config = shapes_config()
        else:
            data = read_data(args.data, work_dir / 'data', args.seed)
            config = write_config(data, work_dir, args.seed)
        checkpoint = train(config, work_dir, args.seed, args.cfg_options)
        predictions = test(config, checkpoint, work_dir, args.cfg_options)
        report(config, checkpoint, predictions, work_dir)
    except (LayoutError, VocError, ShapesError, ReportError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except MimError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    seconds = round(time.monotonic() - start)
    print(f'Done in {seconds // 60} min {seconds % 60} s.')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, help='folder of your own; default: shapes are made')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='handed on to mim train and mim test, e.g. train_cfg.max_epochs=2',
    )
    return parser.parse_args(argv)


def shapes_config() -> Path:
    """Make the set of shapes where the demo's config looks for it, unless it is there already.

    Returns:
        Path of the config.

    Raises:
        ShapesError: If the folder holds something else.
    """
    folder = Path(_read_config(CONFIG).train_dataloader.dataset.data_root)
    ann_files = [REPO / folder / 'annotations' / f'instances_{s}.json' for s in ('train', 'val')]
    if all(path.is_file() for path in ann_files):
        print(f'Data: {folder}, made before.')
    else:
        print(f'Data: making {SHAPES_TRAIN} + {SHAPES_VAL} pictures of shapes in {folder}.')
        make_shapes(REPO / folder, train=SHAPES_TRAIN, val=SHAPES_VAL)
    return CONFIG


def read_data(folder: Path, out_dir: Path, seed: int) -> OwnData:
    """Read a folder of detection data, converting and splitting it where that is needed.

    Args:
        folder: The user's folder, COCO or Pascal VOC.
        out_dir: Where converted annotations go.
        seed: Of the 80/20 split that is made where the folder holds one set alone.

    Returns:
        Train and test set without unreadable pictures, and the classes that have boxes; these are
        the categories of both sets, with ids from 1 on.

    Raises:
        LayoutError: If the folder is not of a known layout, holds no boxes, or has a picture or
            category that cannot be used. Annotations that cannot be used are left out and counted.
        VocError: If it is of VOC layout but cannot be converted.
    """
    layout = find_layout(folder)
    print(f'Data: {layout.root}, recognised as {layout.kind.upper()} layout.')
    splits = (
        _voc_splits(layout, out_dir, seed)
        if isinstance(layout, VocLayout)
        else [split for split in (layout.train, layout.test) if split]
    )
    subsets = [_usable(split) for split in splits]
    if len(subsets) == 1:
        ids = [image['id'] for image in subsets[0].coco['images']]
        held_out = set(random.Random(seed).sample(ids, math.ceil(TEST_SHARE * len(ids))))
        print(f'  one set alone: {len(held_out)} of {len(ids)} pictures are held out for the test')
        subsets = [subsets[0].only(set(ids) - held_out), subsets[0].only(held_out)]
    train_set, test_set = subsets
    classes = _classes(train_set, test_set)
    return OwnData(
        _numbered('train', train_set, classes), _numbered('test', test_set, classes), classes
    )


def _voc_splits(layout: VocLayout, out_dir: Path, seed: int) -> list[CocoSplit]:
    names = [name for name in (layout.train, layout.test) if name]
    reports = convert_voc(layout.root, out_dir, splits=names, seed=seed)
    for item in reports:
        print(item.table())
    return [CocoSplit(item.path, layout.root / 'JPEGImages') for item in reports]


def _usable(split: CocoSplit) -> Subset:
    """Read a split without the pictures and annotations that cannot be used, which are counted.

    Boxes are given what COCO's evaluation needs: ids from 1 (it takes 0 for "no match"), an area.
    """
    coco = load_coco(split.ann_file)
    coco['annotations'], dropped = usable_annotations(coco)
    if dropped:
        print(f'  {split.ann_file.name}: annotations left out: {dropped}')
    for name, ids in repeated_names(coco).items():
        print(f'  {split.ann_file.name}: categories {ids}, all named {name!r}, are taken as one')
    for number, box in enumerate(coco['annotations'], start=1):
        box.update(id=number, iscrowd=int(box.get('iscrowd') in (1, '1')))
        if not is_number(box.get('area')):
            box['area'] = box['bbox'][2] * box['bbox'][3]
    bad = find_bad_images(split.image_dir / image['file_name'] for image in coco['images'])
    for path, problem in list(bad.items())[:5]:
        print(f'  left out: {path}: {problem}')
    readable = {
        image['id'] for image in coco['images'] if split.image_dir / image['file_name'] not in bad
    }
    print(f'  {split.ann_file.name}: {len(readable)} pictures, {len(bad)} left out as unreadable')
    return Subset(coco, split.image_dir).only(readable)


def _classes(train_set: Subset, test_set: Subset) -> tuple[str, ...]:
    """Classes with boxes to train on, in the order of the annotations; says which have none."""
    counts: list[Counter[str]] = []
    for subset in (train_set, test_set):
        names = {entry['id']: entry['name'] for entry in subset.coco['categories']}
        boxes = [box for box in subset.coco['annotations'] if min(box['bbox'][2:]) > 0]
        counts.append(Counter(names[box['category_id']] for box in boxes))
    names_in_order = dict.fromkeys(entry['name'] for entry in train_set.coco['categories'])
    classes = tuple(name for name in names_in_order if counts[0][name])
    for which, count in zip(('train', 'test'), counts, strict=True):
        if not any(count[name] for name in classes):
            raise LayoutError(
                f'no boxes in the {which} set: classes {list(names_in_order)}, boxes {dict(count)}'
            )
    unused = [name for name in names_in_order if name not in classes]
    print(f'  classes: {", ".join(classes)}' + (f'; without boxes: {unused}' if unused else ''))
    return classes


def _numbered(which: str, subset: Subset, classes: tuple[str, ...]) -> Subset:
    """The subset with the classes as its categories; says which boxes that leaves out."""
    coco, left_out = number_categories(subset.coco, classes)
    if left_out:
        print(f'  {which} set: boxes of classes left out: {dict(left_out)}')
    return replace(subset, coco=coco)


def write_config(data: OwnData, work_dir: Path, seed: int) -> Path:
    """Write a config: the demo's, with the data, classes and length of this run.

    It goes to data/config.py, because the runner writes the whole config to config.py.

    Args:
        data: The user's data.
        work_dir: Where data/config.py and data/{train,test}.json go.
        seed: Draws the pictures where there are more than the demo has time for.

    Returns:
        Path of the config.
    """
    base = _read_config(CONFIG)
    old, interval = base.train_cfg.max_epochs, base.train_cfg.get('val_interval', 1)
    seen, looked = old * SHAPES_TRAIN, (old // interval + 1) * SHAPES_VAL
    train_set = data.train.limited(seen, seed)
    test_set = data.test.limited(looked // 2, seed)
    train_count, test_count = len(train_set.coco['images']), len(test_set.coco['images'])
    epochs = max(1, round(seen / train_count))
    every = math.ceil(epochs / max(1, looked // test_count - 1))
    shrunk = ' x '.join(map(str, _training_size(base)))
    print(
        f'  trains on {train_count} of {len(data.train.coco["images"])} pictures for {epochs} '
        f'epochs, tests on {test_count} of {len(data.test.coco["images"])}, all at {shrunk}: a '
        'few minutes of training, not the best your data can give'
    )
    out_dir = work_dir / 'data'
    settings = {
        'model': {'bbox_head': {'num_classes': len(data.classes)}},
        **_data_settings('train', 'train.json', train_set, data.classes, out_dir),
        **_data_settings('val', 'test.json', test_set, data.classes, out_dir),
        **_data_settings('test', 'test.json', test_set, data.classes, out_dir),
        'train_cfg': {'max_epochs': epochs, 'val_interval': every},
        'default_hooks': {'checkpoint': {'interval': every}},
        'param_scheduler': [_stretched(item, epochs / old) for item in base.param_scheduler],
    }
    lines = ['# Written by tools/train/demo.py.', f'_base_ = {str(CONFIG)!r}']
    lines += [f'{key} = {pprint.pformat(value)}' for key, value in settings.items()]
    path = out_dir / 'config.py'
    write_text(path, '\n'.join(lines) + '\n')
    return path


def _data_settings(
    which: str, ann_name: str, subset: Subset, classes: tuple[str, ...], out_dir: Path
) -> dict[str, Any]:
    write_json(out_dir / ann_name, subset.coco)
    dataset = {
        'data_root': str(out_dir),
        'ann_file': ann_name,
        'data_prefix': {'img': str(subset.image_dir)},
        'metainfo': {'_delete_': True, 'classes': classes},
    }
    settings: dict[str, Any] = {f'{which}_dataloader': {'dataset': dataset}}
    if which != 'train':
        settings[f'{which}_evaluator'] = {'ann_file': str(out_dir / ann_name)}
    return settings


def _training_size(config: Any) -> tuple[int, int]:
    pipeline = config.train_dataloader.dataset.pipeline
    return next(step['scale'] for step in pipeline if step['type'] == 'Resize')


def _stretched(scheduler: dict[str, Any], factor: float) -> dict[str, Any]:
    """A learning-rate schedule by epoch, stretched to another number of epochs."""
    item = dict(scheduler)
    if not item.get('by_epoch', True):
        return item
    if 'milestones' in item:
        item['milestones'] = [round(step * factor) for step in item['milestones']]
    for key in ('begin', 'end', 'T_max'):
        if item.get(key):
            # Counted in iterations later on, parts of an epoch are fine; otherwise they are not.
            length = item[key] * factor
            item[key] = length if item.get('convert_to_iter_based') else max(1, round(length))
    return item


def train(config: Path, work_dir: Path, seed: int, options: list[str]) -> Path:
    """Run ``mim train mmdet``; returns the last checkpoint."""
    run_mim(
        'train',
        config,
        '--work-dir',
        work_dir,
        '--cfg-options',
        f'randomness.seed={seed}',
        *options,
        cwd=REPO,
    )
    return Path((work_dir / 'last_checkpoint').read_text(encoding='utf-8').strip())


def test(config: Path, checkpoint: Path, work_dir: Path, options: list[str]) -> Path:
    """Run ``mim test mmdet``, which prints the COCO table; returns the json of detections."""
    prefix = shown(work_dir / 'test', REPO)
    run_mim(
        'test',
        config,
        '--checkpoint',
        checkpoint,
        '--work-dir',
        work_dir,
        '--cfg-options',
        f'test_evaluator.outfile_prefix={prefix}',
        'test_evaluator.classwise=True',
        *options,
        cwd=REPO,
    )
    return work_dir / 'test.bbox.json'


def report(config: Path, checkpoint: Path, predictions: Path, work_dir: Path) -> None:
    """Draw the pictures, write report.json, and print the figures."""
    from mmdet_ext.analysis.run_report import evaluate, find_scalars, read_scalars
    from mmdet_ext.plots.runs import write_report

    dataset = _read_config(config).test_dataloader.dataset
    root = os.path.join(REPO, dataset.data_root)
    evaluation = evaluate(
        Path(root, dataset.ann_file), predictions, classes=dataset.metainfo.classes
    )
    about = {'config': shown(config, REPO), 'checkpoint': shown(checkpoint, REPO)}
    curve = read_scalars(find_scalars(work_dir))
    files = write_report(work_dir, curve, evaluation, Path(root, dataset.data_prefix.img), about)
    print(_table(evaluation))
    for path in files:
        print(f'  {shown(path, REPO)}')


def _table(evaluation: Evaluation) -> str:
    width = max(len(result.name) for result in evaluation.classes)
    threshold = f'at score >= {evaluation.score_thr:g} and IoU 0.5'
    lines = [
        f'\nTest set: {len(evaluation.images)} pictures, mAP {evaluation.mean("ap"):.3f}, '
        f'AP50 {evaluation.mean("ap50"):.3f}, AP75 {evaluation.mean("ap75"):.3f}',
        f'  {"class":<{width}}  boxes     AP   AP50  precision  recall  ({threshold})',
    ]
    lines += [
        f'  {item.name:<{width}}  {item.boxes:>5}  {item.ap:.3f}  {item.ap50:.3f}'
        f'  {item.precision:>9.3f}  {item.recall:>6.3f}'
        for item in evaluation.classes
    ]
    return '\n'.join([*lines, 'Pictures and figures:'])


def _read_config(path: Path) -> Any:
    from mmengine.config import Config

    return Config.fromfile(path)


if __name__ == '__main__':
    sys.exit(main())
