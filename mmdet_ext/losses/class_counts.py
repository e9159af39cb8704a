"""Options for class counts and class weights: lists, files and schemes."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

from mmdet_ext.functional.classification.class_weights import CLASS_WEIGHT_SCHEMES, plain_numbers
from mmdet_ext.functional.numerics.checks import is_real

_TOOL = 'python tools/data/class_counts.py ANN --out counts.json'


def resolve_counts(counts: Sequence[float] | str | PathLike[str]) -> list[float]:
    """Return class counts from numbers, or from the file of ``tools/data/class_counts.py``.

    Args:
        counts: one number per class, in the order of the labels, as a list, an array or a tensor;
            or the path of a json file with a list ``counts``.

    Returns:
        list[float]: the numbers, from 0, at least one above 0.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not json of that form, or a number is wrong.
        TypeError: for anything but a list or a path.
    """
    if isinstance(counts, (str, PathLike)):
        return _checked_counts(_read_counts(Path(counts)), f'counts of {counts}')
    counts = plain_numbers(counts)
    if not isinstance(counts, Sequence):
        raise TypeError(
            f'counts must be a list of one number per class, or the path of a json file, got '
            f'{counts!r}. `{_TOOL}` writes such a file'
        )
    return _checked_counts(counts, 'counts')


def resolve_class_weights(value: object, name: str) -> list[float] | None:
    """Return one weight per class from a list or from ``dict(type=..., counts=..., ...)``.

    Args:
        value: None; a number for all classes; the weights, from 0, as a list, an array or a tensor;
            or a dict with the ``type`` of a scheme ('inverse_log', 'inverse_frequency',
            'effective_number'), ``counts`` as `resolve_counts` takes them, and the scheme's own
            options (``offset``, ``beta``).
        name: name of the option in errors.

    Raises:
        FileNotFoundError, TypeError, ValueError: for anything else, as `resolve_counts` and the
            schemes of :mod:`mmdet_ext.functional.classification.class_weights` do.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        listed = plain_numbers(value)
        return _checked([listed] if isinstance(listed, Real) else listed, name)
    options = scheme_options(value, name)
    if counts_of_batch(options):
        raise ValueError(
            f"{name}: counts='batch' is for the alpha of FocalLoss. Here give one number per "
            f'class, or a file written by `{_TOOL}`'
        )
    scheme = CLASS_WEIGHT_SCHEMES[options['type']]
    weights = scheme(resolve_counts(options['counts']), **own_options(options))
    return [float(weight) for weight in weights]


def counts_of_batch(options: Mapping[str, Any]) -> bool:
    """Return whether a scheme takes its counts from the labels of each call."""
    counts = options.get('counts')
    # The comparison of an array with text would give an array.
    return isinstance(counts, str) and counts == 'batch'


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the scheme itself, without ``type`` and ``counts``."""
    return {key: value for key, value in options.items() if key not in ('type', 'counts')}


def scheme_options(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Check the keys of ``dict(type=..., counts=..., ...)``, and return them.

    Args:
        value: options of a scheme of class weights, as `resolve_class_weights` takes them.
        name: name of the option in errors.

    Raises:
        ValueError: for an unknown ``type``, an option that the scheme does not have, or without
            ``counts``.
    """
    options = dict(value)
    kind = options.get('type')
    if kind not in CLASS_WEIGHT_SCHEMES:
        raise ValueError(
            f"{name}: 'type' must be one of {list(CLASS_WEIGHT_SCHEMES)}, got {kind!r}"
        )
    allowed = {'type', *inspect.signature(CLASS_WEIGHT_SCHEMES[kind]).parameters}
    unknown = sorted(map(str, options.keys() - allowed))
    if unknown:
        raise ValueError(f'{name}: {kind!r} has no option {unknown[0]!r}; it has {sorted(allowed)}')
    if 'counts' not in options:
        raise ValueError(
            f"{name}: 'counts' is missing. Give one number per class, or a file written by "
            f'`{_TOOL}`'
        )
    return options


def _read_counts(path: Path) -> object:
    """Return the list ``counts`` of a json file."""
    if not path.is_file():
        raise FileNotFoundError(f'counts: there is no file {path}. `{_TOOL}` writes one')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'counts: {path} is no json: {error}. `{_TOOL}` writes one') from error
    if not isinstance(content, dict) or not isinstance(content.get('counts'), list):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"counts: {path} has no list 'counts', found {found}. `{_TOOL}` writes such a file"
        )
    return content['counts']


def _checked_counts(values: object, name: str) -> list[float]:
    """Return the values as numbers from 0, of which at least one is above 0."""
    counts = _checked(values, name)
    if not any(counts):
        raise ValueError(f'{name} are all 0: at least one class must occur')
    return counts


def _checked(values: object, name: str) -> list[float]:
    """Return the values as finite numbers from 0."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f'{name} must be a list of one number per class, got {values!r}')
    for index, value in enumerate(values):
        if not is_real(value) or not 0 <= value < math.inf:
            raise ValueError(f'{name} must be numbers from 0, got {value!r} for class {index}')
    return [float(value) for value in values]
