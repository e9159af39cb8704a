"""Demonstration of recognition: a detector trained on scenes, people enrolled, faces named."""

from __future__ import annotations

import pprint
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmdet_ext.data.synthetic.face_scenes import (
    SIDE,
    PlacedFace,
    make_face_scenes,
    make_portraits,
)
from mmdet_ext.face.gallery import UNKNOWN
from mmdet_ext.face.recognition import FaceRecognizer, Recognition
from mmdet_ext.face.studies.recognition_files import write_image
from mmdet_ext.utils.files import write_json, write_text
from mmdet_ext.utils.mim import run_mim

TRAIN_SCENES, TEST_SCENES = 240, 60
#: Most images by which a person is enrolled, and by which the threshold is found.
_MOST_ENROLLED, _MOST_TRIED = 20, 60
#: Images of people who are not enrolled, by which the threshold is found.
_MOST_OTHERS = 120
_LEAST_IOU = 0.5
_SHOWN = 6
_EPOCHS = 8
_COLUMNS = 3

People = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class ScenePeople:
    """People of the demonstration, in whose parts no image stands twice.

    Attributes:
        seen: whom the recogniser was trained on; nobody of them is enrolled.
        enrolled: images by which people are enrolled, whom it was not trained on.
        tried: further images of them, by which the threshold is found.
        in_scenes: images in the scenes of the test: of the enrolled people, and of strangers.
    """

    seen: People
    enrolled: People
    tried: People
    in_scenes: People


class SceneCounts(NamedTuple):
    """Faces of the scenes, and what became of them.

    Attributes:
        faces: faces in the scenes.
        found: of these, found by the detector with an IoU of at least 0.5.
        false_finds: what it found beside.
        known: found faces of enrolled people.
        named: of these, with the right name.
        strangers: found faces of other people.
        kept_unknown: of these, without a name.
    """

    faces: int
    found: int
    false_finds: int
    known: int
    named: int
    strangers: int
    kept_unknown: int

    def table(self) -> str:
        """Format the counts as lines."""
        rows = [
            ('faces found', self.found, self.faces),
            ('enrolled people with the right name', self.named, self.known),
            ('strangers who stay unknown', self.kept_unknown, self.strangers),
        ]
        lines = [
            f'{text:36s} {right:4d} of {total:4d}'
            + (f'  {right / total:7.1%}' if total else '  none in the scenes')
            for text, right, total in rows
        ]
        return '\n'.join([*lines, f'{"false finds":36s} {self.false_finds:4d}'])


def divide_people(seen: People, unseen: People) -> ScenePeople:
    """Divide people for the demonstration.

    The first of the unseen people are enrolled, half of them and one more of an odd number; the
    others are strangers. A third of an enrolled person's images enrols, a third finds the
    threshold, and the rest is shown in scenes.

    Args:
        seen: images of the people whom the recogniser was trained on.
        unseen: images of the others, at least two people with two images each.

    Raises:
        ValueError: if there are fewer.
    """
    if len(unseen) < 2 or min(map(len, unseen.values())) < 2:
        raise ValueError('scenes need two unseen people with two images each, at least')
    names = sorted(unseen)
    known, strangers = names[: (len(names) + 1) // 2], names[(len(names) + 1) // 2 :]
    enrolled, tried, shown = {}, {}, {}
    for name in known:
        images = list(unseen[name])
        third = max(1, len(images) // 3)
        enrolled[name] = images[:third][:_MOST_ENROLLED]
        tried[name] = images[third : 2 * third][:_MOST_TRIED] if len(images) > 2 else []
        shown[name] = images[2 * third :] if len(images) > 2 else images[1:]
    shown |= {name: list(unseen[name]) for name in strangers}
    return ScenePeople(seen, enrolled, tried, shown)


def train_detector(
    base: Path, people: People, folder: Path, seed: int, epochs: int | None = None
) -> tuple[Path, Path]:
    """Train a small detector of faces by ``mim train mmdet``; return its config and checkpoint.

    Args:
        base: config of the detection demo, whose network is made narrower here.
        people: whose faces stand in its scenes.
        folder: of the data and the run.
        seed: of the scenes and the run.
        epochs: number of epochs; None for 8.

    Raises:
        MimError: if the training fails.
    """
    make_face_scenes(people, folder / 'scenes', TRAIN_SCENES, seed)
    config = folder / 'face_detector.py'
    settings = _detector_settings(folder / 'scenes', seed, epochs or _EPOCHS)
    lines = ['# Written by tools/face/demo.py.', f'_base_ = {str(base)!r}']
    lines += [f'{key} = {pprint.pformat(value)}' for key, value in settings.items()]
    write_text(config, '\n'.join(lines) + '\n')
    run = folder / 'run'
    run_mim('train', config, '--work-dir', run)
    return config, Path((run / 'last_checkpoint').read_text(encoding='utf-8').strip())


def _detector_settings(data: Path, seed: int, epochs: int) -> dict[str, Any]:
    """Return what differs from the base config: a quarter of the width, three levels, one class."""
    resize = {'type': 'Resize', 'scale': (160, 160), 'keep_ratio': True}
    load = {'type': 'LoadImageFromFile', 'backend_args': None}
    boxes = {'type': 'LoadAnnotations', 'with_bbox': True}
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    pack = {'type': 'PackDetInputs', 'meta_keys': keys}
    files = {
        'data_root': str(data),
        'ann_file': 'faces.json',
        'data_prefix': {'img': 'images/'},
        'metainfo': {'_delete_': True, 'classes': ('face',)},
    }
    test = {
        'dataset': {**files, 'pipeline': [load, resize, boxes, pack]},
        'num_workers': 0,
        'persistent_workers': False,
    }
    return {
        'model': {
            'backbone': {'base_channels': 16},
            'neck': {'in_channels': [16, 32, 64, 128], 'out_channels': 32, 'num_outs': 3},
            'bbox_head': {
                'num_classes': 1,
                'in_channels': 32,
                'feat_channels': 32,
                'anchor_generator': {'strides': [8, 16, 32]},
            },
        },
        'train_dataloader': {
            'dataset': {**files, 'pipeline': [load, boxes, resize, {'type': 'PackDetInputs'}]},
        },
        'val_dataloader': None,  # the scenes of the test follow in run_scenes
        'val_cfg': None,
        'val_evaluator': None,
        'test_dataloader': test,
        'test_evaluator': {'ann_file': str(data / 'faces.json')},
        'train_cfg': {'max_epochs': epochs},
        'param_scheduler': [
            {'type': 'LinearLR', 'start_factor': 0.01, 'by_epoch': False, 'begin': 0, 'end': 30},
            {
                'type': 'CosineAnnealingLR',
                'T_max': epochs,
                'begin': 0,
                'end': epochs,
                'by_epoch': True,
                'convert_to_iter_based': True,
            },
        ],
        'default_hooks': {'checkpoint': {'interval': epochs}},
        'randomness': {'seed': seed},
    }


def find_threshold(recognizer: FaceRecognizer, known: People, others: People) -> float:
    """Return the threshold that decides best about images: the name, or that there is none.

    Known people and others weigh alike, however many images each have.

    Args:
        recognizer: with enrolled people; of an image, its first face counts.
        known: images of them.
        others: images of people who are not enrolled.

    Returns:
        float: in [-1, 1], midway between two similarities; 0.4 where ``known`` has no image.
    """
    scores: list[tuple[float, float]] = []  # similarity, and what accepting it gains
    for people, is_known in ((known, True), (others, False)):
        tried = [(name, image) for name, images in people.items() for image in images]
        found = recognizer.recognize([image for _, image in tried])
        for (name, _), faces in zip(tried, found, strict=True):
            for face in faces[:1]:
                right = is_known and face.candidates and face.candidates[0].name == name
                # A known face with a wrong name is wrong at every threshold.
                gain = (1 / len(tried) if right else 0.0) if is_known else -1 / len(tried)
                scores.append((-1.0 if face.similarity is None else face.similarity, gain))
    if not any(gain > 0 for _, gain in scores):
        return 0.4
    scores.sort(reverse=True)
    gained = np.cumsum([gain for _, gain in scores])
    place = int(np.argmax(gained))
    below = scores[place + 1][0] if place + 1 < len(scores) else -1.0
    return (scores[place][0] + below) / 2


def count_scenes(
    scenes: Mapping[Path, Sequence[PlacedFace]],
    found: Mapping[Path, Sequence[Recognition]],
    enrolled: Sequence[str],
) -> SceneCounts:
    """Count found faces and right names; each face takes the best box that overlaps it enough."""
    counts = np.zeros(7, int)
    for path, faces in scenes.items():
        left = list(found[path])
        for face in faces:
            best = max(left, key=lambda one: _iou(one.box, face.box), default=None)
            counts[0] += 1
            if best is None or _iou(best.box, face.box) < _LEAST_IOU:
                continue
            left.remove(best)
            counts[1] += 1
            if face.name in enrolled:
                counts[3:5] += 1, best.name == face.name
            else:
                counts[5:7] += 1, best.name == UNKNOWN
        counts[2] += len(left)
    return SceneCounts(*counts.tolist())


def _iou(one: Sequence[float], other: Sequence[float]) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared) if shared else 0.0


def run_scenes(
    people: ScenePeople,
    recogniser: tuple[Path, Path],
    detector: tuple[Path, Path],
    folder: Path,
    seed: int,
) -> tuple[SceneCounts, float, Path]:
    """Enrol people by photographs, name the faces in scenes, and draw some.

    The detector crops in all of them, so that faces are compared with faces cropped alike.

    Args:
        people: who is enrolled, and who is shown.
        recogniser: its config and checkpoint.
        detector: its config and checkpoint.
        folder: receives ``gallery/``, ``photographs/``, ``scenes/`` and ``recognised.png``.
        seed: of the scenes.

    Returns:
        tuple: the counts, the threshold, and the drawing.
    """
    whole = FaceRecognizer.from_files(
        config=recogniser[0],
        checkpoint=recogniser[1],
        detector_config=detector[0],
        detector_checkpoint=detector[1],
        largest_only=True,
    )
    photographs = folder / 'photographs'
    for name, images in make_portraits(people.enrolled, photographs / 'enrolled', seed + 2).items():
        whole.enrol(name, list(images))
    shutil.rmtree(folder / 'gallery', ignore_errors=True)  # of a run before
    whole.gallery.save(folder / 'gallery')
    few = max(1, _MOST_OTHERS // max(1, len(people.seen)))
    others = {name: images[:few] for name, images in people.seen.items()}
    threshold = find_threshold(
        whole,
        make_portraits(people.tried, photographs / 'tried', seed + 3),
        make_portraits(others, photographs / 'others', seed + 4),
    )
    whole.threshold, whole.largest_only = threshold, False
    scenes = make_face_scenes(people.in_scenes, folder / 'scenes', TEST_SCENES, seed + 1)
    found = dict(zip(scenes, whole.recognize(list(scenes)), strict=True))
    counts = count_scenes(scenes, found, list(people.enrolled))
    drawn = [whole.draw(path, found[path]) for path in list(scenes)[:_SHOWN]]
    write_image(folder / 'recognised.png', _sheet(drawn))
    write_json(
        folder / 'recognised.json',
        {
            'threshold': threshold,
            'enrolled': list(people.enrolled),
            'counts': counts._asdict(),
            'found': {path.name: [face.to_dict() for face in found[path]] for path in scenes},
        },
    )
    return counts, threshold, folder / 'recognised.png'


def _sheet(images: Sequence[np.ndarray]) -> np.ndarray:
    """Lay images out in rows, with a white line between them."""
    rows = -(-len(images) // _COLUMNS)
    sheet = np.full((rows * (SIDE + 4), _COLUMNS * (SIDE + 4), 3), 255, np.uint8)
    for number, image in enumerate(images):
        y, x = (SIDE + 4) * (number // _COLUMNS), (SIDE + 4) * (number % _COLUMNS)
        sheet[y : y + SIDE, x : x + SIDE] = image
    return sheet
