"""Synthetic faces: one pattern per identity, as a folder, records, pairs and templates.

Four identities are for training, four others for testing, with two images each. The patterns do not
look like faces, but images of one identity resemble each other as those of a face do, and all
readers of face data can read them.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.data.face.records import write_face_records
from mmdet_ext.utils.files import whole_file, write_text

#: Names of the identities for training, and of those for testing.
TRAINED = ('p0', 'p1', 'p2', 'p3')
UNSEEN = ('p4', 'p5', 'p6', 'p7')
IMAGES = 2
#: Height and width, px, of images in folders, which is the size of ORL, and of images in records.
FOLDER_SIZE = (112, 92)
ALIGNED_SIZE = (112, 112)
#: Number of folds of the pairs.
FOLDS = 2
_PATCHES = 7

Image = np.ndarray[Any, np.dtype[np.uint8]]


def face_image(identity: int, number: int, size: tuple[int, int] = ALIGNED_SIZE) -> Image:
    """Make the image of a face: coloured patches, the same for all images of one, and noise.

    Args:
        identity: number of the identity, from 0.
        number: number of the image, from 0; it changes brightness and noise.
        size: height and width, px.

    Returns:
        (H, W, 3), uint8, BGR.
    """
    height, width = size
    patches = np.random.default_rng([identity]).uniform(40, 215, (_PATCHES, _PATCHES, 3))
    rows, columns = (np.arange(side) * _PATCHES // side for side in size)
    rng = np.random.default_rng([identity, number, 1])
    values = patches[rows][:, columns] + rng.uniform(-15, 15)
    values += rng.normal(0, 12, (height, width, 3))
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def encoded(image: Image) -> bytes:
    """Encode an image (H, W, 3), BGR, as a lossless PPM file."""
    height, width, _ = image.shape
    return b'P6\n%d %d\n255\n' % (width, height) + image[..., ::-1].tobytes()


def make_faces(root: Path) -> None:
    """Write all forms of the synthetic faces into a folder.

    - All identities: ``faces/p0/p0_0001.ppm`` and so on.
    - Identities for training: ``train.rec`` with ``train.idx`` and ``property``.
    - Identities for testing: ``pairs.txt`` (LFW's form) and ``pairs.csv``, which list images in
      ``faces``, and ``pairs.bin``. Each identity has one genuine pair, and one impostor pair with
      the next identity. ``templates.txt`` and ``template_pairs.txt`` list the same pairs in the
      form of IJB-C, each image a template of one medium.

    Args:
        root: the folder; it is created if absent.
    """
    people = (*TRAINED, *UNSEEN)
    for identity, name in enumerate(people):
        for number in range(IMAGES):
            with whole_file(root / 'faces' / image_path(name, number)) as part:
                part.write_bytes(encoded(face_image(identity, number, FOLDER_SIZE)))
    aligned = [
        [encoded(face_image(identity, number)) for number in range(IMAGES)]
        for identity in range(len(people))
    ]
    write_face_records(aligned[: len(TRAINED)], root / 'train.rec', ALIGNED_SIZE)
    _write_pairs(root, aligned[len(TRAINED) :])
    _write_templates(root)


def image_path(name: str, number: int) -> str:
    """Return the path of an image under ``faces``; LFW counts images from 1."""
    return f'{name}/{name}_{number + 1:04d}.ppm'


def _write_pairs(root: Path, aligned: list[list[bytes]]) -> None:
    """Write the pairs in all three forms, genuine and impostor pairs in turn."""
    count = len(UNSEEN)
    lines, rows = [f'{FOLDS}\t{count // FOLDS}'], ['path1,path2,same,fold']
    images: list[bytes] = []
    per_fold = count // FOLDS
    for fold in range(FOLDS):
        people = range(fold * per_fold, (fold + 1) * per_fold)
        # LFW's form lists the genuine pairs of a fold first.
        lines += [f'{UNSEEN[one]}\t1\t2' for one in people]
        lines += [f'{UNSEEN[one]}\t1\t{UNSEEN[(one + 1) % count]}\t2' for one in people]
        for one in people:
            for other in (one, (one + 1) % count):
                paths = image_path(UNSEEN[one], 0), image_path(UNSEEN[other], 1)
                rows.append(f'{",".join(paths)},{int(one == other)},{fold}')
                images += [aligned[one][0], aligned[other][1]]
    write_text(root / 'pairs.txt', '\n'.join(lines) + '\n')
    write_text(root / 'pairs.csv', '\n'.join(rows) + '\n')
    with whole_file(root / 'pairs.bin') as part:
        part.write_bytes(pickle.dumps((images, [True, False] * count), 2))


def _write_templates(root: Path) -> None:
    """Write the lists of templates: template 2 k + n is image n of identity k."""
    images, pairs = [], []
    for one, name in enumerate(UNSEEN):
        for number in range(IMAGES):
            template = one * IMAGES + number
            images.append(f'{image_path(name, number)} {template} {template}')
        for other in (one, (one + 1) % len(UNSEEN)):
            pairs.append(f'{one * IMAGES} {other * IMAGES + 1} {int(one == other)}')
    write_text(root / 'templates.txt', '\n'.join(images) + '\n')
    write_text(root / 'template_pairs.txt', '\n'.join(pairs) + '\n')
