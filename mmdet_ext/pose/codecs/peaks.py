"""Peaks of heatmaps, and their places within a cell."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Bounds of the values whose logarithms a blurred heatmap is refined by, as MMPose has them.
_LOWEST, _HIGHEST = 1e-3, 50.0
# An unbiased peak lies within half a cell of its highest pixel; noise may ask for more.
_FARTHEST = 0.75


class Peaks(NamedTuple):
    """Highest peaks of each heatmap, the best first.

    Attributes:
        values: (B, K, M); 0 where there are fewer peaks.
        cells: number y * W + x of the cell, (B, K, M).
    """

    values: Tensor
    cells: Tensor

    def places(self, width: int) -> Tensor:
        """Return x and y, in cells, (B, K, M, 2), float32."""
        rows = self.cells.div(width, rounding_mode='floor')
        return torch.stack([self.cells - rows * width, rows], -1).float()


def finite(maps: Tensor) -> Tensor:
    """Return maps without NaN and infinity, which become 0."""
    # A sum is finite only where all its terms are, and takes a tenth of the time of asking each.
    return maps if bool(maps.sum().isfinite()) else maps.nan_to_num(0.0, 0.0, 0.0)


def window_max(maps: Tensor, kernel: int) -> Tensor:
    """Return the largest value in the square around each pixel.

    Maxima of shifted maps, of 2, 4, 8 pixels and so on, take a fifth of the time of a pooling on a
    processor.

    Args:
        maps: (B, K, H, W).
        kernel: side of the square, odd.
    """
    half = kernel // 2
    largest = F.pad(maps, (half, half, half, half), value=-torch.inf)
    for dim in (3, 2):
        covered = 1
        while covered < kernel:
            step = min(covered, kernel - covered)
            length = largest.shape[dim] - step
            largest = torch.maximum(
                largest.narrow(dim, 0, length), largest.narrow(dim, step, length)
            )
            covered += step
    return largest


def find_peaks(heatmaps: Tensor, kernel: int, most: int, first_of_equal: bool = False) -> Peaks:
    """Find the pixels that are the largest of the square around them.

    Args:
        heatmaps: (B, K, H, W), finite.
        kernel: side of the square, odd.
        most: number M of peaks per heatmap; no more than it has pixels.
        first_of_equal: keep one of neighbours that are equal, the upper left one. A joint midway
            between two cells makes such a pair.
    """
    half = kernel // 2
    peak = heatmaps == window_max(heatmaps, kernel)
    if first_of_equal:
        # An equal pixel before this one, in the same row or above it, is the peak.
        padded = F.pad(heatmaps, (half, half, half, 0), value=-torch.inf)
        image, joint, y, x = (peak & (heatmaps > 0)).nonzero(as_tuple=True)
        value = heatmaps[image, joint, y, x]
        later = torch.zeros_like(value, dtype=torch.bool)
        for down in range(half + 1):
            for across in range(kernel if down < half else half):
                later |= padded[image, joint, y + down, x + across] == value
        peak[image[later], joint[later], y[later], x[later]] = False
    flat = (heatmaps * peak).flatten(2)
    return Peaks(*flat.topk(min(most, flat.shape[2]), 2))


def refine_by_quarter(places: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Move joints by a quarter of a cell towards the higher neighbour, as MMPose does.

    Args:
        places: x and y of whole cells, (N, K, 2).
        heatmaps: (K, H, W).
    """
    height, width = heatmaps.shape[1:]
    x, y = places[..., 0].astype(np.int64), places[..., 1].astype(np.int64)
    joint = np.arange(len(heatmaps))
    moved = places.copy()
    inner = (x > 1) & (x < width - 1) & (y > 0) & (y < height)
    left, right = np.where(inner, x - 1, 0), np.where(inner, x + 1, 0)
    moved[..., 0] += 0.25 * np.sign(heatmaps[joint, y, right] - heatmaps[joint, y, left]) * inner
    inner = (y > 1) & (y < height - 1) & (x > 0) & (x < width)
    up, down = np.where(inner, y - 1, 0), np.where(inner, y + 1, 0)
    moved[..., 1] += 0.25 * np.sign(heatmaps[joint, down, x] - heatmaps[joint, up, x]) * inner
    return moved


def refine_blurred(places: np.ndarray, heatmaps: np.ndarray, kernel: int) -> np.ndarray:
    """Move joints to the maximum of a second-order fit to the logarithm of the blurred heatmap.

    Args:
        places: x and y of whole cells, (N, K, 2).
        heatmaps: (K, H, W); they stay as they are.
        kernel: side of the Gaussian blur, odd.

    References:
        Huang et al., The Devil is in the Details: Delving into Unbiased Data Processing for Human
        Pose Estimation, 2020; the derivatives are those of MMPose's code.
    """
    joints, height, width = heatmaps.shape
    layers = [
        cv2.GaussianBlur(each, (kernel, kernel), 0, borderType=cv2.BORDER_CONSTANT)
        for each in np.ascontiguousarray(heatmaps)
    ]
    blurred = np.stack(layers)
    most = blurred.max((1, 2))
    scale = heatmaps.max((1, 2)) / np.where(most == 0, 1, most)
    padded = np.pad(blurred * scale[:, None, None], ((0, 0), (1, 1), (1, 1)), mode='edge')
    x, y = places[..., 0].astype(np.int64) + 1, places[..., 1].astype(np.int64) + 1
    joint = np.arange(joints)

    def log_at(right: int, down: int) -> np.ndarray:
        value = padded[joint, y + down, x + right]
        return np.log(np.clip(value, _LOWEST, _HIGHEST), dtype=np.float32)

    here, left, right = log_at(0, 0), log_at(-1, 0), log_at(1, 0)
    above, below = log_at(0, -1), log_at(0, 1)
    slope = np.stack([right - left, below - above], -1) / 2
    across, down = right - 2 * here + left, below - 2 * here + above
    mixed = (log_at(1, 1) - right - below + 2 * here - left - above + log_at(-1, -1)) / 2
    tiny = np.finfo(np.float32).eps
    hessian = np.stack([across + tiny, mixed, mixed, down + tiny], -1).reshape(*across.shape, 2, 2)
    singular = np.linalg.det(hessian) == 0
    hessian[singular] = np.eye(2)
    slope[singular] = 0
    return places - np.linalg.solve(hessian, slope[..., None])[..., 0].astype(places.dtype)


def refine_unbiased(peaks: Peaks, heatmaps: Tensor) -> Tensor:
    r"""Return the places of peaks, each at the maximum of a parabola through its neighbours.

    The logarithm of a Gaussian is a parabola, so that an undisturbed joint is found exactly:

    .. math:: x + \frac{l_{x-1} - l_{x+1}}{2 (l_{x-1} - 2 l_x + l_{x+1})}

    Args:
        peaks: of heatmaps (B, K, H, W).
        heatmaps: (B, K, H, W), finite.

    Returns:
        Tensor: x and y, in cells, (B, K, M, 2). A peak at the border does not move across it.

    References:
        Zhang et al., Distribution-Aware Coordinate Representation for Human Pose Estimation, 2020,
        equation 7, along each axis.
    """
    height, width = heatmaps.shape[2:]
    flat = heatmaps.flatten(2)
    places = peaks.places(width)
    for axis, (step, size) in enumerate(((1, width), (width, height))):
        place = places[..., axis]
        inner = (place >= 1) & (place <= size - 2)
        before, here, after = (
            flat.gather(2, torch.where(inner, peaks.cells + shift, peaks.cells))
            .clamp(min=torch.finfo(heatmaps.dtype).tiny)
            .log()
            for shift in (-step, 0, step)
        )
        bend = before - 2 * here + after
        move = (before - after) / (2 * bend)
        move = move.where(inner & (bend < 0), 0).clamp(-_FARTHEST, _FARTHEST)
        places[..., axis] = place + move
    return places
