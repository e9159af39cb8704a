"""Splits of a set of faces into parts without a common identity, or of the same identities."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from mmdet_ext.data.reports import LayoutError

_PARTS = {'identity_split': 'train', 'picture_split': 'first'}


def check_split(option: str, value: Any, split: Callable[..., Any]) -> None:
    """Raise ValueError unless ``value`` holds arguments of ``split`` other than its first one."""
    _, *parameters = inspect.signature(split).parameters.values()
    needed = {p.name for p in parameters if p.default is p.empty}
    shown = ', '.join(
        p.name if p.default is p.empty else f'{p.name}={p.default}' for p in parameters
    )
    if not isinstance(value, Mapping) or not needed <= set(value) <= {p.name for p in parameters}:
        raise ValueError(
            f'{option} must be a dict({shown}), such as dict(part={_PARTS[option]!r}'
            f'{", count=1" if "count" in needed else ""}), got {value!r}'
        )


def split_identities(
    names: Iterable[str],
    part: Literal['train', 'val', 'test'],
    val_fraction: float = 0.2,
    test_fraction: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Select the names that belong to a part.

    Names are ranked by a hash of seed and name. The first ranks are 'test', the next are 'val', and
    the rest are 'train'. The three parts have no name in common, and together are all names.

    Args:
        names: names of all identities, in any order, without repeats.
        part: the part to return.
        val_fraction: share of 'val', in [0, 1). A share above 0 gives at least one name.
        test_fraction: share of 'test', in [0, 1). Both shares together are below 1.
        seed: seed of the ranking.

    Returns:
        The names of the part, in the order of ``names``.

    Raises:
        ValueError: if ``part`` is none of the three, or its share is 0 or out of range.
        LayoutError: (a ValueError) if there are too few names.

    >>> split_identities('abcdefgh', 'val', val_fraction=0.25)
    ['f', 'h']
    """
    names = list(names)
    if part not in ('train', 'val', 'test'):
        raise ValueError(f"identity_split: part must be 'train', 'val' or 'test', got {part!r}")
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise ValueError(
            'identity_split: val_fraction and test_fraction must be at least 0 and together below '
            f'1, got {val_fraction} and {test_fraction}'
        )
    if {'train': 1, 'val': val_fraction, 'test': test_fraction}[part] == 0:
        raise ValueError(f'identity_split: part {part!r} asked for, but {part}_fraction is 0')
    test, val = (
        max(round(len(names) * share), share > 0) for share in (test_fraction, val_fraction)
    )
    if test + val >= len(names):
        raise LayoutError(
            f'identity_split: {len(names)} identities are too few for parts of {test} (test), '
            f'{val} (val) and at least 1 (train)'
        )
    ranked = sorted(
        names, key=lambda name: hashlib.sha256(f'{seed}:{name}'.encode(errors='replace')).digest()
    )
    cuts = {'test': (0, test), 'val': (test, test + val), 'train': (test + val, len(names))}
    wanted = set(ranked[slice(*cuts[part])])
    return [name for name in names if name in wanted]


def split_images(paths: Sequence[str], part: Literal['first', 'rest'], count: int) -> list[str]:
    """Select the first images of an identity (a gallery), or the images after them (probes).

    Args:
        paths: images of the identity, in order.
        part: the part to return.
        count: number of 'first' images, at least 1.

    Raises:
        ValueError: if ``part`` is neither of the two, or ``count`` is below 1.
    """
    if part not in ('first', 'rest') or count < 1:
        raise ValueError(
            "picture_split: part must be 'first' or 'rest' and count at least 1, got "
            f'{part!r} and {count}'
        )
    return list(paths[:count] if part == 'first' else paths[count:])
