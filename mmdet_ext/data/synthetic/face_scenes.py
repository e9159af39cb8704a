"""Synthetic photographs: several faces of known people, on a coloured ground among other things.

Every scene depends on the seed and its number alone. A face is a whole image of a person, pasted as
a square; boxes and names are known exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from mmdet_ext.utils.files import whole_file, write_json

#: Height and width of a scene, and the least and the largest side of a face, px.
SIDE = 320
SMALLEST, LARGEST = 56, 112
_GAP = 8
_MOST_FACES = 4
_ATTEMPTS = 50

Array = np.ndarray[Any, Any]


class PlacedFace(NamedTuple):
    """Face in a scene.

    Attributes:
        name: of the person.
        box: x1, y1, x2, y2, px.
    """

    name: str
    box: tuple[int, int, int, int]


def make_face_scenes(
    people: Mapping[str, Sequence[Path]], folder: Path, count: int, seed: int
) -> dict[Path, list[PlacedFace]]:
    """Write scenes, and their boxes as COCO annotations with the class 'face'.

    Args:
        people: images of each person.
        folder: receives ``images/000.png`` and so on, and ``faces.json``.
        count: number of scenes.
        seed: of all draws.

    Returns:
        dict: the faces of each scene.

    Raises:
        ValueError: if a person has no image, or an image cannot be read.
    """
    if count < 1 or not people or not all(people.values()):
        raise ValueError('scenes need at least one scene, one person, and an image of each')
    scenes = {}
    coco: dict[str, Any] = {'images': [], 'annotations': []}
    for number in range(count):
        image, faces = draw_scene(np.random.default_rng((seed, number)), people)
        path = folder / 'images' / f'{number:03d}.png'
        _write(path, image)
        scenes[path] = faces
        coco['images'].append(
            {'id': number + 1, 'file_name': path.name, 'width': SIDE, 'height': SIDE}
        )
        for face in faces:
            x1, y1, x2, y2 = face.box
            coco['annotations'].append(
                {
                    'id': len(coco['annotations']) + 1,
                    'image_id': number + 1,
                    'category_id': 1,
                    'bbox': [x1, y1, x2 - x1, y2 - y1],
                    'area': (x2 - x1) * (y2 - y1),
                    'iscrowd': 0,
                    'person': face.name,
                }
            )
    coco['categories'] = [{'id': 1, 'name': 'face'}]
    write_json(folder / 'faces.json', coco)
    return scenes


def make_portraits(
    people: Mapping[str, Sequence[Path]], folder: Path, seed: int
) -> dict[str, list[Path]]:
    """Write a photograph of each image of each person: a scene with that face alone.

    Args:
        people: images of each person.
        folder: receives ``0000.png`` and so on.
        seed: of all draws.

    Returns:
        dict: the photographs of each person, in the order of the images.

    Raises:
        ValueError: if an image cannot be read.
    """
    photographs: dict[str, list[Path]] = {name: [] for name in people}
    number = 0
    for name in sorted(people):
        for path in people[name]:
            generator = np.random.default_rng((seed, number))
            image = _ground(generator)
            place = _free_place(generator, [])
            assert place is not None  # the first face has room everywhere
            _paste(generator, image, path, place)
            written = folder / f'{number:04d}.png'
            _write(written, image)
            photographs[name].append(written)
            number += 1
    return photographs


def draw_scene(
    generator: np.random.Generator, people: Mapping[str, Sequence[Path]]
) -> tuple[Array, list[PlacedFace]]:
    """Draw one scene with one to four faces that do not overlap.

    Returns:
        tuple: the image (H, W, 3), uint8, BGR, and its faces.
    """
    image = _ground(generator)
    names = sorted(people)
    faces: list[PlacedFace] = []
    for _ in range(int(generator.integers(1, _MOST_FACES + 1))):
        box = _free_place(generator, [face.box for face in faces])
        if box is None:
            break
        name = names[int(generator.integers(len(names)))]
        choice = people[name]
        _paste(generator, image, Path(choice[int(generator.integers(len(choice)))]), box)
        faces.append(PlacedFace(name, box))
    return image, faces


def _ground(generator: np.random.Generator) -> Array:
    """Draw smooth colours with discs and rectangles, which are no faces."""
    cells = int(generator.integers(3, 9))
    coarse = generator.integers(30, 226, (cells, cells, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    for _ in range(int(generator.integers(2, 7))):
        x, y = (int(value) for value in generator.integers(0, SIDE, 2))
        wide, high = (int(value) for value in generator.integers(8, LARGEST, 2))
        colour = [int(value) for value in generator.integers(0, 256, 3)]
        if generator.random() < 0.5:
            cv2.ellipse(image, (x, y), (wide // 2, high // 2), 0, 0, 360, colour, -1)
        else:
            cv2.rectangle(image, (x, y), (x + wide, y + high), colour, -1)
    return image


def _free_place(
    generator: np.random.Generator, taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """Draw a square beside all others; None where no attempt finds one."""
    for _ in range(_ATTEMPTS):
        side = int(generator.integers(SMALLEST, LARGEST + 1))
        x, y = (int(value) for value in generator.integers(0, SIDE - side + 1, 2))
        if all(
            x + side + _GAP <= box[0]
            or box[2] + _GAP <= x
            or y + side + _GAP <= box[1]
            or box[3] + _GAP <= y
            for box in taken
        ):
            return x, y, x + side, y + side
    return None


def _paste(
    generator: np.random.Generator, image: Array, path: Path, box: tuple[int, int, int, int]
) -> None:
    """Paste an image of a person as a square, a little brighter or darker."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    face = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if face is None:
        raise ValueError(f'{path}: the image cannot be read')
    side = box[2] - box[0]
    method = cv2.INTER_AREA if max(face.shape[:2]) > side else cv2.INTER_CUBIC
    tile = np.asarray(cv2.resize(face, (side, side), interpolation=method))
    bright = np.clip(tile * generator.uniform(0.85, 1.15), 0, 255)
    image[box[1] : box[3], box[0] : box[2]] = bright.astype(np.uint8)


def _write(path: Path, image: Array) -> None:
    with whole_file(path) as part:
        part.write_bytes(cv2.imencode('.png', image)[1].tobytes())
