"""Three sets of pairs in the three forms, and a model that recognises their faces exactly."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmdet_ext.data.suffixes import IMAGE_SUFFIXES

SIDE = 8
PEOPLE = 6
EACH = 4
#: Pairs as (person, image, person, image); every other one is genuine.
PAIRS = [
    pair
    for k in range(PEOPLE)
    for i in range(1, EACH)
    for pair in ((k, 1, k, i + 1), (k, i, (k + 1) % PEOPLE, i + 1))
]
PIPELINE = [dict(type='mmdet_ext.LoadFace'), dict(type='mmpretrain.PackInputs')]


def face(seed: int, person: int, number: int) -> bytes:
    """Return an encoded face: a pattern of the person, with noise that differs by image."""
    pattern = np.random.default_rng([seed, person]).integers(40, 216, (SIDE, SIDE, 3))
    noise = np.random.default_rng([seed, person, number]).integers(-5, 6, (SIDE, SIDE, 3))
    return cv2.imencode('.png', (pattern + noise).astype(np.uint8))[1].tobytes()


def write_lfw(root: Path, seed: int, name: str = 'lfw', suffix: str = '.png') -> dict[str, Any]:
    """Write LFW's form, and return the config of its data set."""
    assert suffix.lower() in IMAGE_SUFFIXES
    write_faces(root / name, seed, suffix)
    genuine, impostors = PAIRS[::2], PAIRS[1::2]
    share = len(genuine) // 3
    lines = [f'3\t{share}']
    for k in range(0, len(genuine), share):
        lines += [f'p{a}\t{i}\t{j}' for a, i, _, j in genuine[k : k + share]]
        lines += [f'p{a}\t{i}\tp{b}\t{j}' for a, i, b, j in impostors[k : k + share]]
    (root / name / 'pairs.txt').write_text('\n'.join(lines))
    return config(root / name, 'pairs.txt')


def write_table(root: Path, seed: int, name: str = 'agedb', list_name: str = '') -> dict[str, Any]:
    """Write a table, and return the config of its data set."""
    write_faces(root / name, seed, '.png')
    rows = [f'p{a}/p{a}_{i:04d}.png,p{b}/p{b}_{j:04d}.png,{int(a == b)}' for a, i, b, j in PAIRS]
    list_name = list_name or f'{name}.csv'
    (root / name / list_name).write_text('\n'.join(rows))
    return config(root / name, list_name, folds=3)


def write_bin(root: Path, seed: int, name: str = 'cfp_fp', pairs: Any = PAIRS) -> dict[str, Any]:
    """Write a .bin, and return the config of its data set."""
    images = [face(seed, *one) for a, i, b, j in pairs for one in ((a, i), (b, j))]
    root.mkdir(parents=True, exist_ok=True)
    (root / f'{name}.bin').write_bytes(pickle.dumps((images, [a == b for a, _, b, _ in pairs])))
    return config(root, f'{name}.bin', folds=3)


def write_faces(folder: Path, seed: int, suffix: str) -> None:
    for person in range(PEOPLE):
        (folder / f'p{person}').mkdir(parents=True, exist_ok=True)
        for number in range(1, EACH + 1):
            file = folder / f'p{person}' / f'p{person}_{number:04d}{suffix}'
            file.write_bytes(face(seed, person, number))


def config(root: Path, ann_file: str, **options: Any) -> dict[str, Any]:
    return dict(
        type='mmdet_ext.FacePairsDataset',
        data_root=str(root),
        ann_file=ann_file,
        pipeline=PIPELINE,
        **options,
    )


class Recogniser(BaseModel):  # type: ignore[misc]
    """Model whose embedding is the image itself, or noise for the images it does not know.

    Args:
        unknown: part of the paths of the images that get noise.
        renew: return data samples that have the default meta keys alone.
    """

    def __init__(self, unknown: str | None = None, renew: bool = False) -> None:
        super().__init__()
        self.unknown, self.renew = unknown, renew

    def forward(self, inputs: Sequence[Any], data_samples: Any, mode: str = 'predict') -> Any:
        for image, sample in zip(inputs, data_samples, strict=True):
            sample.embedding = image.float().flatten() - 127.5
            if self.unknown is not None and self.unknown in sample.img_path:
                seed = zlib.crc32(Path(sample.img_path).name.encode())
                generator = torch.Generator().manual_seed(seed)
                sample.embedding = torch.randn(3 * SIDE * SIDE, generator=generator)
            if self.renew:
                sample.pop('pair_set')
        return data_samples


def run(
    folder: Path, dataset: Any, evaluator: Any, model: Any = None, **loader: Any
) -> dict[str, float]:
    """Evaluate a config of a data set with MMEngine's runner."""
    scope = loader.pop('scope', 'mmdet')
    runner = Runner(
        model=Recogniser() if model is None else model,
        work_dir=str(folder / 'work'),
        test_dataloader=dict(
            batch_size=5,
            num_workers=loader.pop('num_workers', 0),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
            **loader,
        ),
        test_evaluator=evaluator,
        test_cfg=dict(),
        default_scope=scope,
        experiment_name=str(folder).replace('/', '_'),
        log_level='WARNING',
    )
    found: dict[str, float] = runner.test()
    return found
