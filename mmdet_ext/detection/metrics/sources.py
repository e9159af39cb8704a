"""Results and ground truth as the tools of analysis are given them: files and configs."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.fileio import load

from mmdet_ext.analysis.detection.columns import (
    Detections,
    ImageRows,
    ResultError,
    TruthSet,
    detections_of_rows,
    truth_of_coco,
    truth_of_rows,
)
from mmdet_ext.detection.datasets.plain import plain_dataset
from mmdet_ext.detection.metrics.samples import annotated_rows, predicted_rows
from mmdet_ext.engine.configs import read_config
from mmdet_ext.engine.errors import explained


def read_results(path: Path) -> list[ImageRows]:
    """Read the results of a test: ``mim test mmdet ... --out FILE.pkl``, or ``DumpDetResults``.

    A pickle is a program. Here it may make tensors, arrays of numbers and plain containers, and
    nothing else is looked up.

    Args:
        path: the file.

    Returns:
        Detections of each image.

    Raises:
        ResultError: if there is no such file, it is no pickle of results, or names anything else.
    """
    if not path.is_file():
        raise ResultError(f'no such file of results: {path}')
    try:
        with path.open('rb') as file:
            content = _Reader(file).load()
    except _RefusedError as error:
        raise ResultError(f'{path} was refused: {error}. Nothing of it was run') from None
    except Exception as error:  # a damaged pickle raises errors of many types
        raise ResultError(
            f'{path} cannot be read as a pickle ({type(error).__name__}: {error}); give the file '
            'that a test wrote with --out'
        ) from error
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise ResultError(
            f'{path}: a list of data samples is needed, got {type(content).__name__}; give the '
            'file that a test wrote with --out'
        )
    if not content:
        raise ResultError(f'{path}: no image; an empty test?')
    try:
        return [predicted_rows(sample) for sample in content]
    except ValueError as error:
        raise ResultError(f'{path}: {error}') from error


def detections_of_file(path: Path, data: TruthSet) -> Detections:
    """Read results that belong to a data set.

    Raises:
        ResultError: if they cannot be read, are of another data set, or cannot be ranked.
    """
    return detections_of_rows(read_results(path), data, str(path))


def ground_truth(
    source: Path,
    classes: Sequence[str] | None = None,
    images: Path | None = None,
    cfg_options: Sequence[str] = (),
) -> TruthSet:
    """Read the ground truth from a config, or from a COCO annotation file.

    Args:
        source: config (.py), whose test data set is taken, of any type; or annotations (.json).
        classes: of annotations, the classes in the order of the labels; None takes all categories
            in the order of the file.
        images: of annotations, the folder that the file names are relative to.
        cfg_options: what to set in the config, as KEY=VALUE.

    Raises:
        ValueError: if the source cannot be read; the message is one line.
    """
    if source.suffix != '.json':
        config = read_config(source, cfg_options)
        with explained(f'cannot read the test data set of {source}', with_place=True):
            return truth_of_dataset(plain_dataset(config, 'test'))
    if not source.is_file():
        raise ResultError(f'no such file of annotations: {source}')
    with explained(f'cannot read {source}'):
        content = load(str(source))
    if not isinstance(content, dict):
        raise ResultError(f'{source}: a json object is needed, got {type(content).__name__}')
    data = truth_of_coco(content, classes, str(source))
    if images is None:
        return data
    paths = [str(images / path) for path in data.paths]
    return TruthSet(data.image_ids, data.classes, data.truth, paths)


def truth_of_dataset(dataset: Any) -> TruthSet:
    """Read the ground truth of a data set of mmdet, without loading an image.

    Args:
        dataset: any data set whose entries have ``instances``, as mmdet's have.
    """
    rows = [annotated_rows(dataset.get_data_info(place)) for place in range(len(dataset))]
    return truth_of_rows(rows, dataset.metainfo['classes'])


class _RefusedError(ValueError):
    """Error for a name that a file of results may not hold."""


class _Reader(pickle.Unpickler):
    """Unpickler that looks up the names of tensors and of arrays of numbers alone."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a function that makes a tensor or an array."""
        if module == 'numpy.core.multiarray':  # before numpy 2
            module = 'numpy._core.multiarray'
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _RefusedError(
                f'it names {module}.{name}, and loading that could run code'
            ) from None


def _storage(content: bytes) -> Any:
    """Replace ``torch.storage._load_from_bytes``, which loads anything."""
    return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)


def _dtype(code: Any, *_: Any) -> np.dtype[Any]:
    """Replace ``numpy.dtype``: arrays hold numbers, text or bools, never objects."""
    dtype = np.dtype(code if isinstance(code, str) else 'O')
    if dtype.kind not in 'biufUS':
        raise _RefusedError(f'it holds an array of {dtype}')
    return dtype


def _array(*_: Any) -> np.ndarray:
    """Replace numpy's ``_reconstruct``: begin an empty array, whose state follows."""
    return np.empty(0, np.int8)


_ADMITTED: dict[tuple[str, str], Any] = {
    ('collections', 'OrderedDict'): OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    ('torch.storage', '_load_from_bytes'): _storage,
    ('torch', 'Size'): torch.Size,
    ('numpy', 'ndarray'): 'ndarray',  # an argument of the next, which needs none
    ('numpy', 'dtype'): _dtype,
    ('numpy._core.multiarray', '_reconstruct'): _array,
    # numpy's function of scalars, whose module has another name before numpy 2.
    ('numpy._core.multiarray', 'scalar'): np.float64(0).__reduce__()[0],
    ('_codecs', 'encode'): lambda text, _: text.encode('latin1'),
}
