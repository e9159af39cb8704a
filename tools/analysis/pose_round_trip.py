"""Losses of people on the way into targets and back, without a network between.

    python tools/analysis/pose_round_trip.py ../shared/data/coco_keypoints/*.json
    python tools/analysis/pose_round_trip.py FILE --input 512 --stride 4 --out work_dirs/round_trip

Each file holds person keypoints in COCO's form; images are not read. People are scaled so that the
longer side of their image is INPUT px, encoded, decoded and scored by the OKS AP of xtcocotools.
Tags have the number of a person at his joints. Each row is decoded again with each person in maps
of his own, so that the difference is what people lose to each other; rows with rounded cells beside
unbiased ones show what rounding costs. "cut" counts people whose labelled joints the limbs leave in
several parts, and "hidden" the joints that lie within a peak's square of a joint of the same kind.

Writes OUT.json and OUT.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmpose.registry import KEYPOINT_CODECS
from xtcocotools.coco import COCO
from xtcocotools.cocoeval import COCOeval

import mmdet_ext.registry  # noqa: F401  so that our codecs have a name
from mmdet_ext.pose.skeletons import LIMB_TABLES
from mmdet_ext.utils.files import write_json, write_text

SIGMAS = (
    np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], float) / 1000
)
KERNEL = 3
COLUMNS = ('file', 'road', 'targets', 'limbs', 'AP', 'AP alone', 'AP50', 'AR', 'cut', 'hidden')


def roads(size: int, stride: int) -> list[dict[str, Any]]:
    """List what is compared: names of a row, and the config of its codec."""
    sizes = dict(input_size=(size, size), heatmap_size=(size // stride,) * 2, sigma=2)
    sizes['decode_nms_kernel'] = KERNEL
    found = []
    for unbiased in (False, True):
        targets = 'unbiased' if unbiased else 'rounded'
        tags = dict(type='mmdet_ext.AssociativeEmbeddingCodec', use_udp=unbiased, **sizes)
        found.append(dict(road='tags', targets=targets, limbs='', codec=tags))
        for limbs in LIMB_TABLES:
            for matching in ('optimal', 'greedy'):
                fields = dict(type='mmdet_ext.PartAffinityField', unbiased=unbiased, **sizes)
                fields |= dict(limbs=limbs, matching=matching)
                found.append(
                    dict(road=f'fields, {matching}', targets=targets, limbs=limbs, codec=fields)
                )
    return found


def read_people(coco: Any, size: int) -> dict[int, tuple[float, np.ndarray]]:
    """Read the scale to the input, and the people of each image, (N, 17, 3), that have joints."""
    found = {}
    for number, image in coco.imgs.items():
        scale = size / max(image['height'], image['width'])
        rows = [
            np.array(each['keypoints'], np.float32).reshape(-1, 3)
            for each in coco.loadAnns(coco.getAnnIds(imgIds=number))
            if not each.get('iscrowd') and each.get('num_keypoints', 0)
        ]
        if rows:
            found[number] = scale, np.stack(rows) * np.array([scale, scale, 1], np.float32)
    return found


def maps_of(codec: Any, people: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Return the maps that a perfect network would predict."""
    encoded = codec.encode(people[..., :2], (people[..., 2] > 0).astype(np.float32))
    heatmaps = torch.from_numpy(encoded['heatmaps'])
    if 'limb_fields' in encoded:
        return heatmaps[None], torch.from_numpy(encoded['limb_fields'])[None]
    # Where several people have a joint in one place, the nearest has the pixel.
    height, width = heatmaps.shape[1:]
    places = torch.from_numpy(people[..., :2] / codec.scale_factor)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    tags = torch.zeros_like(heatmaps)
    for joint in range(len(heatmaps)):
        shown = torch.from_numpy(people[:, joint, 2] > 0).nonzero()[:, 0]
        if len(shown):
            own = places[shown, joint]
            far = (x - own[:, 0, None, None]).square() + (y - own[:, 1, None, None]).square()
            tags[joint] = 10.0 * shown[far.argmin(0)] + 10
    return heatmaps[None], tags[None]


def decode(codec: Any, people: np.ndarray, alone: bool) -> tuple[np.ndarray, np.ndarray]:
    """Send people through targets; return joints and scores, (M, 17, 3) and (M,)."""
    parts = [each[None] for each in people] if alone else [people]
    joints, scores = [], []
    for part in parts:
        places, values, of_people = (each[0] for each in codec.batch_decode(*maps_of(codec, part)))
        joints.append(np.concatenate([places, values[..., None]], -1))
        scores.append(of_people)
    return np.concatenate(joints), np.concatenate(scores)


def score(coco: Any, results: list[dict[str, Any]]) -> Any:
    """Return the statistics of xtcocotools: AP, AP50, AP75, AP of sizes, AR and so on."""
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(coco, coco.loadRes(results), 'keypoints', SIGMAS, use_area=True)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


def round_trip(coco: Any, codec: Any, size: int, alone: bool) -> Any:
    """Score all people of a file after a way through a codec."""
    results = []
    for number, (scale, people) in read_people(coco, size).items():
        joints, scores = decode(codec, people, alone)
        joints[..., :2] /= scale
        results += [
            dict(
                image_id=number, category_id=1, keypoints=each.reshape(-1).tolist(), score=float(s)
            )
            for each, s in zip(joints, scores, strict=True)
        ]
    return score(coco, results)


def parts(shown: np.ndarray, limbs: Any) -> int:
    """Count the parts in which limbs leave the labelled joints of a person."""
    root = list(range(len(shown)))
    for start, end in limbs:
        if shown[start] and shown[end]:
            one, other = root[start], root[end]
            root = [one if each == other else each for each in root]
    return len({root[joint] for joint in np.flatnonzero(shown)})


def hidden(people: np.ndarray, stride: int) -> int:
    """Count joints within a peak's square of the same joint of another person."""
    count = 0
    for joints in people.transpose(1, 0, 2):
        cells = np.floor(joints[joints[:, 2] > 0, :2] / stride + 0.5)
        near = (np.abs(cells[:, None] - cells).max(-1) <= KERNEL // 2).sum(1) > 1
        count += int(near.sum())
    return count


def compare(path: Path, size: int, stride: int) -> list[dict[str, Any]]:
    """Score all roads on a file."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    people = [each for _, each in read_people(coco, size).values()]
    rows = []
    for road in roads(size, stride):
        codec = KEYPOINT_CODECS.build(road['codec'])
        together, alone = (round_trip(coco, codec, size, each) for each in (False, True))
        limbs = LIMB_TABLES.get(road['limbs'])
        cut = limbs and sum(parts(one[:, 2] > 0, limbs) > 1 for each in people for one in each)
        row = dict(file=path.stem, **{k: road[k] for k in ('road', 'targets', 'limbs')})
        row |= {'AP': together[0], 'AP alone': alone[0], 'AP50': together[1], 'AR': together[5]}
        row |= {'cut': cut, 'hidden': sum(hidden(each, stride) for each in people)}
        row['people'] = sum(map(len, people))
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Write the rows as a table."""
    lines = ['| ' + ' | '.join(COLUMNS) + ' |', '|' + ' --- |' * len(COLUMNS)]
    for row in rows:
        cells = [
            f'{v:.3f}' if isinstance(v, float) else str('' if v is None else v)
            for v in (row[name] for name in COLUMNS)
        ]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Score the files, print the table and, with --out, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('files', nargs='+', type=Path, help='person keypoints in COCO form')
    parser.add_argument('--input', type=int, default=512, help='side of the input, px')
    parser.add_argument('--stride', type=int, default=4, help='px of the input per cell')
    parser.add_argument('--out', type=Path, help='where to write OUT.json and OUT.md')
    args = parser.parse_args(argv)
    absent = [str(path) for path in args.files if not path.is_file()]
    if absent or args.stride < 1 or args.input % args.stride:
        problem = f'no file {absent[0]}' if absent else '--input must be a multiple of --stride'
        print(f'error: {problem}', file=sys.stderr)
        return 2
    rows = [row for path in args.files for row in compare(path, args.input, args.stride)]
    rows = [
        {k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()} for row in rows
    ]
    print(table(rows))
    if args.out is not None:
        write_json(args.out.with_suffix('.json'), rows)
        write_text(args.out.with_suffix('.md'), table(rows) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
