"""Scenes of shapes that hide one another: geometry, random placement and painting."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ('circle', 'square', 'triangle')
CLASS_SHARES = (20 / 25, 4 / 25, 1 / 25)
SHAPES_PER_IMAGE = (6, 20)
#: Shape that no class has, for background that looks like an object.
DISTRACTOR = 'pentagon'
MIN_SIZE = 8.0
MIN_VISIBLE = 0.3
MIN_INSIDE = 0.5

_CORNER_COUNTS = {'circle': 0, 'square': 4, 'triangle': 3, DISTRACTOR: 5}
# A multiple of 4, so that the outermost points of a circle are among the corners.
_CIRCLE_CORNERS = 48
_TRIES, _TRIES_PER_SIZE, _SHRINK = 2000, 50, 0.8
_RIM, _RIM_SHADE = 1.5, 0.55
_COLOUR_TRIES, _MIN_CONTRAST = 8, 110.0

Pixels = NDArray[np.uint8]
Cover = tuple[tuple[slice, slice], NDArray[np.float32]]


class ShapesError(ValueError):
    """Argument that cannot be used; the message is for users."""


@dataclass(frozen=True)
class Contents:
    """Numbers of shapes of a scene.

    Attributes:
        shapes: Fewest and most shapes of the classes.
        distractors: Fewest and most shapes that no class has.

    Raises:
        ShapesError: If a number is negative, or the fewest are more than the most.
    """

    shapes: tuple[int, int] = SHAPES_PER_IMAGE
    distractors: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name, (fewest, most) in (('shapes', self.shapes), ('distractors', self.distractors)):
            if not 0 <= fewest <= most:
                raise ShapesError(
                    f'{name} are from {fewest} to {most}; expected two numbers, at least 0, the '
                    'smaller one first'
                )


@dataclass(frozen=True)
class Shape:
    """Circle or regular polygon; ``centre`` and ``radius`` (up to the corners) are in pixels."""

    name: str
    centre: tuple[float, float]
    radius: float
    angle: float = 0.0

    def corners(self) -> NDArray[np.float64]:
        """Return the corners as x, y, shape (K, 2); K is 0 for a circle."""
        count = _CORNER_COUNTS[self.name]
        angles = self.angle + 2 * math.pi * np.arange(count) / max(count, 1)
        return self.centre + self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def area(self) -> float:
        """Return the area in square pixels, including the part outside the image."""
        count = _CORNER_COUNTS[self.name]
        return self.radius**2 * (count / 2 * math.sin(2 * math.pi / count) if count else math.pi)

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the edges x0, y0, x1, y1 of the part within the image, which holds the centre."""
        if self.name == 'circle':
            points = np.array(self.centre) + [[-self.radius], [self.radius]]
        else:  # a corner beyond the image does not count, only the parts of its edges within
            points = self.outline(width, height)
        x0, y0 = points.min(axis=0).clip(0).tolist()
        x1, y1 = points.max(axis=0).clip(max=(width, height)).tolist()
        return x0, y0, x1, y1

    def outline(self, width: int, height: int) -> NDArray[np.float64]:
        """Return the corners x, y, shape (K, 2), of the part within the image.

        A circle is a polygon of 48 corners, whose area is 0.3 % below its own.
        """
        corners = self.corners()
        if self.name == 'circle':
            angles = np.linspace(0, 2 * math.pi, _CIRCLE_CORNERS, endpoint=False)
            corners = self.centre + self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return _cut(_cut(corners, 0, width), 1, height)


def _cut(corners: NDArray[np.float64], axis: int, limit: int) -> NDArray[np.float64]:
    """Clip a convex polygon, corners (K, 2), to the strip from 0 to ``limit`` along an axis."""
    for outwards, bound in ((-1, 0), (1, limit)):
        beyond = outwards * (corners[:, axis] - bound)
        kept = []
        for here, there, a, b in zip(
            corners, np.roll(corners, -1, axis=0), beyond, np.roll(beyond, -1), strict=True
        ):
            if a <= 0:
                kept.append(here)
            if a * b < 0:
                kept.append(here + (there - here) * a / (a - b))
        corners = np.array(kept)
    return corners


class _Layers:
    """Stack of shapes that knows the visible part of each while later ones are laid on top."""

    def __init__(self, width: int, height: int, capacity: int) -> None:
        self._seen = np.zeros((capacity, height, width), np.float32)
        self._areas = np.zeros(0)
        self._left = np.zeros(0)

    def add(self, shape: Shape, min_inside: float = 0.0, min_visible: float = 0.0) -> bool:
        """Lay a shape on top, unless it leaves too little of itself inside or of a shape below.

        Args:
            shape: The shape.
            min_inside: Smallest share of its area within the image, in [0, 1].
            min_visible: Smallest visible share of every shape below, in [0, 1].

        Returns:
            Whether the shape was laid on top.
        """
        count, height, width = len(self._left), *self._seen.shape[1:]
        (rows, columns), cover = coverage(shape, width, height)
        below = self._seen[:count, rows, columns]
        hidden = below * cover
        left = self._left - hidden.sum(axis=(1, 2), dtype=np.float64)
        area = cover.sum(dtype=np.float64)
        if area < min_inside * shape.area() or (left < min_visible * self._areas).any():
            return False
        below -= hidden
        self._seen[count, rows, columns] = cover
        self._left, self._areas = np.append(left, area), np.append(self._areas, area)
        return True

    def visible(self) -> list[float]:
        """Return the visible share of each shape's area within the image."""
        return [float(share) for share in self._left / self._areas]


def coverage(shape: Shape, width: int, height: int, inset: float = 0.0) -> Cover:
    """Compute the share of each pixel that a shape covers, in a window around the shape.

    Args:
        shape: The shape.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        inset: Distance in pixels by which the shape's outline is moved inwards.

    Returns:
        The window (rows, columns) of the image, and the shares in it, in [0, 1].
    """
    x0, y0, x1, y1 = shape.box(width, height)
    left, top = math.floor(x0), math.floor(y0)
    xs = np.arange(left, max(math.ceil(x1), left)) + 0.5
    ys = np.arange(top, max(math.ceil(y1), top))[:, None] + 0.5
    corners = shape.corners()
    if shape.name != 'circle':
        # A point is within a convex polygon if no edge has a positive signed distance from it.
        middles = (corners + np.roll(corners, -1, axis=0)) / 2 - shape.centre
        reach = np.linalg.norm(middles, axis=1)
        normals = middles / reach[:, None]
        distance = np.max(
            [
                normal[0] * (xs - shape.centre[0]) + normal[1] * (ys - shape.centre[1]) - far
                for normal, far in zip(normals, reach, strict=True)
            ],
            axis=0,
        )
    else:
        distance = np.hypot(xs - shape.centre[0], ys - shape.centre[1]) - shape.radius
    window = slice(top, top + len(ys)), slice(left, left + len(xs))
    return window, np.clip(0.5 - distance - inset, 0, 1).astype(np.float32)


def visible_shares(shapes: list[Shape], width: int, height: int) -> list[float]:
    """Compute the share of each shape's area within the image that no later shape hides."""
    layers = _Layers(width, height, len(shapes))
    for shape in shapes:
        layers.add(shape)
    return layers.visible()


def draw_scene(
    rng: np.random.Generator, width: int, height: int, contents: Contents | None = None
) -> list[Shape]:
    """Draw random shapes for an image, the lowest first; distractors lie on top.

    A shape that would hide too much of an earlier one, or lie too far outside, is placed again. It
    keeps its class, so that crowding does not shift ``CLASS_SHARES``, and keeps its size until many
    places have failed.

    Args:
        rng: Source of the random numbers.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        contents: Numbers of shapes; by default `SHAPES_PER_IMAGE`, and no distractors.

    Returns:
        The shapes.

    Raises:
        ShapesError: If the image has no room for so many shapes.
    """
    contents = contents or Contents()
    names = rng.choice(
        CLASSES, int(rng.integers(*contents.shapes, endpoint=True)), p=CLASS_SHARES
    ).tolist()
    if contents.distractors[1]:  # otherwise no random number is taken
        names += [DISTRACTOR] * int(rng.integers(*contents.distractors, endpoint=True))
    sizes = np.exp(rng.uniform(math.log(MIN_SIZE), math.log(min(width, height) / 2), len(names)))
    layers = _Layers(width, height, len(names))
    return [
        _place(rng, name, size, layers, width, height)
        for name, size in zip(names, sizes.tolist(), strict=True)
    ]


def render(rng: np.random.Generator, shapes: list[Shape], width: int, height: int) -> Pixels:
    """Paint shapes, the first one lowest, over a noisy background.

    Returns:
        Pixels, shape (height, width, 3), channels in the order BGR.
    """
    base = rng.uniform(60, 200, 3)
    image = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
    for cell, strength, channels in ((48, 14, 3), (16, 12, 1), (5, 8, 1)):
        grid = rng.normal(0, strength, (height // cell + 2, width // cell + 2, channels))
        image += cv2.resize(
            grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        ).reshape(height, width, channels)
    for shape in shapes:
        colours = rng.uniform(15, 240, (_COLOUR_TRIES, 3))
        contrast = np.linalg.norm(colours - base, axis=1)
        enough = contrast >= _MIN_CONTRAST
        colour = colours[enough.argmax() if enough.any() else contrast.argmax()]
        for inset, shade in ((0.0, _RIM_SHADE), (_RIM, 1.0)):
            window, cover = coverage(shape, width, height, inset)
            paint = (shade * colour).astype(np.float32)
            image[window] += cover[..., None] * (paint - image[window])
    image += rng.normal(0, rng.uniform(3, 8), image.shape).astype(np.float32)
    return np.asarray(image.clip(0, 255).round(), np.uint8)


def _place(
    rng: np.random.Generator, name: str, size: float, layers: _Layers, width: int, height: int
) -> Shape:
    """Place a shape whose bounding box has a longer side of ``size`` pixels, or of fewer."""
    for attempt in range(1, _TRIES + 1):
        angle = rng.uniform(0, 2 * math.pi)
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        corners = Shape(name, (0.0, 0.0), 1.0, angle).corners()
        extent = float(np.ptp(corners, axis=0).max()) if len(corners) else 2.0
        shape = Shape(name, centre, size / extent, angle)
        if layers.add(shape, MIN_INSIDE, MIN_VISIBLE):
            return shape
        if attempt % _TRIES_PER_SIZE == 0:
            size = max(size * _SHRINK, MIN_SIZE)
    raise ShapesError(
        f'images of {width}x{height} have no room for so many shapes; make them larger'
    )
