"""Figures and counts of the assignments of a data set's images, by one config or by two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmdet_ext.data.coco.image_names import choose_images, image_names
from mmdet_ext.detection.inspection.side import Side, Sight
from mmdet_ext.engine.errors import InputError
from mmdet_ext.plots.assignments import draw_assignments
from mmdet_ext.utils.files import write_json


def show_images(
    sides: Sequence[Side], wanted: Sequence[str], count: int, out: Path, seed: int
) -> Iterator[tuple[Path, list[Sight]]]:
    """Draw the assignments of chosen images, one PNG each, and write ``counts.json`` at the end.

    Args:
        sides: configs to show one above the other; the first one's data has the images.
        wanted: numbers, names or paths of images; empty for the first ones.
        count: number of images where none are wanted by name.
        out: folder to write to.
        seed: seed of samplers.

    Yields:
        tuple: PNG file, and one sight per side.

    Raises:
        InputError: if there is no such image, it cannot be shown, or a file cannot be written.
    """
    paths = sides[0].paths
    try:
        chosen = choose_images(paths, wanted) or range(min(count, len(paths)))
    except ValueError as error:
        raise InputError(f'--images {error}') from error
    counts = {}
    for index, name in image_names(paths, chosen).items():
        sights = [side.look(paths[index], seed) for side in sides]
        rows = [row for sight in sights for row in sight.rows]
        images = [sight.image for sight in sights for _ in sight.rows]
        counts[name] = [row.counts() for row in rows]
        path = out / f'{name}.png'
        with _writing(out):
            draw_assignments(images, rows, path)
        yield path, sights
    with _writing(out):
        write_json(out / 'counts.json', {'pictures': counts})


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f'cannot write to --out {out}: {error}') from error
