"""Folders and files of images through a `FaceRecognizer`: enrol people, name faces, draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2

from mmdet_ext.data.face.folder import list_faces
from mmdet_ext.data.images import image_problem
from mmdet_ext.deploy.images import read_image
from mmdet_ext.face.gallery import GalleryError
from mmdet_ext.face.gallery.people import check_name
from mmdet_ext.face.recognition import FaceRecognizer
from mmdet_ext.face.studies.gallery_folders import Track, plain
from mmdet_ext.utils.files import whole_file

_EXAMPLES = 5


def people_of_folder(folder: Path) -> dict[str, list[Path]]:
    """Return the images of each person of a folder with one folder per person.

    Raises:
        LayoutError: if it has another layout.
    """
    faces = list_faces(folder, bad_images='unchecked')
    people: dict[str, list[Path]] = {name: [] for name in faces.classes}
    for path, label in zip(faces.paths, faces.labels, strict=True):
        people[faces.classes[label]].append(Path(path))
    return people


def enrol_people(
    recognizer: FaceRecognizer,
    people: dict[str, list[Path]],
    existing: Literal['error', 'add', 'skip'] = 'error',
    track: Track = plain,
) -> dict[str, Any]:
    """Enrol people by images with one face each; the gallery is not saved.

    Args:
        recognizer: whose gallery takes them.
        people: images of each name.
        existing: people who are enrolled already: 'error' refuses them, 'add' adds the images to
            theirs, 'skip' leaves them as they are.
        track: context around the loop over the images.

    Returns:
        dict: ``enrolled`` (images per person), ``skipped`` (people), ``refused`` (reason per
        image) and ``without_image`` (people of whom no image could be used).

    Raises:
        GalleryError: if a name cannot be used, people are enrolled already, or nobody can be
            enrolled. The gallery does not change then.
    """
    for name in people:
        check_name(name)
    known = [name for name in people if name in recognizer.gallery]
    if known and existing == 'error':
        raise GalleryError(
            f'{len(known)} of {len(people)} people are enrolled already: '
            f'{", ".join(known[:_EXAMPLES])}. Choose: existing add (their images are added) or '
            'skip'
        )
    skipped = known if existing == 'skip' else []
    owner = {path: name for name, paths in people.items() if name not in skipped for path in paths}
    report: dict[str, Any] = {'enrolled': {}, 'skipped': skipped, 'refused': {}}
    with track(list(owner)) as tracked:
        for path in tracked:
            problem = image_problem(path)
            if problem is None:
                done = recognizer.enrol(owner[path], [path])
                problem = done.refused[0].reason if done.refused else None
            if problem is not None:
                report['refused'][str(path)] = problem
                continue
            report['enrolled'][owner[path]] = report['enrolled'].get(owner[path], 0) + 1
    if owner and not report['enrolled']:
        path, reason = next(iter(report['refused'].items()))
        raise GalleryError(f'none of {len(owner)} images can be enrolled. {path}: {reason}')
    wanted = {name for name in people if name not in skipped}
    report['without_image'] = sorted(wanted - set(report['enrolled']))
    return report


def recognize_files(
    recognizer: FaceRecognizer, files: Sequence[Path], out: Path | None = None, track: Track = plain
) -> dict[str, Any]:
    """Name the faces of image files, and draw them.

    Args:
        recognizer: with the gallery.
        files: images.
        out: folder for the drawn images; None draws none.
        track: context around the loop over the images.

    Returns:
        dict: ``found`` (the faces of each image), ``drawn`` (file per image) and ``unread`` (reason
        per image).

    Raises:
        GalleryError: if no image can be read.
    """
    report: dict[str, Any] = {'found': {}, 'drawn': {}, 'unread': {}}
    names = dict(zip(files, drawing_names(files), strict=True))
    with track(files) as tracked:
        for file in tracked:
            try:
                problem = image_problem(file)
                if problem is None:
                    image = read_image(file)
                    (found,) = recognizer.recognize(image)
            except (ValueError, OSError) as error:
                problem = str(error)
            if problem is not None:
                report['unread'][str(file)] = problem
                continue
            report['found'][str(file)] = [face.to_dict() for face in found]
            if out is not None:
                write_image(out / names[file], recognizer.draw(image, found))
                report['drawn'][str(file)] = str(out / names[file])
    if files and not report['found']:
        path, reason = next(iter(report['unread'].items()))
        raise GalleryError(f'none of {len(files)} images can be read. {path}: {reason}')
    return report


def drawing_names(files: Sequence[Path]) -> list[str]:
    """Return a name for the drawing of each file, distinct where files share theirs.

    >>> drawing_names([Path('a/door.jpg'), Path('b/door.png'), Path('c/Door.png')])
    ['door.png', 'door_2.png', 'Door_3.png']
    """
    taken: set[str] = set()
    names = []
    for file in files:
        name, number = f'{file.stem}.png', 1
        while name.lower() in taken:  # some file systems take Door.png for door.png
            number += 1
            name = f'{file.stem}_{number}.png'
        taken.add(name.lower())
        names.append(name)
    return names


def write_image(path: Path, image: Any) -> None:
    """Write an image, whole or not at all; the ending of the name is its format."""
    done, content = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f'OpenCV cannot write {path}')
    with whole_file(path) as part:
        part.write_bytes(content.tobytes())
