"""Train a small face recogniser, test it on people it never saw, and draw how well it does.

    python tools/face/demo.py
    python tools/face/demo.py --data FOLDER        (a folder a person: FOLDER/<name>/<image>)

Without FOLDER it takes scikit-learn's handwritten digits for identities: 0 to 6 are trained on, 7
to 9 are unseen. Of your own people, one in five is kept unseen (at least two). Runs ``mim train
mmdet`` and ``mim test mmdet`` for plain softmax and for ArcFace as anyone would type them, prints
the table, and writes to the work directory roc.png (both curves), scatter.png (unseen people's
embeddings, in two dimensions), hardest_pairs.png and report.json. Images of FOLDER that cannot be
used are counted and passed over. Nothing is written into FOLDER.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from mmengine.config import Config

from mmdet_ext.data.face.folder import FaceList, list_faces, split_identities
from mmdet_ext.data.reports import LayoutError
from mmdet_ext.plots.face import draw_roc
from mmdet_ext.utils.files import write_json, write_text
from mmdet_ext.utils.mim import MimError, run_mim

REPO = Path(__file__).resolve().parents[2]
CONFIGS = {
    'softmax': REPO / 'configs' / 'face' / 'demo' / 'softmax_demo.py',
    'ArcFace': REPO / 'configs' / 'face' / 'demo' / 'arcface_demo.py',
}
DIGITS_SEEN = tuple('0123456')
# As many steps as small data needs, and no more images than a demonstration has time for.
ITERATIONS = 300
MOST_IMAGES = 20_000
BATCH_SIZE = 32
SHOWN = ('auc', 'eer', 'tar@far=1e-01', 'tar@far=1e-02')


@dataclass(frozen=True)
class Faces:
    """What is trained and tested on.

    Attributes:
        root: folder an identity.
        train, test: names of the identities.
        train_images: their number.
        words: how the report calls the identities.
        mirrored: whether a mirror image shows the same.
    """

    root: Path
    train: list[str]
    test: list[str]
    train_images: int
    words: str
    mirrored: bool = True


def main(argv: list[str] | None = None) -> int:
    """Run the demonstration; returns 0, 1 if a run failed, 2 for bad input."""
    args = _parse(argv)
    start = time.monotonic()
    work = args.work_dir.resolve()
    try:
        work.mkdir(parents=True, exist_ok=True)
        faces = own_faces(args.data.resolve(), args.seed) if args.data else digits(work / 'digits')
    except (LayoutError, ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(
        f'\n{len(faces.train)} {faces.words} to train on ({faces.train_images} images), '
        f'{len(faces.test)} unseen to test on'
    )
    try:
        found = {
            name: train_and_test(config, faces, work / name.lower(), args)
            for name, config in CONFIGS.items()
        }
    except MimError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    table = markdown_table(found)
    draw_roc(
        {name: (r['roc']['far'], r['roc']['tar']) for name, r in found.items()}, work / 'roc.png'
    )
    images = [work / 'roc.png', *collect_images(work)]
    seconds = time.monotonic() - start
    write_json(
        work / 'report.json',
        {
            'identities': {'train': faces.train, 'test': faces.test},
            'figures': {name: result['figures'] for name, result in found.items()},
            'seconds': round(seconds, 1),
        },
    )
    genuine = int(next(iter(found.values()))['figures']['genuine_pairs'])
    impostors = int(next(iter(found.values()))['figures']['impostor_pairs'])
    print(
        f'\nAre two images of one? {len(faces.test)} unseen {faces.words}: {genuine} pairs of '
        f'one, {impostors} of two.\n\n{table}\n'
    )
    print('\n'.join(str(path) for path in [*images, work / 'report.json']))
    print(f'done in {seconds:.0f} s')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, help='folder with a folder a person')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/face_demo'))
    parser.add_argument('--epochs', type=int, help='default: what makes about 300 iterations')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args(argv)


def digits(root: Path) -> Faces:
    """Write scikit-learn's digits as images, a folder a digit."""
    from mmdet_ext.face.datasets import DigitsDataset

    data = DigitsDataset(pipeline=[])
    images = 0
    for index in range(len(data)):
        sample = data.get_data_info(index)
        name = str(sample['gt_label'])
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        image = cv2.resize(sample['img'], (56, 56), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'{index:04d}.png'), image)
        images += name in DIGITS_SEEN
    unseen = sorted({path.name for path in root.iterdir()} - set(DIGITS_SEEN))
    return Faces(root, list(DIGITS_SEEN), unseen, images, 'digits', mirrored=False)


def own_faces(root: Path, seed: int) -> Faces:
    """Part a folder of people into those trained on and those tested on.

    Raises:
        ValueError: if there are too few people with two images.
    """
    faces = list_faces(root, min_pictures=2, bad_images='drop')
    print(faces)
    names = list(faces.classes)
    if len(names) < 4:
        raise ValueError(
            f'{root} holds {len(names)} people with two images or more; at least 4 are wanted, '
            'two to train on and two to test on: FOLDER/<name>/<image>'
        )
    fraction = max(0.2, 2 / len(names))
    test = split_identities(names, 'val', val_fraction=fraction, seed=seed)
    train = [name for name in names if name not in set(test)]
    return Faces(root, train, list(test), _count(faces, train), 'people')


def _count(faces: FaceList, names: Sequence[str]) -> int:
    wanted = {faces.classes.index(name) for name in names}
    return sum(int(label) in wanted for label in faces.labels)


def train_and_test(
    config: Path, faces: Faces, folder: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Train and test one config; gives what its verification wrote.

    Raises:
        MimError: if a run fails.
    """
    written = write_config(config, faces, folder, args)
    run_mim('train', written, '--work-dir', folder)
    checkpoint = Path((folder / 'last_checkpoint').read_text(encoding='utf-8').strip())
    run_mim('test', written, '--checkpoint', checkpoint, '--work-dir', folder / 'test')
    report = folder / 'verification' / 'verification.json'
    result: dict[str, Any] = json.loads(report.read_text(encoding='utf-8'))
    return result


def write_config(config: Path, faces: Faces, folder: Path, args: argparse.Namespace) -> Path:
    """Write the config for these people to the folder of the run.

    A file, as paths may hold what would part the words of ``--cfg-options``.
    """
    for part, names in (('train', faces.train), ('test', faces.test)):
        write_text(folder / f'{part}_identities.txt', '\n'.join(names) + '\n')
    # The last batch of an epoch is dropped where it is not full: a small set needs small ones.
    batch = max(2, min(BATCH_SIZE, faces.train_images // 2))
    steps = max(1, min(faces.train_images, MOST_IMAGES) // batch)
    epochs = args.epochs or max(2, math.ceil(ITERATIONS / steps))
    options = {
        'randomness.seed': args.seed,
        'train_cfg.max_epochs': epochs,
        'param_scheduler.1.T_max': epochs,
        'param_scheduler.1.end': epochs,
        'model.head.num_classes': len(faces.train),
        'train_dataloader.batch_size': batch,
        'test_evaluator.out_dir': str(folder / 'verification'),
    }
    for loader in ('train', 'val', 'test'):
        part = 'train' if loader == 'train' else 'test'
        options |= {
            f'{loader}_dataloader.dataset.{key}': value
            for key, value in {
                'data_root': str(faces.root),
                'identities': str(folder / f'{part}_identities.txt'),
                'identity_split': None,
                'bad_images': 'drop',
            }.items()
        }
    if not faces.mirrored:
        options |= {
            'train_dataloader.dataset.pipeline.2.prob': 0.0,
            'model.data_preprocessor.flip_at_test': False,
            'model.head.flip_fusion': None,
        }
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options)
    write_text(folder / config.name, cfg.pretty_text)
    return folder / config.name


def markdown_table(found: dict[str, dict[str, Any]]) -> str:
    """A line a loss; what the pairs are too few to show is a dash."""
    rows = [['loss', *SHOWN], ['---', *['---:'] * len(SHOWN)]]
    for name, result in found.items():
        figures = result['figures']
        rows.append([name, *(f'{figures[k]:.3f}' if k in figures else '-' for k in SHOWN)])
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def collect_images(work: Path) -> list[Path]:
    """Copy the images of ArcFace's run to where they are looked for."""
    run = work / 'arcface'
    sources = {
        'hardest_pairs.png': run / 'verification' / 'hardest_pairs.png',
        'similarities.png': run / 'verification' / 'similarities.png',
        'scatter.png': max(
            run.glob('scatter/*.png'), default=run / 'absent', key=lambda path: path.stat().st_mtime
        ),
    }
    copied = []
    for name, source in sources.items():
        if source.is_file():
            shutil.copyfile(source, work / name)
            copied.append(work / name)
    return copied


if __name__ == '__main__':
    sys.exit(main())
