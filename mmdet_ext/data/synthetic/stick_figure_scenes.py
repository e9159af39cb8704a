"""Scenes of jointed figures that hide one another: poses, painting, and what is seen of each joint.

Coordinates are those of pixels: the centre of the first pixel is at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

#: Standing height of a figure, as a share of the shorter side of the image.
HEIGHTS = (0.35, 0.95)
#: Smallest number of joints that are seen of a figure.
MIN_SEEN = 6
#: Smallest share of a figure's pixels that nothing hides.
MIN_VISIBLE = 0.45

_TRIES = 300
_LYING, _BACK, _CUT, _BOARD = 0.08, 0.25, 0.05, 0.4
# Parts by number; a joint is seen where the topmost pixel is of one of its parts.
_BOARD_PART, _TORSO, _HEAD, _EARS, _UPPER_ARM, _FOREARM, _THIGH, _SHIN = range(8)
_OWN_PARTS = (
    *(((_HEAD,),) * 3),
    *(((_EARS, _HEAD),) * 2),
    *(((_UPPER_ARM, _TORSO),) * 2),
    *(((_UPPER_ARM, _FOREARM),) * 2),
    *(((_FOREARM,),) * 2),
    *(((_THIGH, _TORSO),) * 2),
    *(((_THIGH, _SHIN),) * 2),
    *(((_SHIN,),) * 2),
)
_PARTS = 8
# Least and largest shade of a figure. Those of a scene differ: a part shows whose it is.
_SHADES = (0.3, 1.3)
# BGR of the arm and the leg of the left side, then of the right side.
_SIDE_COLOURS = (((30, 150, 250), (50, 50, 225)), ((235, 190, 40), (205, 75, 60)))

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


class StickFiguresError(ValueError):
    """Argument that cannot be used; the message is for users."""


class Piece(NamedTuple):
    """Painted part of a figure, or a board before it.

    Attributes:
        rows, columns: window of the image.
        cover: share of each of its pixels that the part covers, in [0, 1].
        colour: BGR.
        part: number of the part.
    """

    rows: slice
    columns: slice
    cover: NDArray[np.float32]
    colour: NDArray[np.float64]
    part: int


@dataclass(frozen=True)
class Figure:
    """Figure in a scene: its joints x, y (17, 2), which of them it has, and its painted parts.

    A figure that is seen from behind has eyes and a nose, but they are hidden.
    """

    joints: Points
    present: NDArray[np.bool_]
    front: bool
    pieces: list[Piece]


@dataclass(frozen=True)
class Scene:
    """Figures, the first one lowest, and what is seen of them.

    Attributes:
        figures: of the scene.
        boards: what is before each figure, and behind the next.
        flags: of each joint of each figure (N, 17): 0 absent or outside of the image, 1 hidden,
            2 seen.
        silhouettes: pixels of each figure, hidden ones included, (N, H, W).
        shares: share of those that nothing hides, (N,).
    """

    figures: list[Figure]
    boards: list[list[Piece]]
    flags: NDArray[np.int64]
    silhouettes: NDArray[np.bool_]
    shares: Points


def pose(rng: np.random.Generator, height: float) -> tuple[Points, NDArray[np.bool_], bool]:
    """Draw the pose of a figure whose hips are around the origin.

    Args:
        rng: source of the random numbers.
        height: of the figure if it stood, px.

    Returns:
        tuple: joints x, y (17, 2); which of them the figure has; whether it is seen from the front.
    """
    lying = rng.uniform() < _LYING
    lean = rng.uniform(-1.7, 1.7) if lying else rng.normal(0, 0.2)
    up = np.array([math.sin(lean), -math.cos(lean)])
    aside = np.array([math.cos(lean), math.sin(lean)])
    front = bool(rng.uniform() >= _BACK)
    # Whoever looks at us has the left side on our right.
    turned = rng.uniform(0.5, 1.0) * (1 if front else -1)
    neck = (up + aside * rng.normal(0, 0.08)) * 0.29
    head = neck + 0.11 * up + rng.normal(0, 0.012) * aside
    gaze = rng.uniform(-0.018, 0.018) * aside
    joints = np.zeros((17, 2))
    joints[0] = head + gaze - 0.012 * up
    for side, sign in enumerate((turned, -turned)):
        joints[1 + side] = head + gaze + sign * 0.03 * aside + 0.016 * up
        joints[3 + side] = head + sign * 0.068 * aside
        joints[5 + side] = neck + sign * 0.115 * aside
        joints[11 + side] = sign * 0.075 * aside
        outwards = math.copysign(1, sign) * aside
        for start, lengths, swing, bend in (
            (5, (0.165, 0.15), (-0.3, 2.6), (-0.3, 2.2)),
            (11, (0.24, 0.23), (-0.25, 0.9), (-1.2, 0.3)),
        ):
            angle = rng.uniform(*swing)
            for step, length in enumerate(lengths):
                angle += rng.uniform(*bend) if step else 0.0
                direction = math.sin(angle) * outwards - math.cos(angle) * up
                before = joints[start + 2 * step + side]
                joints[start + 2 * step + 2 + side] = before + length * direction
    present = np.ones(17, np.bool_)
    present[[9, 10, 15, 16]] = rng.uniform(size=4) >= _CUT
    return joints * height, present, front


def draw_scene(rng: np.random.Generator, width: int, height: int, people: tuple[int, int]) -> Scene:
    """Draw random figures for an image, the lowest first.

    A figure that would hide too much of an earlier one, or lie too far outside, is drawn again.

    Args:
        rng: source of the random numbers.
        width: of the image, px.
        height: of the image, px.
        people: least and largest number of figures.

    Raises:
        StickFiguresError: if the image has no room for so many figures.
    """
    count = int(rng.integers(*people, endpoint=True))
    shades = rng.permutation(np.linspace(*_SHADES, count + 2)[1:-1]) + rng.normal(0, 0.03, count)
    figures: list[Figure] = []
    boards: list[list[Piece]] = []
    for _ in range(_TRIES):
        if len(figures) == count:
            break
        size = min(width, height) * math.exp(rng.uniform(*np.log(HEIGHTS)))
        joints, present, front = pose(rng, size)
        middle = (joints.min(0) + joints.max(0)) / 2
        joints = joints - middle + rng.uniform((0, 0), (width, height))
        if _inside(joints, width, height).sum() < MIN_SEEN + 2:
            continue
        pieces = _pieces(rng, joints, present, front, size, shades[len(figures)], width, height)
        before = _board(rng, width, height) if rng.uniform() < _BOARD / count else []
        figure = Figure(joints, present, front, pieces)
        scene = _look([*figures, figure], [*boards, before], width, height)
        if ((scene.flags == 2).sum(1) >= MIN_SEEN).all() and (scene.shares >= MIN_VISIBLE).all():
            figures, boards = scene.figures, scene.boards
    if len(figures) < count:
        raise StickFiguresError(
            f'images of {width}x{height} have no room for {count} people; make them larger, or '
            'have fewer'
        )
    return _look(figures, boards, width, height)


def render(rng: np.random.Generator, scene: Scene, width: int, height: int) -> Pixels:
    """Paint a scene over a textured background.

    Returns:
        Pixels, (height, width, 3), channels in the order BGR.
    """
    ground = rng.uniform(60, 190) + rng.uniform(-30, 30, 3)
    image = np.broadcast_to(ground, (height, width, 3)).astype(np.float32)
    for cell, strength, channels in ((64, 10, 3), (24, 18, 1), (20, 8, 3), (6, 9, 1)):
        grid = rng.normal(0, strength, (height // cell + 2, width // cell + 2, channels))
        image += cv2.resize(
            grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        ).reshape(height, width, channels)
    for figure, before in zip(scene.figures, scene.boards, strict=True):
        for piece in (*figure.pieces, *before):
            window = image[piece.rows, piece.columns]
            window += piece.cover[..., None] * (piece.colour.astype(np.float32) - window)
    image += rng.normal(0, rng.uniform(3, 8), image.shape).astype(np.float32)
    return np.asarray(image.clip(0, 255).round(), np.uint8)


def _inside(joints: Points, width: int, height: int) -> NDArray[np.bool_]:
    """Say which joints lie in a pixel of the image."""
    cells = np.rint(joints)
    return np.asarray(((cells >= 0) & (cells < (width, height))).all(1))


def _look(figures: list[Figure], boards: list[list[Piece]], width: int, height: int) -> Scene:
    """Find out what is seen of each figure."""
    top = np.full((height, width), -1, np.int16)
    silhouettes = np.zeros((len(figures), height, width), np.bool_)
    for number, (figure, before) in enumerate(zip(figures, boards, strict=True)):
        for piece in (*figure.pieces, *before):
            covered = piece.cover >= 0.5
            board = piece.part == _BOARD_PART
            top[piece.rows, piece.columns][covered] = -1 if board else number * _PARTS + piece.part
            if not board:
                silhouettes[number, piece.rows, piece.columns] |= covered
    flags = np.zeros((len(figures), 17), np.int64)
    shares = np.zeros(len(figures))
    for number, figure in enumerate(figures):
        shares[number] = ((top >= 0) & (top // _PARTS == number)).sum()
        shares[number] /= max(silhouettes[number].sum(), 1)
        for joint in (_inside(figure.joints, width, height) & figure.present).nonzero()[0]:
            x, y = np.rint(figure.joints[joint]).astype(int)
            seen = any(top[y, x] == number * _PARTS + part for part in _OWN_PARTS[joint])
            flags[number, joint] = 2 if seen and (figure.front or joint > 2) else 1
    return Scene(figures, boards, flags, silhouettes, shares)


def _board(rng: np.random.Generator, width: int, height: int) -> list[Piece]:
    """Draw a board across the image, which hides what is behind it."""
    side = min(width, height)
    middle = rng.uniform((0, 0), (width, height))
    angle, length = rng.uniform(0, math.pi), rng.uniform(0.2, 0.5) * side
    reach = length / 2 * np.array([math.cos(angle), math.sin(angle)])
    colour = rng.uniform(40, 200) + rng.uniform(-25, 25, 3)
    ends = np.stack([middle - reach, middle + reach])
    return _shape(ends, rng.uniform(0.025, 0.05) * side, colour, _BOARD_PART, width, height)


def _pieces(
    rng: np.random.Generator,
    joints: Points,
    present: NDArray[np.bool_],
    front: bool,
    size: float,
    shade: float,
    width: int,
    height: int,
) -> list[Piece]:
    """Paint a figure, the parts behind first."""
    torso = rng.uniform(30, 230, 3) * shade
    skin = np.array([130, 165, 215]) * shade
    sides = (np.array(_SIDE_COLOURS) + rng.normal(0, 8, (2, 2, 3))) * shade
    near = int(rng.integers(3))  # the arm before the trunk, or both

    def paint(points: Points, radius: float, colour: NDArray[np.float64], part: int) -> list[Piece]:
        return _shape(points, max(radius * size, 1.1), colour, part, width, height)

    def limb(first: int, side: int, thickness: float, colour: NDArray[np.float64]) -> list[Piece]:
        parts = (_UPPER_ARM, _FOREARM) if first == 5 else (_THIGH, _SHIN)
        pieces = []
        for step in (1, 0):  # the upper part lies on the lower one
            ends = [first + 2 * step + side, first + 2 * step + 2 + side]
            if present[ends[1]]:
                shade = colour * (1.0 if step else 0.8)
                pieces += paint(joints[ends], thickness, shade, parts[step])
                pieces += paint(joints[ends[1:]], 1.3 * thickness, colour * 1.25, parts[step])
        return [*pieces, *paint(joints[[first + side]], 1.3 * thickness, colour * 1.25, parts[0])]

    arms = [limb(5, side, 0.02, sides[side, 0]) for side in (0, 1)]
    pieces = [piece for side in (0, 1) if near == side for piece in arms[1 - side]]
    for side in rng.permutation(2).tolist():
        pieces += limb(11, side, 0.025, sides[side, 1])
    head = joints[[3, 4]].mean(0, keepdims=True)
    pieces += paint(np.stack([joints[[5, 6]].mean(0), head[0]]), 0.022, skin * 0.85, _TORSO)
    pieces += paint(joints[[5, 6, 12, 11]], 0.012, torso, _TORSO)
    for side in (0, 1):
        pieces += paint(joints[[3 + side]], 0.022, sides[side, 0], _EARS)
    pieces += paint(head, 0.066, skin if front else torso * 0.4, _HEAD)
    if front:
        for side in (0, 1):
            pieces += paint(joints[[1 + side]], 0.014, sides[side, 0] * 0.9, _HEAD)
        pieces += paint(joints[[0]], 0.013, np.array([60.0, 50.0, 120.0]) * shade, _HEAD)
    return [*pieces, *(piece for side in (0, 1) if near in (side, 2) for piece in arms[side])]


def _shape(
    points: Points,
    radius: float,
    colour: NDArray[np.float64],
    part: int,
    width: int,
    height: int,
) -> list[Piece]:
    """Paint a disc (1 point), a capsule (2), or a polygon with rounded corners.

    Returns:
        The piece; none where all of it is outside of the image.
    """
    first = np.floor(points.min(0) - radius - 1).clip(0).astype(int)
    last = np.minimum(np.ceil(points.max(0) + radius + 1), (width - 1, height - 1)).astype(int)
    if (last < first).any():
        return []
    x = np.arange(first[0], last[0] + 1, dtype=float)
    y = np.arange(first[1], last[1] + 1, dtype=float)[:, None]
    edges = [(points[i], points[(i + 1) % len(points)]) for i in range(len(points))]
    distance = np.min(
        [_to_segment(x, y, *edge) for edge in edges[: 1 if len(points) < 3 else None]], 0
    )
    if len(points) > 2:
        turns = np.array([_beside(x, y, *edge) > 0 for edge in edges])
        distance = np.where(turns.all(0) | ~turns.any(0), 0, distance)
    cover = np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)
    rows, columns = slice(first[1], last[1] + 1), slice(first[0], last[0] + 1)
    return [Piece(rows, columns, cover, np.asarray(colour, float), part)]


def _to_segment(x: Points, y: Points, start: Points, end: Points) -> Points:
    """Compute the distance of pixels from a segment, which may be a point."""
    axis = end - start
    square = max(float(axis @ axis), 1e-12)
    along = np.clip(((x - start[0]) * axis[0] + (y - start[1]) * axis[1]) / square, 0, 1)
    return np.hypot(x - start[0] - along * axis[0], y - start[1] - along * axis[1])


def _beside(x: Points, y: Points, start: Points, end: Points) -> Points:
    """Compute on which side of a line pixels lie, as a sign."""
    axis = end - start
    return np.asarray(axis[0] * (y - start[1]) - axis[1] * (x - start[0]))
