"""Write a COCO file anew in the form that every program reads alike.

    python tools/data/rewrite_coco.py data/annotations/val.json --images data/val --out val.json

Flags and numbers that are text become numbers; annotations get ids from 1 on, and an area and
iscrowd where they have none; an area of 0 becomes that of the box. With --images, width and height
become those of the files. COCO's evaluation reads the file by itself: it takes "iscrowd": "0" for a
crowd, and the id 0 for no match.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mmdet_ext.data.coco.annotations import read_coco, usable_annotations
from mmdet_ext.data.coco.image_files import check_image_files, note_missing_sizes
from mmdet_ext.data.coco.normal_form import complete_annotations
from mmdet_ext.data.reports import LayoutError, listed
from mmdet_ext.utils.files import write_text


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        print(rewrite(args.annotations, args.out, args.images))
    except (LayoutError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def rewrite(ann_file: Path, out: Path, image_dir: Path | None) -> str:
    """Write a COCO file anew.

    Args:
        ann_file: The file.
        out: The new file.
        image_dir: Folder of the images, None to keep the sizes that the file states.

    Returns:
        A report of what was changed, with the path of the new file.

    Raises:
        LayoutError: If the file is no COCO file, or boxes are drawn at another size than that of
            the image's file.
    """
    coco, faults = read_coco(ann_file)
    coco['annotations'], dropped = usable_annotations(coco)
    lines = [f'annotations left out: {dropped}'] if dropped else []
    lines += [f'values for the evaluation: {faults}'] if faults else []
    if image_dir is None:
        missing = note_missing_sizes(coco)
        lines += [f'{missing}; --images fills them in'] if missing else []
    else:
        found = check_image_files(coco, [image_dir / each['file_name'] for each in coco['images']])
        if found.misdrawn:
            sizes = [f'{path}: {text}' for path, text in found.misdrawn.items()]
            raise LayoutError(
                f'{ann_file}: boxes of {len(sizes)} images are drawn at the stated size, not at '
                f'that of the file: {listed(sizes)}. Resize or turn these images or their boxes'
            )
        bad = [f'{path}: {reason}' for path, reason in found.unreadable.items()]
        if bad and len(bad) == len({image_dir / each['file_name'] for each in coco['images']}):
            raise LayoutError(
                f'{ann_file}: none of its images can be read ({listed(bad)}). Check --images '
                f'{image_dir}, or leave it out to keep the sizes that the file states'
            )
        lines += [f'{len(bad)} images cannot be read: {listed(bad)}'] if bad else []
        lines += [str(found.notes)] if found.notes else []
    complete_annotations(coco)
    write_text(out, json.dumps(coco, ensure_ascii=False))
    return '\n'.join([*lines, str(out)])


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('annotations', type=Path, metavar='ANN', help='COCO json file')
    parser.add_argument(
        '--out', required=True, type=Path, metavar='FILE.json', help='where the new file goes'
    )
    parser.add_argument(
        '--images', type=Path, metavar='DIR', help='folder that file_name is relative to'
    )
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
