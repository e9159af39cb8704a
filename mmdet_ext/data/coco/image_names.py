"""Choice of images by name or number, and short unique names for files made from them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_CANDIDATES = 5


def choose_images(paths: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the numbers of the wanted images, each once.

    Args:
        paths: Paths of all images.
        wanted: Numbers from 0, paths, or ends of paths, of whole parts; the suffix may be left
            out.

    Raises:
        ValueError: If no image, or more than one, has such a name or number.

    >>> choose_images(['cam1/0001.jpg', 'cam2/0001.jpg'], ['cam2/0001', '0', '1'])
    [1, 0]
    """
    places = image_places(paths)
    return list(dict.fromkeys(_find(paths, places, name) for name in wanted))


def image_places(paths: Sequence[str]) -> dict[str, int]:
    """Return the number of each image by its absolute path, the first number of a repeated path."""
    places: dict[str, int] = {}
    for index, path in enumerate(paths):
        places.setdefault(os.path.abspath(path), index)
    return places


def image_names(paths: Sequence[str], chosen: Sequence[int]) -> dict[int, str]:
    """Name the chosen images after their files, with as many folders as make the name unique.

    Args:
        paths: Paths of all images.
        chosen: Numbers of the chosen images.

    Returns:
        A name per number, without a suffix, none twice.

    >>> image_names(['cam1/0001.jpg', 'cam2/0001.jpg', 'cam2/0002.jpg'], [1, 2])
    {1: 'cam2_0001', 2: '0002'}
    """
    parts = {place: Path(place).with_suffix('').parts[1:] for place in image_places(paths)}
    names: dict[int, str] = {}
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        times = Counter('_'.join(each[-depth:]) for each in parts.values())
        for index in chosen:
            name = '_'.join(parts[os.path.abspath(paths[index])][-depth:])
            if index not in names and times[name] == 1 and name not in names.values():
                names[index] = name
        if len(names) == len(chosen):
            break
    for index in chosen:  # an image without a name differs from another in its suffix alone
        if index not in names:
            name = f'{Path(paths[index]).stem}_{index}'
            while name in names.values():
                name += '_'
            names[index] = name
    return {index: names[index] for index in chosen}


def _find(paths: Sequence[str], places: dict[str, int], name: str) -> int:
    """Return the number of the one image that a name, path or number stands for."""
    # '000001' is the name of a file: numbers have no leading zeros.
    if name.isdecimal() and str(int(name)) == name and int(name) < len(paths):
        return int(name)
    if os.path.abspath(name) in places:
        return places[os.path.abspath(name)]
    end = os.path.join(os.sep, os.path.normpath(name))
    found = [
        place for place in places if place.endswith(end) or os.path.splitext(place)[0].endswith(end)
    ]
    if len(found) == 1 and not os.path.isabs(name):
        return places[found[0]]
    if found and not os.path.isabs(name):
        more = ', ...' if len(found) > _CANDIDATES else ''
        raise ValueError(
            f'{name} is the name of {len(found)} images; give more of the path, or the number: '
            f'{", ".join(found[:_CANDIDATES])}{more}'
        )
    raise ValueError(
        f'{name}: neither a number below {len(paths)} nor a file of this data, such as '
        f'{next(iter(paths), "")}'
    )
