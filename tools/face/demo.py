"""Train a small face recogniser, test it on people it never saw, and plot how well it does.

    python tools/face/demo.py
    python tools/face/demo.py --data FOLDER      (one folder per person: FOLDER/<name>/<image>)

Without FOLDER it takes scikit-learn's handwritten digits as identities: 0 to 6 are trained on, 7 to
9 are unseen. Of your own people, one in five is kept unseen (at least two). It runs ``mim train
mmdet`` and ``mim test mmdet`` for plain softmax and for ArcFace as anyone would type them, and
prints the table. It writes to the work directory roc.png (both curves), scatter.png (embeddings of
unseen people, in two dimensions), hardest_pairs.png, similarities.png and report.json. Images of
FOLDER that cannot be used are counted and left out. Nothing is written into FOLDER.

Then it goes from a photograph to names: it trains a small detector on scenes that it draws (several
faces on a coloured ground), enrols half of the unseen people, and names the faces in other scenes,
where the other half are strangers. It prints how many names are right, and writes
scenes/recognised.png. --no-scenes leaves this out.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from mmdet_ext.data.reports import LayoutError
from mmdet_ext.face.studies.scene_demo import divide_people, run_scenes, train_detector
from mmdet_ext.plots.face import draw_roc
from mmdet_ext.studies.face_demo import (
    DemoFaces,
    copy_plots,
    digit_faces,
    images_by_person,
    markdown_table,
    own_faces,
    train_and_test,
)
from mmdet_ext.utils.files import write_json
from mmdet_ext.utils.mim import MimError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'face' / 'demo'
LOSSES = {'softmax': CONFIGS / 'softmax_demo.py', 'ArcFace': CONFIGS / 'arcface_demo.py'}
DETECTOR = CONFIGS.parents[1] / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'


def main(argv: list[str] | None = None) -> int:
    """Run the demonstration; return 0, 1 if a run failed, or 2 for bad input."""
    args = _parse(argv)
    start = time.monotonic()
    work = args.work_dir.resolve()
    try:
        work.mkdir(parents=True, exist_ok=True)
        faces = _faces(args, work)
    except (LayoutError, ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(
        f'\n{len(faces.train)} {faces.words} to train on ({faces.train_images} images), '
        f'{len(faces.test)} unseen to test on'
    )
    found = {}
    try:
        for name, config in LOSSES.items():
            found[name] = train_and_test(
                config, faces, work / name.lower(), epochs=args.epochs, seed=args.seed
            )
    except MimError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    roc = {name: (run['roc']['far'], run['roc']['tar']) for name, run in found.items()}
    draw_roc(roc, work / 'roc.png')
    plots = [work / 'roc.png', *copy_plots(work / 'arcface', work)]
    figures = {name: run['figures'] for name, run in found.items()}
    report: dict[str, Any] = {
        'identities': {'train': faces.train, 'test': faces.test},
        'figures': figures,
    }
    pairs = figures['softmax']
    print(
        f'\nAre two images of one? {len(faces.test)} unseen {faces.words}: '
        f'{int(pairs["genuine_pairs"])} pairs of one, {int(pairs["impostor_pairs"])} of two.\n\n'
        f'{markdown_table(found)}\n'
    )
    if not args.no_scenes:
        try:
            report['scenes'] = _scenes(faces, work, args.seed, args.epochs)
            plots.append(work / 'scenes' / 'recognised.png')
        except MimError as error:
            print(f'error: {error}', file=sys.stderr)
            return 1
        except ValueError as error:
            print(f'no scenes: {error}', file=sys.stderr)
    seconds = time.monotonic() - start
    write_json(work / 'report.json', {**report, 'seconds': round(seconds, 1)})
    print('\n'.join(str(path) for path in [*plots, work / 'report.json']))
    print(f'done in {seconds:.0f} s')
    return 0


def _faces(args: argparse.Namespace, work: Path) -> DemoFaces:
    """Find the people in the user's folder, or write the digits into the work directory."""
    if args.data is None:
        return digit_faces(work / 'digits')
    faces, report = own_faces(args.data.resolve(), args.seed)
    print(report)
    return faces


def _scenes(faces: DemoFaces, work: Path, seed: int, epochs: int | None) -> dict[str, Any]:
    """Train a detector, enrol people, name the faces in scenes, and print how many are right."""
    images = images_by_person(faces)
    people = divide_people(
        {name: images[name] for name in faces.train}, {name: images[name] for name in faces.test}
    )
    run = work / 'arcface'
    checkpoint = Path((run / 'last_checkpoint').read_text(encoding='utf-8').strip())
    detector = train_detector(DETECTOR, people.seen, work / 'detector', seed, epochs)
    recogniser = run / LOSSES['ArcFace'].name, checkpoint
    counts, threshold, _ = run_scenes(people, recogniser, detector, work / 'scenes', seed)
    strangers = [name for name in faces.test if name not in people.enrolled]
    print(
        f'\nFrom a photograph to names: enrolled {", ".join(people.enrolled)}; strangers '
        f'{", ".join(strangers)}. Threshold {threshold:.3f}, found on other images.\n\n'
        f'{counts.table()}\n'
    )
    return {'threshold': threshold, **counts._asdict()}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, help='folder with one folder per person')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/face_demo'))
    parser.add_argument('--epochs', type=int, help='default: as many as make about 300 iterations')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--no-scenes', action='store_true', help='without detector and names')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
