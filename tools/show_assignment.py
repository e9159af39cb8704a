"""Draw which priors belong to which box, for any assigner of a config, stock's too.

    python tools/show_assignment.py CONFIG --out DIR
    python tools/show_assignment.py CONFIG --checkpoint x.pth --images 0 7 a.jpg --out DIR
    python tools/show_assignment.py CONFIG --versus OTHER_CONFIG --out DIR

A picture each, a panel a pyramid level: dots are priors in the colour of their box, grey crosses
are ignored ones, a dashed box has none. With --versus the other config's assignment stands below.
Pictures are those of the config's training data (--split), by number or file name, as the network
sees them, but for random changes. Assigners that go by predictions show what an untrained network
gets, unless there is a checkpoint. Writes PICTURE.png and counts.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import load_checkpoint

from mmdet_ext.detection.assignment_record import AssignmentRecord, recorded_assignments
from mmdet_ext.evaluation.assignment_figures import (
    LevelAssignment,
    PictureAssignment,
    draw_assignments,
)
from mmdet_ext.utils.files import write_json


class ShowError(Exception):
    """Something that the user gave does not work; the message says what to do."""


def main(argv: list[str] | None = None) -> int:
    """Draw; returns 0, or 2 for bad input."""
    args = _parse(argv)
    register_all_modules()
    try:
        configs = [_read(path, args.cfg_options) for path in (args.config, args.versus) if path]
        dataset = build_dataset(configs[0], args.split)
        chosen = choose(dataset, args.images, args.count)
        models = [build_model(config, args.checkpoint if number == 0 else args.versus_checkpoint,
                              args.seed) for number, config in enumerate(configs)]  # fmt: skip
        names = [path.stem for path in (args.config, args.versus) if path]
        counts = {}
        for index in chosen:
            sample = dataset[index]
            name = Path(sample['data_samples'].img_path).stem
            rows = [
                row
                for model, config in zip(models, names, strict=True)
                for row in assignments(model, sample, config)
            ]
            image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
            draw_assignments(np.ascontiguousarray(image), rows, args.out / f'{name}.png')
            counts[name] = [row.counts() for row in rows]
            print(args.out / f'{name}.png')
            for row in counts[name]:
                title = row['title'].replace('\n', ', ')
                print(f'  {title}: {row["positive"]:,} of {row["priors"]:,} priors positive, '
                      f'{row["ignored"]:,} ignored, {row["boxes_without_prior"]} of '
                      f'{row["boxes"]} boxes without')  # fmt: skip
        write_json(args.out / 'counts.json', {'pictures': counts})
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
    parser.add_argument('--images', nargs='+', default=[], metavar='WHICH',
                        help='numbers or file names; default: the first --count')  # fmt: skip
    parser.add_argument('--count', type=int, default=4)
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--out', type=Path, required=True, help='folder')
    parser.add_argument('--seed', type=int, default=0, help='of the untrained weights')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(argv)


def _read(path: Path, options: Sequence[str]) -> Config:
    if not path.is_file():
        raise ShowError(f'no such config: {path}')
    config = Config.fromfile(path)
    for option in options:
        key, equals, value = option.partition('=')
        if not equals:
            raise ShowError(f'--cfg-options {option!r} is not KEY=VALUE')
        config.merge_from_dict({key: value})
    return config


def build_dataset(config: Config, split: str) -> Any:
    """The data of a split, loaded as for validation: nothing random, boxes included.

    Raises:
        ShowError: if the config has none, or its files are missing.
    """
    loader = config.get(f'{split}_dataloader')
    pipeline = config.get('val_dataloader')
    if not loader or not pipeline:
        raise ShowError(f'the config has no {split}_dataloader, or no val_dataloader to load as')
    options = loader.dataset
    while 'dataset' in options:  # wrappers that mix or repeat
        options = options.dataset
    options = {**options, 'pipeline': _with_boxes(pipeline.dataset.pipeline), 'test_mode': True}
    options.pop('filter_cfg', None)
    try:
        return DATASETS.build(options)
    except (FileNotFoundError, OSError) as error:
        raise ShowError(f'cannot read the {split} data: {error}') from error


def _with_boxes(pipeline: Sequence[Any]) -> list[Any]:
    """The steps with the boxes loaded first; stock loads them after resizing, for evaluation."""
    steps = [step for step in pipeline if not step['type'].endswith('LoadAnnotations')]
    return [*steps[:1], {'type': 'LoadAnnotations', 'with_bbox': True}, *steps[1:]]


def choose(dataset: Any, wanted: Sequence[str], count: int) -> list[int]:
    """Numbers of the pictures named.

    Raises:
        ShowError: for a name or number that there is not.
    """
    total = len(dataset)
    if not wanted:
        return list(range(min(count, total)))
    by_name: dict[str, int] = {}
    for index in range(total):
        path = Path(dataset.get_data_info(index)['img_path'])
        by_name.setdefault(path.name, index)
        by_name.setdefault(path.stem, index)
    chosen = []
    for name in wanted:
        if name.isdigit() and int(name) < total:
            chosen.append(int(name))
        elif Path(name).name in by_name:
            chosen.append(by_name[Path(name).name])
        else:
            raise ShowError(
                f'--images {name}: neither a number below {total} nor a file of this data, such as '
                f'{next(iter(by_name), "")}'
            )
    return chosen


def build_model(config: Config, checkpoint: Path | None, seed: int) -> Any:
    """The detector, with the weights of a checkpoint or untrained ones of a seed."""
    torch.manual_seed(seed)
    for part in (config.model, config.model.get('backbone') or {}):
        if (part.get('init_cfg') or {}).get('type') == 'Pretrained':
            part['init_cfg'] = None  # nothing is downloaded
    model = MODELS.build(config.model)
    model.init_weights()
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise ShowError(f'no such checkpoint: {checkpoint}')
        load_checkpoint(model, str(checkpoint), map_location='cpu')
    return model.train()


def assignments(model: Any, sample: dict[str, Any], config: str) -> list[PictureAssignment]:
    """What each assigner of a model does with one picture.

    Raises:
        ShowError: if the model has no assigner.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()  # one picture's statistics would spoil the predictions
    data = model.data_preprocessor(pseudo_collate([sample]), training=False)
    with recorded_assignments(model) as records, torch.no_grad():
        model.loss(data['inputs'], data['data_samples'])
    if not records:
        raise ShowError(
            f'{config} has no assigner to look on at: stock heads like FCOSHead assign by '
            "themselves. Set the head's type to ours, such as mmdet_ext.FCOSHead"
        )
    return [_as_picture(record, config) for record in records]


def _as_picture(record: AssignmentRecord, config: str) -> PictureAssignment:
    where = '' if record.head == 'bbox_head' else f' in {record.head}'
    levels = int(record.level.max()) + 1 if len(record.level) else 1
    return PictureAssignment(
        title=f'{config}\n{record.assigner}{where}',
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
