"""Find what a detector takes for objects where there are none, as background for its training.

    python tools/data/mine_hard_negatives.py CONFIG CHECKPOINT IMAGES --out data/negatives
    python tools/data/mine_hard_negatives.py CONFIG CHECKPOINT data/images/train \
        --annotations data/annotations/instances_train.json --out data/negatives

IMAGES is a folder. Without --annotations its images hold no object of the classes, and each image
with a confident detection becomes a background image. With a COCO file, only what touches none of
its boxes is a false alarm (crowds and ignored boxes count as objects). A crop around it, cut so
that no object reaches into it, is kept, and the rest of the image becomes one colour. Objects that
the file lacks would be taken for background: look at the sheet first. Writes into OUT
hard_negatives.json, crops/, hard_negatives.png (a sheet of the most confident ones), and
with_hard_negatives.py: CONFIG with these images joined to its training data. Mine in training
images, never in those of a test.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.utils import track_iter_progress

from mmdet_ext.analysis.detection.examples import MarkedBox, MarkedImage
from mmdet_ext.data.coco.annotations import load_coco
from mmdet_ext.data.coco.hard_negatives import (
    Background,
    Options,
    coco_sources,
    image_sources,
    mine,
    strongest,
    write_hard_negatives,
)
from mmdet_ext.data.reports import LayoutError, Tally
from mmdet_ext.engine.configs import add_training_images, read_config
from mmdet_ext.engine.detector import TorchDetector
from mmdet_ext.plots.detection.sheets import draw_sheet
from mmdet_ext.utils.files import whole_file

#: Most false alarms on the sheet.
_SHOWN = 24


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    tally = Tally()
    try:
        options = Options(args.score_thr, args.most, args.crop, least=args.least)
        sources = (
            image_sources(args.images)
            if args.annotations is None
            else coco_sources(load_coco(args.annotations), args.images)
        )
        config = read_config(args.config, args.cfg_options)
        # Refused before the search, which takes minutes.
        negatives = args.out / 'hard_negatives.json'
        joined = add_training_images(config, str(negatives), str(args.out))
        detector = TorchDetector(config, args.checkpoint, args.device)
        found: list[Background] = []
        search = mine(sources, lambda image: _detections(detector, image), options, tally)
        for backgrounds in track_iter_progress((search, len(sources)), file=sys.stderr):
            found += backgrounds
        kept = strongest(found, args.most)
        print(f'\n{len(sources)} images, {len(found)} hard negatives, {len(kept)} kept')
        if tally:
            print(f'left out: {tally}')
        if not kept:
            print(f'no detection of at least {args.score_thr}: nothing is written')
            return 0
        write_hard_negatives(kept, detector.classes, args.out, args.tight)
        strong = sorted(kept, key=lambda each: -each.score)[:_SHOWN]
        title = f'{len(strong)} of {len(kept)} hard negatives, the most confident first'
        images = [_marked(each, detector.classes) for each in strong]
        draw_sheet(images, args.out / 'hard_negatives.png', title)
        with whole_file(args.out / 'with_hard_negatives.py') as part:
            part.write_text(joined.pretty_text, encoding='utf-8')
    except (LayoutError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for name in ('hard_negatives.json', 'hard_negatives.png', 'with_hard_negatives.py'):
        print(args.out / name)
    return 0


def _marked(each: Background, classes: Sequence[str]) -> MarkedImage:
    """Return a false alarm for the sheet."""
    left, top, right, bottom = each.box
    box = (left, top, right - left, bottom - top)
    name = classes[each.label] if each.label < len(classes) else str(each.label)
    marked = [MarkedBox(box, 'false', '')]
    if each.region is not None:
        x0, y0, x1, y1 = each.region
        marked.append(MarkedBox((x0, y0, x1 - x0, y1 - y0), 'cut', ''))
    return MarkedImage(str(each.path), f'{name} {each.score:.2f}', marked, None)


def _detections(detector: TorchDetector, image: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels of an image."""
    found = detector(image)
    return found['bboxes'], found['scores'], found['labels'].astype(np.int64)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', type=Path, help='config of the detector')
    add('checkpoint', type=Path, help='file of its weights')
    add('images', type=Path, help='folder of images')
    add('--annotations', type=Path, metavar='ANN', help='COCO file with the known objects')
    add('--out', type=Path, required=True, metavar='DIR', help='folder for what is written')
    add('--score-thr', type=float, default=0.3, help='least score (default: %(default)s)')
    add('--most', type=int, help='images to keep, of the highest scores (default: all)')
    add('--crop', type=int, default=320, help='side of a crop, px (default: %(default)s)')
    add('--least', type=int, default=32, help='least side of a crop, px (default: %(default)s)')
    add(
        '--tight', action='store_true', help='write crops without the rest of the image as a colour'
    )
    add('--device', default='cpu', help='default: %(default)s')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='options of the config')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
