"""Draw what a bottom-up pose estimator finds, and how: people, tags or fields, the matched graph.

    python tools/analysis/draw_pose.py CONFIG CHECKPOINT --out DIR
    python tools/analysis/draw_pose.py CONFIG CHECKPOINT --images 0 7 21 --out DIR

Images are those of the config's test set, by number from 0. Writes people.png, ground truth beside
prediction; of the first image also tags.png, tags in the colours of the people, where the network
has tags, or fields.png, fields as arrows, and matching.png, candidates and connections with their
scores, where it has part affinity fields.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint

from mmdet_ext.engine.configs import read_config
from mmdet_ext.engine.errors import InputError, explained
from mmdet_ext.plots.pose import (
    Connection,
    People,
    draw_fields,
    draw_matching,
    draw_people,
    draw_tags,
)
from mmdet_ext.studies.pose_maps import SHOWN, PoseMaps, joint_tags, look, matched_limbs

#: Limbs whose fields and graphs are drawn: forearm and shin of the left side, the trunk's left.
_DRAWN = (('left_elbow', 'left_wrist'), ('left_knee', 'left_ankle'), ('left_shoulder', 'left_hip'))


def main(argv: list[str] | None = None) -> int:
    """Draw the figures; return 0, or 2 for wrong input."""
    args = _parse(argv)
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        model, dataset = _load(args)
        with DefaultScope.overwrite_default_scope('mmpose'):
            _draw(args, model, dataset)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    finally:
        logging.disable(before)
    return 0


def _load(args: argparse.Namespace) -> tuple[Any, Any]:
    """Build the model with its weights, and the test set."""
    config = read_config(args.config, args.cfg_options)
    if not args.checkpoint.is_file():
        raise InputError(f'no such checkpoint: {args.checkpoint}')
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f'--out {args.out} is a file; give a folder')
    with explained('cannot import MMPose; docs/hosts.md says how to install it'):
        from mmpose.registry import DATASETS, MODELS
        from mmpose.utils import register_all_modules

        register_all_modules()
    with explained(f'cannot build the model of {args.config} with {args.checkpoint}', True):
        model = MODELS.build(config.model).eval()
        load_checkpoint(model, str(args.checkpoint), map_location='cpu')
    with explained(f'cannot read the test set of {args.config}', True):
        dataset = DATASETS.build(config.test_dataloader.dataset)
    absent = [number for number in args.images if not 0 <= number < len(dataset)]
    if absent:
        raise InputError(
            f'--images {absent[0]}: the test set has the images 0 to {len(dataset) - 1}'
        )
    return model, dataset


def _draw(args: argparse.Namespace, model: Any, dataset: Any) -> None:
    """Write the figures."""
    meta = dataset.metainfo
    skeleton = [tuple(limb) for limb in meta['skeleton_links']]
    limbs = getattr(model.head.decoder, 'limbs', None)
    maps = [look(model, dataset[number], limbs and len(limbs)) for number in args.images]
    predicted = [_people(item.found, item.found[..., 2] > SHOWN) for item in maps]
    truth = [_people(item.truth, item.truth[..., 2] > 0) for item in maps]
    args.out.mkdir(parents=True, exist_ok=True)
    columns = [('ground truth', truth), ('prediction', predicted)]
    draw_people([item.image for item in maps], columns, skeleton, args.out / 'people.png')
    first = maps[0]
    if limbs is None:
        draw_tags(
            first.image,
            first.heatmaps,
            first.maps[: len(first.heatmaps)],
            predicted[0],
            joint_tags(first),
            skeleton,
            args.out / 'tags.png',
        )
    else:
        _draw_limbs(first, [tuple(limb) for limb in limbs], meta['keypoint_name2id'], args.out)
    print('\n'.join(str(path) for path in sorted(args.out.glob('*.png'))))


def _draw_limbs(
    maps: PoseMaps, limbs: list[tuple[int, ...]], joints: dict[str, int], out: Path
) -> None:
    """Write the fields and the graphs of some limbs."""
    pairs = [(limb[0], limb[1]) for limb in limbs]
    by_ends = {frozenset(pair): number for number, pair in enumerate(pairs)}
    wanted = {names: frozenset(joints[name] for name in names) for names in _DRAWN}
    chosen = [by_ends[ends] for ends in wanted.values() if ends in by_ends] or [0]
    names = {number: joint for joint, number in joints.items()}
    titles = [' to '.join(names[end].replace('_', ' ') for end in pairs[n]) for n in chosen]
    draw_fields(maps.image, maps.heatmaps, maps.maps[chosen], titles, out / 'fields.png')
    graphs = []
    for title, limb in zip(titles, matched_limbs(maps, pairs, chosen), strict=True):
        connections = [
            Connection(
                tuple(limb.first[i]),
                tuple(limb.second[j]),
                float(limb.scores[i, j]),
                limb.kept[i, j],
            )
            for i, j in np.ndindex(limb.scores.shape)
        ]
        graphs.append((title, limb.first, limb.second, connections))
    draw_matching(maps.image, graphs, out / 'matching.png')


def _people(joints: np.ndarray, shown: np.ndarray) -> People:
    return People(joints[..., :2], shown)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', type=Path)
    add('checkpoint', type=Path)
    add('--images', type=int, nargs='+', default=[0, 1, 2], help='numbers, default: 0 1 2')
    add('--out', type=Path, required=True, help='folder')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
