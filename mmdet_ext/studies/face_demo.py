"""Demonstration of faces: two losses trained on some identities and tested on unseen ones."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_ext.data.face.digit_folder import write_digit_folder
from mmdet_ext.data.face.folder import list_faces, split_identities
from mmdet_ext.registry import DATASETS
from mmdet_ext.utils.files import write_text
from mmdet_ext.utils.mim import run_mim

#: Digits that are trained on; the others are unseen.
DIGITS_SEEN = tuple('0123456')

# Small data needs about this many iterations, and a demonstration has no time for more images.
_ITERATIONS = 300
_MOST_IMAGES = 20_000
_BATCH_SIZE = 32
_SHOWN = ('auc', 'eer', 'tar@far=1e-01', 'tar@far=1e-02')


@dataclass(frozen=True)
class DemoFaces:
    """Identities that are trained on, and those that are tested on.

    Attributes:
        root: folder with one folder per identity.
        train: names of the identities to train on.
        test: names of the unseen identities.
        train_images: number of images to train on.
        words: word for the identities in reports.
        mirrored: whether a mirror image shows the same identity.
    """

    root: Path
    train: list[str]
    test: list[str]
    train_images: int
    words: str
    mirrored: bool = True


def digit_faces(root: Path) -> DemoFaces:
    """Write scikit-learn's digits as images into one folder per digit, and divide the digits."""
    data = DATASETS.build({'type': 'mmdet_ext.DigitsDataset', 'pipeline': []})
    samples = map(data.get_data_info, range(len(data)))
    written = write_digit_folder(((str(x['gt_label']), x['img']) for x in samples), root)
    unseen = sorted({path.name for path in root.iterdir()} - set(DIGITS_SEEN))
    seen_images = sum(written[digit] for digit in DIGITS_SEEN)
    return DemoFaces(root, list(DIGITS_SEEN), unseen, seen_images, 'digits', mirrored=False)


def own_faces(root: Path, seed: int) -> tuple[DemoFaces, str]:
    """Divide a folder of people into those to train on and those to test on.

    One identity in five is tested on, at least two.

    Args:
        root: folder with one folder per person.
        seed: seed of the split.

    Returns:
        tuple: the people, and the report of the images found.

    Raises:
        ValueError: if there are too few people with two images.
    """
    faces = list_faces(root, min_pictures=2, bad_images='drop')
    names = list(faces.classes)
    if len(names) < 4:
        raise ValueError(
            f'{root} holds {len(names)} people with two images or more; at least 4 are wanted, '
            'two to train on and two to test on: FOLDER/<name>/<image>'
        )
    fraction = max(0.2, 2 / len(names))
    test = split_identities(names, 'val', val_fraction=fraction, seed=seed)
    train = [name for name in names if name not in set(test)]
    trained = {faces.classes.index(name) for name in train}
    images = sum(int(label) in trained for label in faces.labels)
    return DemoFaces(root, train, list(test), images, 'people'), str(faces)


def images_by_person(faces: DemoFaces) -> dict[str, list[Path]]:
    """Return the usable images of each person, in natural order."""
    found = list_faces(faces.root, bad_images='drop')
    images: dict[str, list[Path]] = {name: [] for name in found.classes}
    for path, label in zip(found.paths, found.labels, strict=True):
        images[found.classes[label]].append(Path(path))
    return images


def train_and_test(
    config: Path, faces: DemoFaces, folder: Path, *, epochs: int | None, seed: int
) -> dict[str, Any]:
    """Train and test a config, and return the report of its verification.

    Args:
        config: leaf config.
        faces: identities to train on and to test on.
        folder: folder of the run.
        epochs: number of epochs; None for as many as make about 300 iterations.
        seed: seed of the run.

    Raises:
        mmdet_ext.utils.mim.MimError: if a run fails.
    """
    written = write_config(config, faces, folder, epochs=epochs, seed=seed)
    run_mim('train', written, '--work-dir', folder)
    checkpoint = Path((folder / 'last_checkpoint').read_text(encoding='utf-8').strip())
    run_mim('test', written, '--checkpoint', checkpoint, '--work-dir', folder / 'test')
    report = folder / 'verification' / 'verification.json'
    result: dict[str, Any] = json.loads(report.read_text(encoding='utf-8'))
    return result


def write_config(
    config: Path, faces: DemoFaces, folder: Path, *, epochs: int | None, seed: int
) -> Path:
    """Write the config for these identities to the folder of the run, and return its path.

    It is written as a file, because paths may contain characters that ``--cfg-options`` splits at.
    """
    for part, names in (('train', faces.train), ('test', faces.test)):
        write_text(folder / f'{part}_identities.txt', '\n'.join(names) + '\n')
    # The last batch of an epoch is dropped unless it is full, so that a small set needs small ones.
    batch = max(2, min(_BATCH_SIZE, faces.train_images // 2))
    steps = max(1, min(faces.train_images, _MOST_IMAGES) // batch)
    epochs = epochs or max(2, math.ceil(_ITERATIONS / steps))
    options: dict[str, Any] = {
        'randomness.seed': seed,
        'train_cfg.max_epochs': epochs,
        'param_scheduler.1.T_max': epochs,
        'param_scheduler.1.end': epochs,
        'model.head.num_classes': len(faces.train),
        'train_dataloader.batch_size': batch,
        'test_evaluator.out_dir': str(folder / 'verification'),
    }
    for loader in ('train', 'val', 'test'):
        part = 'train' if loader == 'train' else 'test'
        dataset = {
            'data_root': str(faces.root),
            'identities': str(folder / f'{part}_identities.txt'),
            'identity_split': None,
            'bad_images': 'drop',
        }
        options |= {f'{loader}_dataloader.dataset.{key}': value for key, value in dataset.items()}
    if not faces.mirrored:
        options |= {
            'train_dataloader.dataset.pipeline.2.prob': 0.0,
            'model.data_preprocessor.flip_at_test': False,
        }
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options)
    write_text(folder / config.name, cfg.pretty_text)
    return folder / config.name


def markdown_table(found: Mapping[str, dict[str, Any]]) -> str:
    """Format the figures as a table with one row per loss.

    A figure that the pairs are too few to support is shown as a dash.
    """
    rows = [['loss', *_SHOWN], ['---', *['---:'] * len(_SHOWN)]]
    for name, result in found.items():
        figures = result['figures']
        rows.append([name, *(f'{figures[k]:.3f}' if k in figures else '-' for k in _SHOWN)])
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def copy_plots(run: Path, target: Path) -> list[Path]:
    """Copy the plots of a run to another folder, and return their new paths."""
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
            shutil.copyfile(source, target / name)
            copied.append(target / name)
    return copied
