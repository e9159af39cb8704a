"""Parts of a set of faces: without a common identity, or of the same identities."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from mmdet_ext.data.reports import LayoutError

_PARTS = {'identity_split': 'train', 'picture_split': 'first'}


def check_split(option: str, value: Any, split: Callable[..., Any]) -> None:
    """Raise ValueError unless ``value`` holds arguments of ``split`` behind its first one."""
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
    """The names that belong to a part.

    Names are ranked by a hash of seed and name; the first ranks are 'test', the next 'val', the
    rest 'train'. The parts of one set of names have no name in common and make up all of it.

    Args:
        names: of all identities, in any order, without repeats.
        part: which to give.
        val_fraction: share of 'val' in [0, 1); of above 0, at least one name.
        test_fraction: share of 'test' likewise. Both together are below 1.
        seed: of the ranking.

    Returns:
        Names, in the order given.

    Raises:
        ValueError: if ``part`` is none of the three, or its share is 0 or beyond range.

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
    """The first images of an identity (a gallery), or those behind them (probes).

    Args:
        paths: in order.
        part: which to give.
        count: how many 'first' are, at least 1.

    Raises:
        ValueError: if ``part`` is none of the two or ``count`` below 1.
    """
    if part not in ('first', 'rest') or count < 1:
        raise ValueError(
            "picture_split: part must be 'first' or 'rest' and count at least 1, got "
            f'{part!r} and {count}'
        )
    return list(paths[:count] if part == 'first' else paths[count:])
