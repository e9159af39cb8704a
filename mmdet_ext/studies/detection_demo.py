"""Steps of the detection demo: config, training, test and report.

Hosts are imported only where they are used, so that the demo refuses wrong data at once.
"""

from __future__ import annotations

import math
import os
import pprint
from pathlib import Path
from typing import Any

from mmdet_ext.analysis.run_report import Evaluation, evaluate, find_scalars, read_scalars
from mmdet_ext.data.coco.training_sets import Subset, TrainingSets
from mmdet_ext.data.synthetic.shapes import make_shapes
from mmdet_ext.plots.runs import write_report
from mmdet_ext.utils.files import write_json, write_text
from mmdet_ext.utils.mim import run_mim, shown

#: Numbers of training and test images that the demo's config is made for. The user's data is given
#: the time of as many images.
SHAPES_TRAIN, SHAPES_VAL = 240, 60


def provide_shapes(config: Path, root: Path) -> None:
    """Make the set of shapes that the demo's config names, unless it exists.

    Args:
        config: The demo's config.
        root: Folder that the data root of the config is relative to.

    Raises:
        ShapesError: If the folder of the set holds something else.
    """
    folder = Path(_read_config(config).train_dataloader.dataset.data_root)
    ann_files = [root / folder / 'annotations' / f'instances_{s}.json' for s in ('train', 'val')]
    if all(path.is_file() for path in ann_files):
        print(f'Data: {folder}, made before.')
    else:
        print(f'Data: making {SHAPES_TRAIN} + {SHAPES_VAL} images of shapes in {folder}.')
        make_shapes(root / folder, train=SHAPES_TRAIN, val=SHAPES_VAL)


def write_config(base_file: Path, data: TrainingSets, work_dir: Path, seed: int) -> Path:
    """Write a config with the data, classes and length of this run, based on the demo's config.

    It goes to data/config.py, because the runner writes the whole config to ``work_dir/config.py``.

    Args:
        base_file: The demo's config.
        data: The user's data.
        work_dir: Folder of data/config.py and data/{train,test}.json.
        seed: Seed that draws the images if there are more than the demo has time for.

    Returns:
        Path of the config.
    """
    base = _read_config(base_file)
    old, interval = base.train_cfg.max_epochs, base.train_cfg.get('val_interval', 1)
    seen, looked = old * SHAPES_TRAIN, (old // interval + 1) * SHAPES_VAL
    train_set = data.train.limited(seen, seed)
    test_set = data.test.limited(looked // 2, seed)
    epochs = max(1, round(seen / train_set.size))
    every = math.ceil(epochs / max(1, looked // test_set.size - 1))
    print(
        f'  trains on {train_set.size} of {data.train.size} images for {epochs} epochs, tests on '
        f'{test_set.size} of {data.test.size}, all at {" x ".join(map(str, _training_size(base)))}'
        ': a few minutes of training, not the best your data can give'
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
    lines = ['# Written by tools/train/demo.py.', f'_base_ = {str(base_file)!r}']
    lines += [f'{key} = {pprint.pformat(value)}' for key, value in settings.items()]
    path = out_dir / 'config.py'
    write_text(path, '\n'.join(lines) + '\n')
    return path


def _data_settings(
    which: str, ann_name: str, subset: Subset, classes: tuple[str, ...], out_dir: Path
) -> dict[str, Any]:
    """Write the annotations of a set; return its settings of the config."""
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
    """Stretch a learning-rate schedule by epoch to another number of epochs."""
    item = dict(scheduler)
    if not item.get('by_epoch', True):
        return item
    if 'milestones' in item:
        item['milestones'] = [round(step * factor) for step in item['milestones']]
    for key in ('begin', 'end', 'T_max'):
        if item.get(key):
            # Parts of an epoch are allowed if MMEngine converts epochs to iterations.
            length = item[key] * factor
            item[key] = length if item.get('convert_to_iter_based') else max(1, round(length))
    return item


def run_training(config: Path, work_dir: Path, seed: int, options: list[str], root: Path) -> Path:
    """Run ``mim train mmdet`` in ``root``; return the last checkpoint.

    Raises:
        MimError: If the training fails.
    """
    run_mim(
        'train',
        config,
        '--work-dir',
        work_dir,
        '--cfg-options',
        f'randomness.seed={seed}',
        *options,
        cwd=root,
    )
    return Path((work_dir / 'last_checkpoint').read_text(encoding='utf-8').strip())


def run_test(
    config: Path, checkpoint: Path, work_dir: Path, options: list[str], root: Path
) -> Path:
    """Run ``mim test mmdet`` in ``root``, which prints the COCO table; return the detections' json.

    Raises:
        MimError: If the test fails.
    """
    prefix = shown(work_dir / 'test', root)
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
        cwd=root,
    )
    return work_dir / 'test.bbox.json'


def report_run(
    config: Path, checkpoint: Path, predictions: Path, work_dir: Path, root: Path
) -> None:
    """Draw the figures of a run, write report.json, and print the results per class.

    Args:
        config: Config of the run.
        checkpoint: Checkpoint that was tested.
        predictions: The detections' json.
        work_dir: Folder of the run, which gets the files.
        root: Folder that the data root of the config is relative to.

    Raises:
        ReportError: If a file of the run is absent or malformed.
    """
    dataset = _read_config(config).test_dataloader.dataset
    data_root = os.path.join(root, dataset.data_root)
    evaluation = evaluate(
        Path(data_root, dataset.ann_file), predictions, classes=dataset.metainfo.classes
    )
    about = {'config': shown(config, root), 'checkpoint': shown(checkpoint, root)}
    curve = read_scalars(find_scalars(work_dir))
    image_dir = Path(data_root, dataset.data_prefix.img)
    files = write_report(work_dir, curve, evaluation, image_dir, about)
    print(_table(evaluation))
    for path in files:
        print(f'  {shown(path, root)}')


def _table(evaluation: Evaluation) -> str:
    width = max(len(result.name) for result in evaluation.classes)
    threshold = f'at score >= {evaluation.score_thr:g} and IoU 0.5'
    lines = [
        f'\nTest set: {len(evaluation.images)} images, mAP {evaluation.mean("ap"):.3f}, '
        f'AP50 {evaluation.mean("ap50"):.3f}, AP75 {evaluation.mean("ap75"):.3f}',
        f'  {"class":<{width}}  boxes     AP   AP50  precision  recall  ({threshold})',
    ]
    lines += [
        f'  {item.name:<{width}}  {item.boxes:>5}  {item.ap:.3f}  {item.ap50:.3f}'
        f'  {item.precision:>9.3f}  {item.recall:>6.3f}'
        for item in evaluation.classes
    ]
    return '\n'.join([*lines, 'Figures and report:'])


def _read_config(path: Path) -> Any:
    from mmengine.config import Config

    return Config.fromfile(path)
