"""Folders of people in a gallery: enrol them, search for images, count right and wrong names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from mmdet_ext.data.face.folder import FaceList, list_faces
from mmdet_ext.data.images import image_problem
from mmdet_ext.face.gallery import FaceGallery, GalleryError, open_set_figures
from mmdet_ext.face.gallery.people import check_name

#: Context that yields the images of a list one by one, such as with a progress bar.
Track = Callable[[Sequence[Path]], AbstractContextManager[Iterator[Path]]]
_EXAMPLES = 5


class Embedder(Protocol):
    """Recogniser that embeds image files."""

    def embed(self, images: Sequence[Path]) -> np.ndarray:
        """Compute embeddings (N, D) of N images; raise ValueError or OSError for a bad one."""
        ...


def plain(images: Sequence[Path]) -> AbstractContextManager[Iterator[Path]]:
    """Yield images one by one, without a progress bar."""
    return nullcontext(iter(images))


def embed_files(
    embedder: Embedder, files: Sequence[Path], track: Track = plain
) -> tuple[np.ndarray, list[int], dict[str, str]]:
    """Compute the embeddings of the images that can be read.

    Args:
        embedder: the recogniser.
        files: images, N of them.
        track: context around the loop.

    Returns:
        tuple: embeddings (M, D), the places (M,) of their images among ``files``, and of each other
        image the reason why it has none.

    Raises:
        GalleryError: if no image can be read.
    """
    rows, kept, unread = [], [], {}
    with track(files) as tracked:
        for place, file in enumerate(tracked):
            problem = image_problem(file)
            try:
                if problem is None:
                    rows.append(embedder.embed([file])[0])
                    kept.append(place)
            except (ValueError, OSError) as error:
                problem = str(error)
            if problem is not None:
                unread[str(file)] = problem
    if not rows:
        first = next(iter(unread.items()), ('there is no image', 'nothing was given'))
        raise GalleryError(f'none of {len(files)} images can be read. {first[0]}: {first[1]}')
    return np.stack(rows), kept, unread


def enrol_folder(
    gallery: FaceGallery,
    folder: Path,
    embedder: Embedder,
    recogniser: str,
    existing: Literal['error', 'add', 'skip'] = 'error',
    track: Track = plain,
) -> dict[str, Any]:
    """Enrol a folder with one folder per person; the gallery is not saved.

    Args:
        gallery: to enrol into.
        folder: with one folder per person, named as the person.
        embedder: the recogniser.
        recogniser: its identifier.
        existing: people who are enrolled already: 'error' refuses them, 'add' adds the images to
            theirs, 'skip' leaves them as they are.
        track: context around the loop.

    Returns:
        dict: ``enrolled`` (images per person), ``skipped``, ``unread`` (reason per image),
        ``without_image`` (people of whom no image can be read) and ``left_out`` (files of the
        folder that are no images of people).

    Raises:
        GalleryError, LayoutError: if nothing can be enrolled. The gallery does not change then.
    """
    faces = list_faces(folder, bad_images='unchecked')
    known = [name for name in faces.classes if name in gallery]
    if known and existing == 'error':
        raise GalleryError(
            f'{len(known)} of {len(faces.classes)} people are enrolled already: '
            f'{", ".join(known[:_EXAMPLES])}. Choose: existing add (their images are added) or '
            'skip'
        )
    for name in faces.classes:
        check_name(name)
    skipped = known if existing == 'skip' else []
    pairs = [(path, name) for path, name in _images(faces) if name not in skipped]
    report: dict[str, Any] = {'enrolled': {}, 'skipped': skipped, 'unread': {}}
    if pairs:
        rows, kept, unread = embed_files(embedder, [path for path, _ in pairs], track)
        names = [pairs[place][1] for place in kept]
        gallery.enrol(names, rows, recogniser)
        report['unread'] = unread
        report['enrolled'] = {name: names.count(name) for name in dict.fromkeys(names)}
    people = {name for _, name in pairs}
    report['without_image'] = sorted(people - set(report['enrolled']))
    report['left_out'] = str(faces.left_out)
    return report


def search_files(
    gallery: FaceGallery,
    files: Sequence[Path],
    embedder: Embedder,
    recogniser: str,
    k: int = 1,
    threshold: float | None = None,
    track: Track = plain,
) -> dict[str, Any]:
    """Search for the people of images.

    Returns:
        dict: ``found`` (per image its name and candidates) and ``unread`` (reason per image).
    """
    rows, kept, unread = embed_files(embedder, files, track)
    found = gallery.search(rows, k, threshold, recogniser)
    return {
        'found': {
            str(files[place]): {
                'name': each.name,
                'candidates': [candidate._asdict() for candidate in each.candidates],
            }
            for place, each in zip(kept, found, strict=True)
        },
        'unread': unread,
    }


def evaluate_folder(
    gallery: FaceGallery,
    folder: Path,
    embedder: Embedder,
    recogniser: str,
    threshold: float,
    track: Track = plain,
) -> dict[str, Any]:
    """Search for the people of a folder, and count right and wrong names.

    People whose folder has the name of an enrolled person are known, all others unknown. The images
    should be others than the enrolled ones: those are found in any case.

    Returns:
        dict: ``rates`` and ``counts`` of `OpenSetFigures`, ``threshold``, ``wrong`` (per image with
        a wrong name: who it is, the name, the cosine), and ``unread``.
    """
    faces = list_faces(folder, bad_images='unchecked')
    pairs = _images(faces)
    rows, kept, unread = embed_files(embedder, [path for path, _ in pairs], track)
    found = gallery.search(rows, 1, threshold, recogniser)
    labels = [pairs[place][1] for place in kept]
    figures = open_set_figures(found, labels, gallery)
    wrong = {
        str(pairs[place][0]): {
            'person': label,
            'name': each.name,
            'cosine': each.candidates[0].cosine if each.candidates else None,
        }
        for place, label, each in zip(kept, labels, found, strict=True)
        if each.name != (label if label in gallery else 'unknown')
    }
    return {
        'threshold': threshold,
        'rates': figures.rates,
        'counts': asdict(figures),
        'wrong': wrong,
        'unread': unread,
        'left_out': str(faces.left_out),
    }


def _images(faces: FaceList) -> list[tuple[Path, str]]:
    return [
        (Path(path), faces.classes[label])
        for path, label in zip(faces.paths, faces.labels, strict=True)
    ]
